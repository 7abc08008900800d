from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from prunecert.bench import sparse_benchmark
from prunecert.bench.engine.answers import TimedAnswer
from prunecert.bench.engine.complete import OURS, BenchmarkRequest
from prunecert.errors import UserError
from prunecert.verifiers.base import Status

ANSWER = TimedAnswer("a.onnx", 3, OURS, Status.UNSAT, 1.0, 1, "")


def test_options_become_a_request_and_a_contradiction_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = []

    def complete(request: BenchmarkRequest, names: Sequence[str]) -> list[TimedAnswer]:
        requests.append((request, names))
        return [ANSWER, replace(ANSWER, verifier="rival", status=Status.SAT, seconds=3.0)]

    monkeypatch.setattr(sparse_benchmark, "complete", complete)
    monkeypatch.setattr(sparse_benchmark, "installed", lambda names: (tuple(names), ["third is left out: no such"]))
    words = ["complete", "--onnx", "a.onnx", "--verifiers", f"{OURS},rival", "--images", "7", "--eps", "0.1"]
    words += ["--published", "other=4,5,6", "--out", str(tmp_path / "out.json")]
    assert sparse_benchmark.main(words) == 1
    assert requests == [(BenchmarkRequest(onnx=(Path("a.onnx"),), images=7, eps=0.1), (OURS, "rival"))]
    printed, said = capsys.readouterr()
    assert "| all 1 | 1 (0) | 3 (0) | 3 (3–3) |" in printed
    assert f"a.onnx, {OURS}, 1 answer, 0 undecided, beside what is published of other: median 1.000 s beside" in printed
    assert said == "third is left out: no such\n"
    assert "CONTRADICTION a.onnx, image 3: sat by rival" in printed
    assert (tmp_path / "out.json").is_file()


def test_a_chain_is_summed_up_after_its_first_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later = replace(ANSWER, network="b.onnx", seconds=4.0)
    chain = [ANSWER, later, replace(later, verifier=f"{OURS} + proofs", seconds=2.0)]
    monkeypatch.setattr(sparse_benchmark, "reuse", lambda _: chain)
    assert sparse_benchmark.main(["reuse", "--onnx", "a.onnx", "b.onnx"]) == 0
    assert "after the first network): median 2.00" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["complete", "reuse"])
def test_a_network_that_is_not_there_is_refused(tmp_path: Path, verb: str) -> None:
    with pytest.raises(UserError, match=r"none\.onnx does not exist"):
        sparse_benchmark.main([verb, "--onnx", str(tmp_path / "none.onnx")])
