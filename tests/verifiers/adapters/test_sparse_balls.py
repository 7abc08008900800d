"""What the sparse adapters answer about l2 balls: bounds, proofs and counterexamples, without a worker process."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.adapters.lirpa.adapter import Crown
from prunecert.verifiers.adapters.lirpa.engine import Lirpa
from prunecert.verifiers.adapters.sparse_balls import Balls
from prunecert.verifiers.adapters.sparse_bounds import SparseCrown
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec, Status
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.balls.ranges import ball_of, bound_disjuncts
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nets")
    return onnxnets.normal_form(onnxnets.residual(folder / "net.onnx", seed=2, sparsity=0.2))


def replay(question: Instance, x: FloatArray) -> FloatArray:
    (output,) = counterexample.outputs(question.onnx, x.reshape(1, *question.lower.shape))
    return np.asarray(output, dtype=np.float32)


def test_bounds_are_below_the_outputs(network: Path) -> None:
    balls = Balls(read_network(network))
    for eps in (0.0, 0.02, 0.3):
        question = onnxnets.instance(network, eps, 1, norm="l2")
        result = balls.bound(question)
        assert result is not None
        bounds, unstable = result
        outputs = counterexample.outputs(network, onnxnets.samples(question, 2000)).astype(np.float64)
        smallest = np.array([(outputs @ a.T - b).max(axis=1).min() for a, b in question.spec.disjuncts])
        assert np.all(np.array(bounds) <= smallest + 1e-5)
        assert (unstable == 0) == (eps == 0.0)
        if eps == 0.0:
            np.testing.assert_allclose(bounds, smallest, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "eps"), [(onnxnets.convolutional, 0.01), (onnxnets.residual, 0.1)])
def test_without_hidden_balls_it_is_crown_of_auto_lirpa(
    make: Callable[[Path], Path], eps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `crown` adds to that has tests of its own (tests/verifiers/adapters/lirpa).
    monkeypatch.setattr(Crown, "_tighten", Lirpa._tighten)
    path = onnxnets.normal_form(make(tmp_path / "net.onnx"))
    crown = VERIFIERS.get("crown")()
    crown.start()
    crown.load(path)
    question = onnxnets.instance(path, eps, 1, norm="l2")
    (verdict,) = crown.solve([question])
    assert question.center is not None
    center = question.center.reshape(-1).astype(np.float64)
    checker, whole = Checker(read_network(path)), ball_of(center, eps, center - 2 * eps, center + 2 * eps)
    plain, _ = bound_disjuncts(checker, whole, question.spec, balls=False)
    assert verdict.bounds is not None
    np.testing.assert_allclose(np.array(plain), np.array(verdict.bounds), atol=2e-5)
    better, _ = bound_disjuncts(checker, whole, question.spec)
    assert np.all(np.array(better) >= np.array(plain) - 1e-9)


def test_time_that_is_over_is_said(network: Path) -> None:
    question = replace(onnxnets.instance(network, 0.3, 1, norm="l2"), timeout=1e-9)
    assert Balls(read_network(network)).bound(question) is None
    adapter = SparseCrown()
    adapter._network = read_network(network)
    verdict = adapter._on_ball(question)
    assert (verdict.status, verdict.stage, verdict.bounds) == (Status.TIMEOUT, None, None)
    assert adapter._on_ball(replace(question, timeout=60.0)).status in (Status.UNSAT, Status.UNKNOWN)


@pytest.mark.slow
def test_a_worker_proves_and_confirms_over_balls(network: Path) -> None:
    """As `bench.run` asks: in a process of its own, with the guard after it and counterexamples replayed."""
    around = onnxnets.instance(network, 0.5, 1, norm="l2")
    row = np.eye(10)[:1]
    outputs = counterexample.outputs(network, onnxnets.samples(around, 1000)).astype(np.float64)
    broken = replace(around, spec=OutputSpec(((row, (outputs @ row.T).min(axis=0)),)))
    with Worker("sparse-bab", threads=1) as worker:
        proved, answer = worker.verify([onnxnets.instance(network, 0.005, 1, norm="l2"), broken])
    assert (proved.status, proved.detail) == (Status.UNSAT, "")
    assert proved.bounds is not None
    assert min(proved.bounds) > 0
    assert answer.status is Status.SAT, answer.detail
    assert answer.witness is not None
    assert broken.contains(answer.witness)
    assert answer.witness_check is not None
    assert answer.witness_check["ok"]


def test_small_balls_are_proved_and_what_is_there_is_found_inside_the_ball(network: Path) -> None:
    balls = Balls(read_network(network))
    proved = onnxnets.instance(network, 0.005, 1, norm="l2")
    assert (
        balls.search(proved, Limits(), time.monotonic() + 60, functools.partial(replay, proved)).status is Status.UNSAT
    )
    row = np.eye(10)[:1]
    around = onnxnets.instance(network, 0.5, 1, norm="l2")
    outputs = counterexample.outputs(network, onnxnets.samples(around, 1000)).astype(np.float64)
    question = replace(around, spec=OutputSpec(((row, (outputs @ row.T).min(axis=0)),)))
    out = balls.search(question, Limits(), time.monotonic() + 60, functools.partial(replay, question))
    assert out.status is Status.SAT
    assert out.witness is not None
    point = out.witness.reshape(question.lower.shape)
    assert question.contains(point)
    assert question.spec.violated_by(replay(question, point))
