"""What all adapters to the sparse engine share: what they need, what they take, and which network they read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import prunecert
from prunecert.hashing import sha256_file
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.adapters import sparse_adapter
from prunecert.verifiers.adapters.sparse_adapter import SparseVerifier, boxes_only
from prunecert.verifiers.base import Instance, OutputSpec, Status, UnsupportedError
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.support import check_question
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.quantised.intervals import Intervals
from prunecert.verifiers.sparse.quantised.question import Quantised
from tests.verifiers import onnxnets
from tests.verifiers.sparse.quantised.networks import network

FAMILY = ("sparse-ibp", "sparse-crown-ibp", "sparse-crown", "sparse-alpha-crown", "sparse-bab")


@pytest.mark.parametrize("name", FAMILY)
def test_all_say_the_same_of_what_they_take(name: str) -> None:
    verifier = VERIFIERS.get(name)
    assert issubclass(verifier, SparseVerifier)
    allowed = verifier.capabilities()
    assert allowed.operators == {"Add", "AveragePool", "Conv", "Flatten", "Gemm", "Relu", "Reshape"}
    assert check_question(verifier, "linf", "dnf") is None
    balls = check_question(verifier, "l2", "robustness")
    if name in ("sparse-ibp", "sparse-crown-ibp"):
        assert f"{name} doesn't take the norm l2" in str(balls)
    else:
        assert balls is None


@pytest.mark.parametrize("missing", ["numba", "scipy"])
def test_a_library_that_is_missing_is_named_with_its_remedy(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_missing(*modules: str) -> str | None:
        return missing if missing in modules else None

    verifier = VERIFIERS.get("sparse-crown")
    present = verifier.availability()
    assert present.installed
    assert present.version == prunecert.__version__
    assert present.source == f"prunecert {prunecert.__version__}"
    monkeypatch.setattr(sparse_adapter, "first_missing", first_missing)
    absent = verifier.availability()
    assert not absent.installed
    assert absent.hint == f"sparse-crown needs {missing}: python -m pip install {missing}"


@pytest.mark.parametrize("seed", range(3))
def test_it_evaluates_the_file_in_float64(seed: int, tmp_path: Path) -> None:
    path = onnxnets.normal_form(onnxnets.residual(tmp_path / "n.onnx", seed=seed, sparsity=0.5))
    subject: Any = VERIFIERS.get("sparse-ibp")()
    subject._network = read_network(path)
    points = np.random.default_rng(seed).random((5, 3, 6, 6), dtype=np.float32)
    outputs = subject.evaluate(points)
    assert outputs is not None
    assert outputs.dtype == np.float64
    np.testing.assert_allclose(outputs, counterexample.outputs(path, points), rtol=1e-4, atol=1e-4)


def test_a_ball_is_unsupported_and_says_who_takes_none(tmp_path: Path) -> None:
    ball = onnxnets.instance(onnxnets.linear(tmp_path / "n.onnx"), 0.1, norm="l2")
    verdict = boxes_only("sparse-ibp", ball)
    assert verdict.status is Status.UNSUPPORTED
    assert verdict.detail == "sparse-ibp takes boxes (linf), not l2 balls"


def quantised_question(folder: Path) -> tuple[Any, Instance]:
    """Returns an adapter that has read a quantised network, and a question about it."""
    model = network("dense", 1)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    path = folder / "int8.onnx"
    onnx.save(model, path)
    subject: Any = VERIFIERS.get("sparse-ibp")()
    subject._read(path)
    low = np.full((4,), 0.3, dtype=np.float32)
    spec = OutputSpec.robustness(0, 3)
    return subject, Instance(path, sha256_file(path), low, low + np.float32(0.1), spec, 10.0, classes=3)


def test_a_quantised_network_is_compared_with_onnxruntime_and_not_evaluated(tmp_path: Path) -> None:
    subject, question = quantised_question(tmp_path)
    assert subject.evaluate(question.lower[None]) is None
    boxed = subject._boxed(subject._quantised, question)
    assert (boxed.lower <= boxed.upper).all()
    with pytest.raises(UnsupportedError, match="normal form"):
        subject.certify(question.onnx, b"", 1.0, None, "")
    # The same file, said to be another.
    other, _ = quantised_question(tmp_path)
    steps = list(other._quantised.intervals.steps)
    number = next(k for k, step in enumerate(steps) if step.operator == "Gemm")
    steps[number] = replace(steps[number], bias=steps[number].bias + 0.5)
    other._quantised = Quantised(Intervals(steps), other._quantised.relaxed)
    with pytest.raises(RuntimeError, match="outside of their bounds"):
        other._boxed(other._quantised, question)
