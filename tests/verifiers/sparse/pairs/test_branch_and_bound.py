"""Splits that are shared by both networks decide near the exact threshold; time and number of parts are limits."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.pairs.branch_and_bound import Disjunct, PairOutcome, PairTree, Sign, propagated
from prunecert.verifiers.sparse.pairs.network import joined
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, SECOND
from prunecert.verifiers.sparse.pairs.specification import candidates
from tests.soundness.pairs import questions
from tests.verifiers.sparse.pairs.pairkit import Case, case

NEVER = time.monotonic() + 1e6


def searched(one: Case, spec: OutputSpec, deadline: float = NEVER, most: int = 2000) -> PairOutcome:
    both, rows = joined(one.first, one.second), candidates(spec)

    def confirm(points: Float64Array) -> Float32Array | None:
        for point, output in zip(points, both.evaluate(points), strict=True):
            if spec.violated_by(output):
                return np.asarray(point, dtype=np.float32)
        return None

    parts = [Disjunct(*pair, rows.of(np.array([k]))) for k, pair in enumerate(spec.disjuncts)]
    return PairTree(one.bounds(), confirm, deadline, most).run(parts)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["fc", "skip"])
def test_it_decides_near_the_exact_threshold(family: str, tmp_path: Path) -> None:
    for question in questions(4, (family,)):
        first, second = (read_network(path) for path in question.files(tmp_path))
        one = Case(first, second, question.lower.astype(float), question.upper.astype(float))
        outcome = searched(one, question.spec)
        assert outcome.status is question.truth, question.name
        if outcome.status is Status.SAT:
            assert outcome.witness is not None
            assert question.spec.violated_by(question.both.evaluate(outcome.witness)[0])


def test_parts_cover_what_their_signs_say(tmp_path: Path) -> None:
    """Every point lies in the ranges of the part whose signs it has, and a part without points may be empty."""
    one = case(tmp_path, "fc-deep", radius=0.2)
    bounds, node = one.bounds(), one.pair.activated[0]
    neuron = int(np.flatnonzero(bounds.ranges[node].unstable()[:, :, 0].all(axis=0))[0])
    parts = [
        (Sign(node, neuron, FIRST, first), Sign(node, neuron, SECOND, second))
        for first in (True, False)
        for second in (True, False)
    ]
    ranges, empty = propagated(bounds, parts)
    values = one.values(one.points(2000))
    for place, (first, second) in enumerate(parts):
        inside = ((values[node][FIRST][:, neuron] >= 0) == first.active) & (
            (values[node][SECOND][:, neuron] >= 0) == second.active
        )
        assert not (inside.any() and empty[place])
        for node_ranges, own in zip(ranges, values, strict=True):
            assert (own[:, inside] >= node_ranges.lower[:, None, :, place] - 1e-12).all()
            assert (own[:, inside] <= node_ranges.upper[:, None, :, place] + 1e-12).all()
    # With another sign in each network, the difference is on one side of 0.
    assert empty[1] or ranges[node].upper[CHANGE, neuron, 1] <= 1e-12


def test_limits_leave_a_question_open(tmp_path: Path) -> None:
    question = next(q for q in questions(40, ("skip",)) if q.truth is Status.UNSAT)
    first, second = (read_network(path) for path in question.files(tmp_path))
    one = Case(first, second, question.lower.astype(float), question.upper.astype(float))
    late = searched(one, question.spec, deadline=time.monotonic() - 1)
    assert late.status is Status.TIMEOUT
    assert "parts of the box are open" in late.detail
    few = searched(one, question.spec, most=-1)
    assert few.status is Status.UNKNOWN
    assert "take more than -1 parts" in few.detail
