from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.engine.revision_script import Answering
from tests.verifiers import onnxnets

ROOT = Path(__file__).resolve().parents[3]


def test_this_state_answers(tmp_path: Path) -> None:
    """With the verifiers that it has, by the names that the script asks for."""
    path = onnxnets.normal_form(onnxnets.linear(tmp_path / "net.onnx"))
    question = onnxnets.instance(path, 0.0)
    adapter: Any = Answering()
    assert adapter.answer({"verifier": "sparse-ibp", "tree": str(ROOT)}) == {}
    assert adapter.answer({"load": str(path)}) == {}
    np.savez(tmp_path / "box.npz", lower=question.lower, upper=question.upper)
    reply = adapter.answer({"box": str(tmp_path / "box.npz"), "label": question.label, "classes": 10, "timeout": 5.0})
    assert reply["status"] == "unsat"
    assert set(reply) == {"status", "domains", "detail", "cpu", "wall"}
    assert reply["wall"] > 0


def test_another_tree_than_the_one_on_the_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="was imported from"):
        Answering().answer({"verifier": "pgd", "tree": str(tmp_path)})
