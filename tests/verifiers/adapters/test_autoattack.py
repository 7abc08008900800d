"""AutoAttack: what it finds is in the box and unsafe, clipped balls are attacked together and other boxes alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.verifiers.adapters.autoattack.adapter import AutoAttack
from prunecert.verifiers.adapters.autoattack.boxes import VERSIONS, ball, fitting
from prunecert.verifiers.base import Status
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.worker import Worker
from tests import inprocess
from tests.verifiers import onnxnets

pytestmark = [
    pytest.mark.autoattack,
    pytest.mark.skipif(not AutoAttack.availability().installed, reason=AutoAttack.availability().hint),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxnets.residual(tmp_path_factory.mktemp("autoattack") / "net.onnx", seed=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, which leaves targeted DLR out, and images too small for Square: a quick attack."""
    return onnxnets.linear(tmp_path_factory.mktemp("autoattack") / "small.onnx", outputs=3)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with inprocess.verifiers(), Worker("autoattack", threads=1) as subject:
        yield subject


@pytest.mark.slow
def test_finds_confirmed_counterexamples(worker: Worker, network: Path) -> None:
    instances = [onnxnets.instance(network, 0.2, seed) for seed in range(6)]
    verdicts = worker.verify(instances)
    assert [verdict.status for verdict in verdicts] == [Status.SAT] * 6, [v.detail for v in verdicts]
    for question, verdict in zip(instances, verdicts, strict=True):
        onnxnets.check_counterexample(question, verdict)
        assert verdict.stage == "attack"


@pytest.mark.slow
def test_finds_what_is_there_and_nothing_else(worker: Worker, small: Path) -> None:
    """On a linear network the least radius of a counterexample is known: the attacks come within a per cent of it."""
    network = counterexample.outputs(small, np.zeros((1, 3, 2, 2), dtype=np.float32))
    base = network[0].astype(np.float64)
    axes = np.eye(12, dtype=np.float32).reshape(12, 3, 2, 2)
    weights = (counterexample.outputs(small, axes) - base).astype(np.float64)
    instances = []
    for seed in range(4):
        question = onnxnets.instance(small, 0.1, seed)
        assert question.center is not None
        assert question.label is not None
        # Far from 0 and 1, so that no ball is clipped.
        center = (0.4 + 0.2 * question.center).astype(np.float32)
        logits = base + center.reshape(-1).astype(np.float64) @ weights
        label = int(logits.argmax())
        gaps = [
            (logits[label] - logits[j]) / np.abs(weights[:, label] - weights[:, j]).sum()
            for j in range(3)
            if j != label
        ]
        for factor in (0.98, 1.02):
            eps = float(min(gaps)) * factor
            spec = type(question.spec).robustness(label, 3)
            instances.append(
                replace(question, lower=center - np.float32(eps), upper=center + np.float32(eps), eps=eps, spec=spec,
                        label=label, name=f"{seed} {factor}")
            )  # fmt: skip
    for question, verdict in zip(instances, worker.verify(instances), strict=True):
        expectation = Status.SAT if question.name.endswith("1.02") else Status.UNKNOWN
        assert verdict.status is expectation, f"{question.name}: {verdict.detail}"
        if expectation is Status.UNKNOWN:
            assert verdict.detail == "no counterexample by apgd-ce, apgd-dlr, fab-t"


def test_a_box_that_is_no_ball(worker: Worker, network: Path) -> None:
    """Fixed pixels stay fixed, and each pixel has a range of its own."""
    question = onnxnets.instance(network, 0.5, 3)
    lower, upper = question.lower.copy(), question.upper.copy()
    lower[0] = upper[0] = 0.25
    upper[1] = lower[1] + (upper[1] - lower[1]) * np.float32(0.5)
    moved = replace(question, lower=lower, upper=upper, eps=None)
    assert ball(moved) is None
    (verdict,) = worker.verify([moved])
    assert verdict.status is Status.SAT, verdict.detail
    assert verdict.witness is not None
    assert np.all(verdict.witness[0] == 0.25)


def test_a_flat_input(worker: Worker, tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "flat.onnx", shape=(12,), outputs=3)
    (verdict,) = worker.verify([onnxnets.instance(path, 0.4, 1)])
    assert verdict.status is Status.SAT, verdict.detail


def test_balls_are_recognised(network: Path) -> None:
    for seed, eps in ((0, 2 / 255), (1, 0.2), (2, 0.7)):
        question = onnxnets.instance(network, eps, seed)
        fit = ball(question)
        assert fit is not None
        center, radius = fit
        assert radius == eps
        assert np.all(np.clip(center - eps, 0, 1) == pytest.approx(question.lower, abs=1e-6))
        assert np.all(np.clip(center + eps, 0, 1) == pytest.approx(question.upper, abs=1e-6))
    free = onnxnets.instance(network, 0.1, 0)
    assert question.center is not None
    clipped = (free.lower > 0) & (free.upper < 1)
    fit = ball(free)
    assert fit is not None
    assert free.center is not None
    np.testing.assert_allclose(fit[0][clipped], free.center[clipped], atol=1e-6)
    # Without a radius it is half of the widest side; beyond [0, 1] the box is another.
    assert ball(replace(free, eps=None)) is not None
    assert ball(replace(free, lower=free.lower - np.float32(0.5))) is None
    assert ball(replace(free, eps=0.05)) is None
    assert ball(replace(free, lower=free.upper, eps=None)) is None


def test_small_networks_are_spared_what_they_cannot_take() -> None:
    assert fitting(VERSIONS["standard"], True, 10) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert fitting(VERSIONS["standard"], False, 10) == ["apgd-ce", "apgd-t", "fab-t"]
    assert fitting(VERSIONS["standard"], True, 3) == ["apgd-ce", "apgd-dlr", "fab-t", "square"]
    assert fitting(VERSIONS["standard"], False, 2) == ["apgd-ce", "fab-t"]
    assert fitting(VERSIONS["plus"], False, 3) == ["apgd-ce", "apgd-dlr", "fab", "fab-t"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"version": "standart"}, "Did you mean 'standard'"), ({"seed": -1}, "0 or more"), ({"sede": 1}, "seed")],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AutoAttack(settings)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    installed_version = importlib.metadata.version

    def version(name: str) -> str:
        if name == "pyautoattack":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed_version(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    there = AutoAttack.availability()
    assert not there.installed
    assert "prunecert[autoattack]" in there.hint
