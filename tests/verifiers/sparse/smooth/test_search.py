"""Answers near the exact margin, by splits of inputs and of neurons, and the limits of a search."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.smooth.search import SmoothSearch
from tests.verifiers.sparse.smooth import smoothnets


def search(path: Path, spec: OutputSpec, eps: float, seconds: float = 60.0, **limits: object) -> Outcome:
    lower = np.full(2, 0.2 - eps, np.float32)
    upper = np.full(2, 0.2 + eps, np.float32)
    allowance = limits.pop("allowance", ())
    return SmoothSearch(
        smoothnets.load(path), lower, upper, spec, Limits(**limits), time.monotonic() + seconds,  # type: ignore[arg-type]
        smoothnets.runtime(path, (2,)), allowance,  # type: ignore[arg-type]
    ).run()  # fmt: skip


def least(path: Path, eps: float) -> float:
    """Returns the least margin of class 0 over a fine grid, an upper bound of the exact one, near to it."""
    axis = np.linspace(float(np.float32(0.2 - eps)), float(np.float32(0.2 + eps)), 201)
    outputs = smoothnets.load(path).smooth.evaluate(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
    return float((outputs[:, [0]] - outputs[:, 1:]).min())


@pytest.mark.parametrize("split", ["input", "relu"])
@pytest.mark.parametrize("seed", range(3))
def test_both_sides_of_the_margin(seed: int, split: Literal["input", "relu"], tmp_path: Path) -> None:
    path, eps = smoothnets.small(tmp_path, seed), 0.15
    margin = least(path, eps)
    gap = 0.02 if split == "relu" else 2e-3
    safe = search(path, smoothnets.above(0, margin - gap), eps, split=split)
    assert safe.status is Status.UNSAT
    assert safe.bounds is not None
    assert 0 < min(safe.bounds) <= gap + 1e-5
    unsafe = search(path, smoothnets.above(0, margin + gap), eps, split=split)
    assert unsafe.status is Status.SAT
    assert unsafe.witness is not None
    assert unsafe.bounds is None


@pytest.mark.parametrize("step", [1e-6, -1e-6])
def test_near_ties_at_a_point(step: float, tmp_path: Path) -> None:
    path = smoothnets.small(tmp_path, 1)
    x = np.full(2, np.float32(0.2)).astype(np.float64)
    values = [float(item) for item in smoothnets.exact(smoothnets.load(path).smooth, x)[-1]]
    margin = values[0] - max(values[1:])
    out = search(path, smoothnets.above(0, margin - step), 0.0, attack_steps=0)
    # What fails by 1e-6 is not proved, and what holds by it is.
    assert out.status is (Status.UNSAT if step > 0 else Status.UNKNOWN)


def test_more_is_proved_where_rounding_is_allowed_for(tmp_path: Path) -> None:
    path, eps = smoothnets.small(tmp_path, 0), 0.1
    spec = smoothnets.above(0, least(path, eps) - 0.1)
    out = search(path, spec, eps, allowance=(0.05, 0.05))
    assert out.status is Status.UNSAT
    assert out.bounds is not None
    assert min(out.bounds) > 0.05
    assert search(path, spec, eps, 0.3, allowance=(0.2, 0.2), attack_steps=0).status is not Status.UNSAT


def test_limits(tmp_path: Path) -> None:
    path = smoothnets.small(tmp_path, 1)
    spec = smoothnets.above(0, least(path, 1.0) - 1e-4)
    late = search(path, spec, 1.0, -1.0)
    assert late.status is Status.TIMEOUT
    assert "out of time with 2 of 2" in late.detail
    full = search(path, spec, 1.0, memory_mb=1e-3, attack_steps=0, split="input")
    assert full.status is Status.UNKNOWN
    assert "open regions need more than" in full.detail
    alone = search(path, spec, 1.0, splits=False)
    assert alone.status is Status.UNKNOWN
    assert "lowest bound" in alone.detail


def test_of_nothing_nothing_is_claimed(tmp_path: Path) -> None:
    for spec in (OutputSpec(()), OutputSpec(((np.zeros((0, 3)), np.zeros(0)),))):
        out = search(smoothnets.small(tmp_path, 0), spec, 0.1)
        assert out.status is Status.UNKNOWN
