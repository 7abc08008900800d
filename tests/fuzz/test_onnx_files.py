"""A few files of the fuzzer; thousands are tried by ``python -m tests.fuzz.onnx_files 5000``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.onnx.normalise import normalise
from tests.fuzz.onnx_files import attempt, mutated
from tests.prunecert.onnx import seeds


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    outcomes = [attempt(mutated(np.random.default_rng([7, number])), tmp_path) for number in range(150)]
    assert not [outcome for outcome in outcomes if outcome.startswith("wrong")]
    assert outcomes.count("read") >= 10
    assert outcomes.count("refused") >= 50


def test_the_fuzzer_sees_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("shape")

    monkeypatch.setattr("tests.fuzz.onnx_files.normalise", broken)
    assert attempt(seeds.models()[0].SerializeToString(), tmp_path).startswith("wrong: Traceback")


def test_what_is_mutated_is_read_before(tmp_path: Path) -> None:
    for model in seeds.models():
        assert normalise(model).changed
        assert attempt(model.SerializeToString(), tmp_path) == "read"
