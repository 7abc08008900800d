from __future__ import annotations

import hashlib
import io
import os
import signal
from pathlib import Path

import pytest

from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Status
from prunecert.verifiers.checker import check_stream
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.formats.vnnlib import to_vnnlib
from prunecert.verifiers.process.certifying import CertifyingWorker
from prunecert.verifiers.process.child import Server
from tests.verifiers.checker import kit


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


def test_a_verifier_that_writes_none_says_so() -> None:
    # In this process, since nothing of the verifier is needed.
    server = Server()
    server.verifier = VERIFIERS.get("pgd")()
    reply = server.answer(("certify", ("net.onnx", b"", 1.0, None, [])))
    assert (reply["ok"], reply["kind"], reply["text"]) == (False, "unsupported", "pgd writes no certificates")
