"""The sparse engine's adapters: verdicts, any disjunctive normal form, and what isn't taken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind, OutputSpec, Status
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.worker import Worker
from tests import inprocess
from tests.verifiers import onnxnets

METHODS = ("sparse-ibp", "sparse-crown-ibp", "sparse-crown")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxnets.residual(tmp_path_factory.mktemp("nets") / "net.onnx", seed=2, sparsity=0.2)


@pytest.fixture(scope="module", params=METHODS)
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with inprocess.verifiers(), Worker(request.param, threads=1) as subject:
        yield subject


@pytest.mark.slow
def test_verdicts_follow_the_bounds(worker: Worker, network: Path) -> None:
    instances = [onnxnets.instance(network, eps, seed) for eps in (0.0, 0.001, 0.01, 0.3) for seed in range(3)]
    verdicts = worker.verify(instances)
    assert {verdict.status for verdict in verdicts} == {Status.UNSAT, Status.UNKNOWN}
    for question, verdict in zip(instances, verdicts, strict=True):
        assert verdict.bounds is not None
        assert len(verdict.bounds) == 9
        assert (verdict.status is Status.UNSAT) == (min(verdict.bounds) > 0)
        assert verdict.stage == ("incomplete" if verdict.status is Status.UNSAT else None)
        assert verdict.unstable is not None
        assert verdict.times.bound_s > 0
        outputs = counterexample.outputs(network, onnxnets.samples(question, 2000)).astype(np.float64)
        smallest = np.array([(outputs @ a.T - b).max(axis=1).min() for a, b in question.spec.disjuncts])
        assert np.all(np.array(verdict.bounds) <= smallest + 1e-5)


@pytest.mark.slow
def test_any_disjunctive_normal_form(worker: Worker, network: Path) -> None:
    rng = np.random.default_rng(0)
    instances = []
    for seed, rows in enumerate([(1,), (3, 1, 2), (2, 0, 2), (1,) * 40, ()]):
        spec = OutputSpec(tuple((rng.standard_normal((m, 10)), rng.standard_normal(m) - 2) for m in rows))
        instances.append(onnxnets.instance(network, 0.01, seed, spec=spec))
    verdicts = worker.verify(instances)
    for question, verdict in zip(instances, verdicts, strict=True):
        if any(len(b) == 0 for _, b in question.spec.disjuncts) or not question.spec.disjuncts:
            # A disjunct without rows is met by every output, and no disjunct by none: nothing is claimed of either.
            assert verdict.status is Status.UNKNOWN
            continue
        assert verdict.bounds is not None
        outputs = counterexample.outputs(network, onnxnets.samples(question, 2000)).astype(np.float64)
        smallest = np.array([(outputs @ a.T - b).max(axis=1).min() for a, b in question.spec.disjuncts])
        assert np.all(np.array(verdict.bounds) <= smallest + 1e-5)


def test_a_positive_bound_is_a_proof_however_small(worker: Worker, network: Path) -> None:
    """No margin of safety: the bound itself is rigorous, and a point's is exact but for what the normal form rounds."""
    point = onnxnets.instance(network, 0.0, 7)
    output = float(counterexample.outputs(point.onnx, point.lower[None])[0, 0])
    for above, status in ((4e-5, Status.UNSAT), (-4e-5, Status.UNKNOWN)):
        spec = OutputSpec(((np.eye(10)[:1], np.array([output - above])),))
        (verdict,) = worker.verify([onnxnets.instance(network, 0.0, 7, spec=spec)])
        assert verdict.status is status
        assert verdict.bounds is not None
        assert verdict.bounds[0] == pytest.approx(above, abs=2e-5)


def test_balls_are_taken_beside_boxes_or_unsupported(worker: Worker, network: Path) -> None:
    ball, box = worker.verify([onnxnets.instance(network, 0.01, 0, norm="l2"), onnxnets.instance(network, 0.0, 0)])
    assert box.status is Status.UNSAT
    if worker.name != "sparse-crown":
        assert ball.status is Status.UNSUPPORTED
        return
    question = onnxnets.instance(network, 0.01, 0, norm="l2")
    assert ball.bounds is not None
    assert ball.status is (Status.UNSAT if min(ball.bounds) > 0 else Status.UNKNOWN)
    outputs = counterexample.outputs(network, onnxnets.samples(question, 2000)).astype(np.float64)
    smallest = np.array([(outputs @ a.T - b).max(axis=1).min() for a, b in question.spec.disjuncts])
    assert np.all(np.array(ball.bounds) <= smallest + 1e-5)
    assert np.all(np.array(ball.bounds) >= smallest - 1.0)


def test_an_operator_is_named(worker: Worker, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sin", ["input"], ["p"], name="wave"),
        helper.make_node("Flatten", ["p"], ["output"]),
    ]
    path = onnxnets.write(tmp_path / "net.onnx", nodes, {}, (1, 2, 2), 4)
    (verdict,) = worker.verify([onnxnets.instance(path, 0.01)])
    assert verdict.status is Status.UNSUPPORTED
    assert "Sin" in verdict.detail
    assert "wave" in verdict.detail


def test_time_that_is_over_is_a_timeout(network: Path) -> None:
    adapter = VERIFIERS.get("sparse-crown")()
    adapter.start()
    adapter.load(network)
    instances = [replace(onnxnets.instance(network, 0.01, seed), timeout=1e-9) for seed in range(12)]
    statuses = [verdict.status for verdict in adapter.solve(instances)]
    assert statuses[10:] == [Status.TIMEOUT] * 2
    assert {verdict.status for verdict in adapter.solve([replace(item, timeout=60.0) for item in instances])} <= {
        Status.UNSAT,
        Status.UNKNOWN,
    }


def test_listing_verifiers_imports_no_compiler() -> None:
    code = (
        "import sys; from verifiers import VERIFIERS; "
        f"[VERIFIERS.get(name).availability() for name in {METHODS!r}]; "
        "print([name for name in ('numba', 'llvmlite', 'torch', 'onnx') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["numba", "scipy"])
def test_what_is_missing_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    for name in METHODS:
        verifier = VERIFIERS.get(name)
        assert verifier.kind is Kind.INCOMPLETE
        availability = verifier.availability()
        assert not availability.installed
        assert f"pip install {missing}" in availability.hint
