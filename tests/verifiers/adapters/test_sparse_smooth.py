"""What `sparse-bab` answers about networks with Sigmoid and Tanh, and how all refuse what they can't take of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.onnx.io import identity
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.adapters.sparse_search import SparseBab
from prunecert.verifiers.base import Instance, OutputSpec, Status, UnsupportedError
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.inspection import check_supported
from prunecert.verifiers.process.reading import FileReading
from prunecert.verifiers.rounding import guard
from prunecert.verifiers.sparse.bab.outcome import Limits
from tests.verifiers import onnxnets
from tests.verifiers.sparse.quantised import networks
from tests.verifiers.sparse.smooth import smoothnets


def loaded(path: Path, **settings: Any) -> SparseBab:
    """Returns the adapter with a network; kernels aren't needed for these, so that it isn't started."""
    subject = SparseBab(settings)
    subject._make_limits = Limits
    subject.load(path)
    return subject


def ask(path: Path, eps: float, threshold: float, shape: tuple[int, ...] = (2,), seconds: float = 30.0) -> Instance:
    center = np.full(shape, 0.2, np.float32)
    spec = smoothnets.above(0, threshold)
    box = center - np.float32(eps), center + np.float32(eps)
    return Instance(path, sha256_file(path), *box, spec, seconds, "smooth", None, 3)


def test_it_proves_and_breaks(tmp_path: Path) -> None:
    path = smoothnets.small(tmp_path, 0)
    subject = loaded(path)
    points = np.random.default_rng(0).random((3, 2), dtype=np.float32)
    outputs = subject.evaluate(points)
    assert outputs is not None
    np.testing.assert_allclose(outputs, counterexample.outputs(path, points), atol=1e-5)
    question = ask(path, 0.1, 0.0)
    values = counterexample.outputs(path, onnxnets.samples(question, 500)).astype(np.float64)
    margin = float((values[:, [0]] - values[:, 1:]).min())
    (safe,) = subject.solve([ask(path, 0.1, margin - 0.05)])
    assert safe.status is Status.UNSAT
    assert safe.bounds is not None
    broken = ask(path, 0.1, margin + 0.05)
    (unsafe,) = subject.solve([broken])
    assert unsafe.status is Status.SAT
    assert unsafe.witness is not None
    assert counterexample.replay(broken, unsafe.witness)[0].ok
    # The float32 part of a verdict is measured on such a file, too.
    assert max(guard.measure(question).allowance) < 1e-3


def test_a_worker_s_reading_of_a_foreign_file(tmp_path: Path) -> None:
    """Normalisation is folded, Sigmoid and Tanh stay, and the answer is about the file."""
    path = smoothnets.convolutional(tmp_path / "c.onnx")
    reading = FileReading(path, identity(path), 3, SparseBab.capabilities(), tmp_path / "scratch")
    assert reading.changed
    assert {"Sigmoid", "Tanh"} <= {operator for operator, _ in reading.operators}
    instance = ask(path, 0.02, -3.0, (2, 4, 4))
    question = reading.translate(instance)
    subject = loaded(reading.path, split="relu")
    reading.compare(instance, subject.evaluate)
    (verdict,) = subject.solve([question])
    values = counterexample.outputs(path, onnxnets.samples(instance, 500)).astype(np.float64)
    least = (values[:, [0]] - values[:, 1:]).min()
    settled = reading.settle(instance, verdict, subject.evaluate)
    assert settled.status is (Status.UNSAT if least > -3.0 else Status.SAT)
    if settled.bounds is not None:
        assert min(settled.bounds) <= least + 3.0 + 1e-6


def test_balls_and_certificates_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = smoothnets.small(tmp_path, 1)
    subject = loaded(path)
    ball = ask(path, 0.1, 0.0)
    ball = replace(ball, norm="l2", center=ball.lower, eps=0.1)
    (verdict,) = subject.solve([ball])
    assert verdict.status is Status.UNSUPPORTED
    assert verdict.detail == "sparse-bab takes networks with Sigmoid or Tanh over boxes (linf) alone, not over l2 balls"
    with pytest.raises(UnsupportedError, match="has a Sigmoid or Tanh"):
        subject.certify(path, b"", 1.0, None, ())
    # The next network is another one.
    subject.load(onnxnets.normal_form(onnxnets.linear(tmp_path / "l.onnx")))
    assert subject._smooth is None


@pytest.mark.parametrize("name", ["sparse-ibp", "sparse-crown", "sparse-alpha-crown", "sparse-pair"])
def test_the_others_name_the_operator(name: str, tmp_path: Path) -> None:
    path = smoothnets.small(tmp_path, 0)
    verifier = VERIFIERS.get(name)
    with pytest.raises(UserError, match="Sigmoid"):
        FileReading(path, identity(path), 3, verifier.capabilities(), tmp_path / "scratch")
    with pytest.raises(UnsupportedError, match="Sigmoid"):
        verifier().load(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparse-crown", "sparse-bab", "sparse-pair"])
def test_before_a_run_it_is_known_who_takes_it(name: str, tmp_path: Path) -> None:
    reason = check_supported(VERIFIERS.get(name), smoothnets.small(tmp_path, 0), "linf", "dnf")
    assert (reason is None) == (name == "sparse-bab")
    if reason is not None:
        assert "Sigmoid" in reason


def test_quantised_networks_with_a_sigmoid_are_refused_by_its_name(tmp_path: Path) -> None:
    model = networks.network("dense", 0)
    first = next(node for node in model.graph.node if node.op_type == "Relu")
    first.op_type = "Sigmoid"
    path = tmp_path / "q.onnx"
    onnx.save(model, path)
    with pytest.raises(UnsupportedError, match="Sigmoid"):
        loaded(path)


def test_a_sigmoid_before_a_last_one_is_asked_about_as_it_is(tmp_path: Path) -> None:
    """Its values are between 0 and 1, which is proved, and nothing is taken off."""
    constants = {"w": np.ones((3, 2), np.float32), "v": np.eye(3, dtype=np.float32), "b": np.zeros(3, np.float32)}
    nodes = [
        helper.make_node("Gemm", ["input", "w", "b"], ["g"], transB=1),
        helper.make_node("Tanh", ["g"], ["t"]),
        helper.make_node("Gemm", ["t", "v", "b"], ["h"], transB=1),
        helper.make_node("Sigmoid", ["h"], ["output"]),
    ]
    path = onnxnets.write(tmp_path / "s.onnx", nodes, constants, (2,), 3)
    subject = loaded(path)
    answers = []
    for limit in (0.0, 0.9):
        spec = OutputSpec(((np.eye(3)[:1], np.array([limit])),))
        (verdict,) = subject.solve([replace(ask(path, 0.5, 0.0), spec=spec)])
        answers.append(verdict.status)
    assert answers == [Status.UNSAT, Status.SAT]
