"""What is answered, and in which order things are refused, once the verifiers are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.running.properties_request import PropertiesRequest
from prunecert.bench.running.properties_session import answer
from prunecert.errors import EXIT_OK, UserError
from prunecert.verifiers.process.worker import Worker
from tests.bench.propertykit import HOLDS, identity, log


def request(folder: Path) -> PropertiesRequest:
    onnx, vnnlib = identity().save(folder / "net.onnx"), folder / "p.vnnlib"
    vnnlib.write_text(HOLDS)
    return PropertiesRequest(verifiers={"sparse-ibp": {}}, onnx=onnx, vnnlib=vnnlib, timeout=60.0, out=folder / "out")


def test_a_file_that_is_no_network_starts_no_process(tmp_path: Path) -> None:
    question = request(tmp_path)
    (tmp_path / "net.onnx").write_text("no network")
    with Worker("sparse-ibp") as worker:
        with pytest.raises(UserError, match=r"net\.onnx"):
            answer(question, question.tasks(), {"sparse-ibp": worker}, tmp_path / "scratch")
        assert worker.pid is None
    assert not list(question.out.glob("instances*"))


def test_what_is_answered_already_is_not_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = request(tmp_path)
    question.out.mkdir()
    for kept in (False, True):
        with Worker("sparse-ibp") as worker:
            assert answer(question, question.tasks(), {"sparse-ibp": worker}, tmp_path / "scratch") == EXIT_OK
        said = capsys.readouterr().out
        assert ("(kept)" in said, "sparse-ibp: 1 property: 1 unsat" in said) == (kept, True)
    kinds = [row["type"] for row in log(question.out)]
    assert (kinds.count("session"), kinds.count("property")) == (2, 1)
