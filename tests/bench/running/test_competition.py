from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prunecert.bench.running import competition
from prunecert.bench.running.competition import answer, results_text
from prunecert.errors import UserError
from prunecert.verifiers.base import Status, Verdict
from tests.bench.test_vnncomp import write_property
from tests.verifiers import onnxnets


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (Status.UNSAT, "unsat"),
        (Status.UNKNOWN, "unknown"),
        (Status.TIMEOUT, "timeout"),
        (Status.ERROR, "error"),
        (Status.MEMOUT, "error"),
        (Status.UNSUPPORTED, "unknown"),
    ],
)
def test_each_status_has_the_competitions_word(status: Status, word: str) -> None:
    assert results_text(Verdict(status, "why")) == f"{word}\n"


def test_a_counterexample_follows_with_the_replayed_outputs() -> None:
    verdict = Verdict(
        Status.SAT, witness=np.array([0.5, 0.25], dtype=np.float32), witness_check={"outputs": [1.5, -2.0]}
    )
    word, _, rest = results_text(verdict).partition("\n")
    assert word == "sat"
    assert rest.split() == ["((X_0", "0.5)", "(X_1", "0.25)", "(Y_0", "1.5)", "(Y_1", "-2.0))"]


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        answer(tmp_path / "nowhere.onnx", tmp_path / "nowhere.vnnlib", 5.0, ("sparse-bab",), tmp_path)


@pytest.mark.slow
def test_what_is_done_once_for_a_machine_counts_in_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def compile_kernels(names: tuple[str, ...]) -> None:
        now[0] += 1000.0

    monkeypatch.setattr(competition, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(competition, "prepare_verifiers", compile_kernels)
    network = onnxnets.linear(tmp_path / "net.onnx", outputs=2)
    # Some input in so large a box is unsafe.
    question = write_property(tmp_path / "unsafe.vnnlib", 100.0)
    assert answer(network, question, 60.0, ("sparse-bab",), tmp_path).status is Status.SAT
