"""What is left of a network over a box computes what the network computes there."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.bab.composed import compose
from prunecert.verifiers.sparse.bab.counterexamples import Hunt
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.root import Root, Task
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared
from tests.verifiers.sparse.searching import Prepared


def asked(question: Prepared, seconds: float) -> tuple[Task, Root]:
    rows = zip(question.rows, question.offsets, strict=True)
    spec = OutputSpec(tuple((row[None], np.array([offset])) for row, offset in rows))
    hunt = Hunt(question.checker, spec, question.lower, question.upper, Limits(), None)
    task = Task(question.checker, hunt, Limits(), time.monotonic() + seconds, None, None)
    shift, count = np.zeros(len(question.rows)), len(question.rows)
    spans = [(k, k + 1) for k in range(count)]
    return task, Root(np.arange(count), question.rows, question.offsets, shift, spans, question.bounds, None)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_and_attacks_are_of_the_same_network(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    composed = compose(*asked(question, 60.0))
    np.testing.assert_array_equal(composed.net.M, question.net.M)
    np.testing.assert_array_equal(composed.net.N, question.net.N)
    assert composed.dual.net is composed.net
    batch = composed.dual.start([0])
    np.testing.assert_array_equal(composed.dual.bound(batch), question.dual.bound(question.dual.start([0])))


def test_nothing_is_composed_after_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        compose(*asked(prepared("conv", 1, tmp_path), -1.0))
