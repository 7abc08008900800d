from __future__ import annotations

import hashlib
import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.adapters.sparse_search import SparseBab
from prunecert.verifiers.base import Status
from prunecert.verifiers.checker import check, check_stream
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.formats.vnnlib import parse_property, to_vnnlib
from prunecert.verifiers.process.certifying import CertifyingWorker
from prunecert.verifiers.process.child import Server
from prunecert.verifiers.sparse import certified_trees
from tests.verifiers.checker import kit

#: Of a box that CROWN leaves open.
RADIUS = 0.28


@pytest.mark.slow
def test_answers_are_certified_and_what_goes_wrong_is_a_reason(tmp_path: Path) -> None:
    questions = [files.question.instance(files.onnx) for files in kit.questions("conv-skip")]
    network, digest = read_network(questions[0].onnx.read_bytes()), questions[0].onnx_sha256
    with CertifyingWorker("sparse-bab", threads=1) as worker:
        for instance in (questions[3], questions[-1]):
            (verdict,) = worker.verify([instance])
            text = to_vnnlib(instance).encode()
            written, content = worker.certify([instance], text, 20.0, verdict.witness)
            assert (written.reason, written.status) == ("", verdict.status)
            report = check_stream(io.BytesIO(content), bytes.fromhex(digest), lambda: network, text)
            assert report.answer == verdict.status
        # One that was not the last: it is searched again.
        written, content = worker.certify(questions[3:4], to_vnnlib(questions[3]).encode(), 20.0)
        assert (written.status, bool(content)) == ("unsat", True)
        written, content = worker.certify(questions[3:4], b"(assert", 20.0)
        assert (written.status, content) == ("error", b"")
        assert "is not taken by the checker" in written.reason
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        written, content = worker.certify(questions[-1:], to_vnnlib(questions[-1]).encode(), 20.0)
        assert (written.status, written.how, bool(content)) == ("sat", "witness", True) or written.reason
        (again,) = worker.verify([questions[3]])
        assert again.status is Status.UNSAT
    with pytest.raises(UserError, match="is closed"):
        worker.certify(questions[3:4], b"", 1.0)
    assert hashlib.sha256(questions[0].onnx.read_bytes()).hexdigest() == digest


def test_trees_about_the_normal_form_certify_the_network_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network with batch normalisation, which the normal form folds; in this process."""
    onnx, vnnlib = kit.batch_norm(tmp_path / "bn.onnx"), tmp_path / "p.vnnlib"
    vnnlib.write_bytes(kit.keeps_class(onnx, RADIUS))
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    questions = parse_property(vnnlib.read_text(), "p").instances(onnx, digest, (4,), 60.0)
    server = Server()

    def ask(action: str, *arguments: object) -> dict[str, Any]:
        reply = server.answer((action, arguments))
        assert reply["ok"], reply
        return reply

    ask("start", SparseBab.__module__, SparseBab.__qualname__, {"split": "relu"}, "cpu")
    ask("read", str(onnx), digest, 3, str(tmp_path / "normal"))
    assert server.reading is not None
    assert server.reading.changed
    ask("load")
    (verdict,) = ask("solve", questions)["verdicts"]
    assert verdict["status"] == "unsat"

    def search_again(*_: object) -> None:
        raise AssertionError("the search is made a second time")

    monkeypatch.setattr(certified_trees, "Search", search_again)
    hashes = [question.question() for question in questions]
    reply = ask("certify", str(onnx), vnnlib.read_bytes(), 60.0, None, hashes)
    assert (reply["written"]["reason"], reply["written"]["how"]) == ("", "bab")
    (tmp_path / "proof").write_bytes(reply["content"])
    assert check(tmp_path / "proof", onnx, vnnlib).answer == "unsat"


def test_a_verifier_that_writes_none_says_so() -> None:
    # In this process, since nothing of the verifier is needed.
    server = Server()
    server.verifier = VERIFIERS.get("pgd")()
    reply = server.answer(("certify", ("net.onnx", b"", 1.0, None, [])))
    assert (reply["ok"], reply["kind"], reply["text"]) == (False, "unsupported", "pgd writes no certificates")
