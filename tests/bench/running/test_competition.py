from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.bench.running.competition import answer, results_text
from prunecert.errors import UserError
from prunecert.verifiers.base import Status, Verdict


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
