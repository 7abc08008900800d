"""Trees with second-order bounds: what they prove holds, to just below the least value."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.bab.quadratic.ascent import ascend, begin
from prunecert.verifiers.sparse.bab.quadratic.tree import QuadraticTree, TreeOutcome
from tests.soundness.oracle import exact_margin
from tests.verifiers.sparse.bab.quadratic.layers import KINDS, Small, part, small
from tests.verifiers.sparse.searching import draw


def grow(question: Small, constant: float, most: int = 600) -> TreeOutcome:
    subject = replace(question.subject, constant=constant)
    return QuadraticTree(subject, time.monotonic() + 60, most, lambda w: False).run()


def check(kind: str, seed: int, tmp_path: Path) -> bool:
    """Asks about the row above and below its exact minimum; returns whether what holds is proved."""
    question = small(kind, seed, tmp_path, radius=0.2)
    row = question.subject.row
    margin = exact_margin(
        draw(kind, seed, tmp_path)[0], question.low, question.high, OutputSpec(((row[None], np.zeros(1)),))
    )
    spread = float(np.ptp(question.values(question.points(np.random.default_rng(0), 200))))
    assert grow(question, -1e-6 * spread - margin.high, most=100).proved is None
    far = grow(question, 0.2 * spread - margin.low, most=100)
    assert far.proved is None or far.proved <= 0.2 * spread + 1e-6
    return far.proved is not None


@pytest.mark.slow
def test_what_is_proved_holds_and_most_of_what_holds_is_proved(tmp_path: Path) -> None:
    proved = [check(kind, seed, tmp_path) for kind in KINDS for seed in range(3)]
    assert sum(proved) > len(proved) / 2


def test_gaps_are_those_of_free_neurons(tmp_path: Path) -> None:
    question = small("conv", 1, tmp_path)
    subject, rng = question.subject, np.random.default_rng(1)
    signs = np.where(rng.random(subject.net.unstable) < 0.3, 1, 0).astype(np.int8)
    layer, mine = part(subject, signs)
    ascended = ascend(layer, mine, begin(layer), 40, np.inf, np.inf)
    gaps = subject.gaps(signs, ascended)
    assert gaps.shape == (subject.net.unstable,)
    assert (gaps[signs != 0] == 0).all()
    assert np.isfinite(gaps).all()
    assert gaps.max() > 0


def test_limits_end_a_tree(tmp_path: Path) -> None:
    question = small("fc", 0, tmp_path)
    low = float(question.values(question.points(np.random.default_rng(0), 500)).min()) - question.subject.constant
    out = grow(question, 1e-4 - low, most=3)
    assert out.domains <= 4
    late = QuadraticTree(replace(question.subject, constant=-low), time.monotonic() - 1, 100, lambda w: False).run()
    assert late.proved is None
    assert late.domains == 1


def test_a_counterexample_ends_a_tree(tmp_path: Path) -> None:
    question = small("fc", 0, tmp_path)
    out = QuadraticTree(replace(question.subject, constant=-1e3), time.monotonic() + 60, 100, lambda w: True).run()
    assert out.won
    assert out.proved is None
    assert out.domains == 1
