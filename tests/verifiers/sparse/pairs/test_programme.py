"""A programme proves nothing that isn't so, whatever the solver says, and is exact once no ReLU is unstable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from prunecert.verifiers.sparse.pairs import programme as module
from prunecert.verifiers.sparse.pairs.branch_and_bound import Sign, propagated
from prunecert.verifiers.sparse.pairs.programme import Programme
from prunecert.verifiers.sparse.pairs.ranges import FIRST, SECOND, PairRanges
from tests.verifiers.sparse.pairs.pairkit import Case, case


@pytest.fixture(name="one")
def _one(tmp_path: Path) -> Case:
    return case(tmp_path, "fc", radius=0.15)


def row_of(one: Case, output: int = 0) -> tuple[Any, float]:
    """Returns the row of an output's difference, and its least sampled value."""
    outputs = one.pair.outputs
    row = np.zeros((1, 2 * outputs))
    row[0, output], row[0, outputs + output] = -1.0, 1.0
    values = one.values(one.points(3000))[-1]
    return row, float((values[SECOND] - values[FIRST])[:, output].min())


def test_it_proves_what_is_so_and_nothing_else(one: Case) -> None:
    programme = Programme(one.pair, one.bounds().ranges)
    row, least = row_of(one)
    # All rows can hold where the offset is reached, and the programme says where.
    answer = programme.solve(row, np.array([least + 1e-6]))
    assert not answer.proved
    assert answer.least <= 0
    assert answer.point is not None
    assert ((one.lower <= answer.point) & (answer.point <= one.upper)).all()
    far = programme.solve(row, np.array([least - 1.0]))
    assert far.proved
    assert far.least > 0
    # What it says is a lower bound.
    assert far.least <= least - (least - 1.0) + 1e-9


def test_two_rows_are_weighed_against_each_other(one: Case) -> None:
    """Neither is above its offset everywhere; together they never hold."""
    row, least = row_of(one)
    values = one.values(one.points(3000))[-1]
    middle = 0.5 * (least + float((values[SECOND] - values[FIRST])[:, 0].max()))
    both = np.vstack([row, -row])
    programme = Programme(one.pair, one.bounds().ranges)
    assert programme.solve(both, np.array([middle - 1e-3, -middle - 1e-3])).proved
    assert not programme.solve(both, np.array([middle + 1e-3, -middle + 1e-3])).proved


def test_a_part_without_unstable_neurons_is_exact(one: Case) -> None:
    bounds = one.bounds()
    row, _ = row_of(one)
    point = one.points(7)[5:6]
    values = one.values(point)
    signs = tuple(
        Sign(node, neuron, network, bool(values[node][network, 0, neuron] >= 0))
        for node in one.pair.activated
        for network in (FIRST, SECOND)
        for neuron in range(one.pair.sizes[node])
    )
    ranges, empty = propagated(bounds, [signs])
    assert not empty[0]
    answer = Programme(one.pair, ranges).solve(row, np.zeros(1))
    assert answer.point is not None
    there = one.values(answer.point[None])[-1]
    assert answer.least == pytest.approx(float((there[SECOND] - there[FIRST])[0, 0]), abs=1e-6)
    assert all(not gaps.any() for gaps in answer.gaps.values())
    # A little below what is reached it is proved, a little above it isn't.
    assert Programme(one.pair, ranges).solve(row, np.array([answer.least - 1e-5])).proved
    assert not Programme(one.pair, ranges).solve(row, np.array([answer.least + 1e-5])).proved


def test_signs_that_contradict_each_other_leave_nothing(tmp_path: Path) -> None:
    """What intervals don't see as empty, the programme's multipliers do."""
    one = case(tmp_path, "fc", radius=0.4)
    bounds = one.bounds()
    ranges = bounds.ranges
    row, _ = row_of(one)
    values = one.values(one.points(3000))
    node = one.pair.activated[0]
    free = np.flatnonzero(ranges[node].unstable()[FIRST, :, 0])
    pairs = [
        (i, j, a, b)
        for i in free
        for j in free
        for a in (True, False)
        for b in (True, False)
        if i < j and not (((values[node][FIRST][:, i] >= 0) == a) & ((values[node][FIRST][:, j] >= 0) == b)).any()
    ]
    proved = 0
    for i, j, a, b in pairs:
        parts, empty = propagated(bounds, [(Sign(node, int(i), FIRST, a), Sign(node, int(j), FIRST, b))])
        proved += empty[0] or Programme(one.pair, parts).solve(row, np.array([1e3])).proved
    assert pairs
    assert proved


def test_multipliers_are_believed_in_nothing(one: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that answers nonsense costs a proof, and never makes one."""
    row, least = row_of(one)
    solve = scipy.optimize.linprog
    rng = np.random.default_rng(0)

    def nonsense(*arguments: Any, **more: Any) -> Any:
        result = solve(*arguments, **more)
        for part in (result.ineqlin, result.eqlin):
            part.marginals = part.marginals + rng.normal(size=len(part.marginals)) * rng.choice([1e-3, 1.0, 1e6])
        result.fun = 1e9
        return result

    monkeypatch.setattr(module, "linprog", nonsense)
    programme = Programme(one.pair, one.bounds().ranges)
    for _ in range(10):
        assert not programme.solve(row, np.array([least + 1e-6])).proved


def test_a_programme_that_is_cut_short_proves_nothing(one: Case) -> None:
    row, least = row_of(one)
    answer = Programme(one.pair, one.bounds().ranges).solve(row, np.array([least - 1.0]), seconds=0.0)
    assert not answer.proved
    assert answer.point is None


def test_without_bounds_nothing_follows(one: Case) -> None:
    ranges = one.bounds().ranges
    infinite = PairRanges(np.full_like(ranges[1].lower, -np.inf), np.full_like(ranges[1].upper, np.inf))
    answer = Programme(one.pair, [ranges[0], infinite, *ranges[2:]]).solve(row_of(one)[0], np.array([-1e9]))
    assert not answer.proved
