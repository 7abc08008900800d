"""Sixteen points side by side against the network itself, and what attacks find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.bab import point_batch
from prunecert.verifiers.sparse.bab.attack import Attack, confirm, unsafe
from prunecert.verifiers.sparse.bab.counterexamples import Hunt
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.certify import Checker
from tests.verifiers.sparse.searching import Prepared, draw

KINDS = ("fc", "conv", "skip", "conv-skip")


@pytest.mark.parametrize("count", [1, 16, 37])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_the_network_s(kind: str, count: int, tmp_path: Path) -> None:
    drawn, network = draw(kind, 4, tmp_path)
    rng = np.random.default_rng(count)
    rows, offsets = rng.normal(size=(5, drawn.classes)), rng.normal(size=5)
    x = rng.random((count, drawn.inputs)).astype(np.float32)
    weights = rng.normal(size=(count, 5)).astype(np.float32)
    net = point_batch.of_network(network, rows, offsets, 2)
    result = point_batch.unpack(net.values(point_batch.pack(x)), count)
    np.testing.assert_allclose(result, network.evaluate(x) @ rows.T - offsets, atol=2e-5)
    gradient = point_batch.unpack(net.gradient(point_batch.pack(weights)), count)
    direction = rng.normal(size=x.shape)
    step = 1e-6
    ends = [network.evaluate(x + side * step * direction) @ rows.T for side in (-1, 1)]
    slope = ((ends[1] - ends[0]) * weights).sum(axis=1) / (2 * step)
    # A kink between the two points is rare.
    agreed = np.abs(slope - (gradient * direction).sum(axis=1)) < 1e-3 * (1 + np.abs(slope))
    assert agreed.mean() > 0.9 or count == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_of_a_network_has_its_values(kind: str, tmp_path: Path) -> None:
    drawn, network = draw(kind, 7, tmp_path)
    rng = np.random.default_rng(7)
    center = rng.random(drawn.inputs)
    prepared = Prepared(network, center - 0.3, center + 0.3, OutputSpec.robustness(0, drawn.classes))
    assert prepared.net.unstable
    t = rng.uniform(-1, 1, (20, len(prepared.net.pixels))).astype(np.float32)
    result = point_batch.unpack(point_batch.of_reduced(prepared.dual).values(point_batch.pack(t)), 20)
    exact = network.evaluate(prepared.net.point(t)) @ prepared.rows.T - prepared.offsets
    np.testing.assert_allclose(result, exact, atol=1e-4)


@pytest.mark.parametrize("count", [5, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_compute_the_same(kind: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, network = draw(kind, 9, tmp_path)
    rng = np.random.default_rng(count)
    rows, offsets = rng.normal(size=(5, drawn.classes)), rng.normal(size=5)
    x = rng.random((count, drawn.inputs)).astype(np.float32)
    weights = rng.normal(size=(count, 5)).astype(np.float32)
    result = []
    for threads in (1, 3):
        net = point_batch.of_network(network, rows, offsets, threads)
        values = net.values(point_batch.pack(x)).copy()
        result.append((values, net.gradient(point_batch.pack(weights)).copy(), network.evaluate(x, threads)))
        # The second time every matrix is large.
        monkeypatch.setattr("prunecert.verifiers.sparse.bab.point_batch._SHARED", 1)
        monkeypatch.setattr("prunecert.verifiers.sparse.network._SHARED", 1)
    for one, other in zip(*result, strict=True):
        np.testing.assert_array_equal(one, other)


def test_descending_lowers_margins_and_stays_inside(tmp_path: Path) -> None:
    drawn, network = draw("conv", 3, tmp_path)
    rng = np.random.default_rng(3)
    rows = np.eye(drawn.classes)[:1] - np.eye(drawn.classes)[1:]
    box = np.full(drawn.inputs, 0.5, dtype=np.float32), np.full(drawn.inputs, 0.1, dtype=np.float32)
    # Out of reach, so that no point ends the descent early.
    net = point_batch.of_network(network, rows, np.full(len(rows), -100.0))
    attack = Attack(net, [(k, k + 1) for k in range(len(rows))], box)
    start = rng.uniform(-1, 1, (30, drawn.inputs)).astype(np.float32)
    target = np.arange(30) % len(rows)
    before = attack.descend(start, target, 0)[1]
    points, after = attack.descend(start, target, 8)
    assert np.all(np.abs(points) <= 1)
    assert np.all(after <= before)
    assert (after < before - 1e-3).mean() > 0.8
    np.testing.assert_allclose(attack.descend(points, target, 0)[1], after, atol=1e-5)


def test_a_foreign_point_is_confirmed_or_left(tmp_path: Path) -> None:
    """A known point counts only if the network at hand is unsafe there, within the box at hand."""
    drawn, network = draw("fc", 11, tmp_path)
    rng = np.random.default_rng(11)
    x = rng.random(drawn.inputs).astype(np.float32)
    label = int(network.evaluate(x[None])[0].argmax())
    safe, unsafe = (
        OutputSpec.robustness(label, drawn.classes),
        OutputSpec.robustness((label + 1) % drawn.classes, drawn.classes),
    )
    low, high = x - np.float32(1e-4), x + np.float32(1e-4)
    for point in (x, x + 5, np.full_like(x, np.nan), x[:-1]):
        assert Hunt(Checker(network), safe, low, high, Limits(), point).replay() is None
    result = Hunt(Checker(network), unsafe, low, high, Limits(), x + 5).replay()
    assert result is not None
    assert np.all((low <= result) & (result <= high))
    assert confirm(network, unsafe, low, high, result[None].astype(float)) is not None


def test_where_activations_are_rounded_the_runtime_alone_decides(tmp_path: Path) -> None:
    drawn, network = draw("fc", 4, tmp_path)
    rounded = replace(network, roundings=(1,))
    spec, x = OutputSpec.robustness(0, drawn.classes), np.zeros(drawn.inputs, dtype=np.float32)
    safe, broken = np.array([9.0, 0.0, 0.0]), np.array([0.0, 9.0, 0.0])
    assert unsafe(network, spec, x, [-1.0], 1.0, replay=lambda _: safe)
    assert not unsafe(rounded, spec, x, [-1.0], 1.0, replay=lambda _: safe)
    assert unsafe(rounded, spec, x, [-1.0], 1.0, replay=lambda _: broken)
    assert not unsafe(rounded, spec, x, [-1.0], 1.0)
