"""Properties of pairs, against their definitions; rows over both outputs as rows over differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.pairs.specification import candidates, difference, same_class

OUTPUTS = st.lists(st.integers(-3, 3).map(float), min_size=6, max_size=6).map(np.array)


@settings(max_examples=150, deadline=None)
@given(OUTPUTS, st.sampled_from([0.5, 1.0, 2.0]))
def test_a_difference_beyond_the_tolerance_is_unsafe(outputs: Float64Array, tolerance: float) -> None:
    beyond = np.abs(outputs[3:] - outputs[:3]).max() > tolerance
    assert difference(tolerance, 3).violated_by(outputs) == beyond


@settings(max_examples=150, deadline=None)
@given(OUTPUTS, st.sampled_from([0.0, 1.0, 2.0]))
def test_another_class_than_a_sure_one_is_unsafe(outputs: Float64Array, confidence: float) -> None:
    first, second = outputs[:3], outputs[3:]
    unsafe = any(
        all(first[i] - first[k] >= confidence for k in range(3) if k != i) and second[j] > second[i]
        for i in range(3)
        for j in range(3)
        if j != i
    )
    assert same_class(3, confidence).violated_by(outputs) == unsafe


@settings(max_examples=100, deadline=None)
@given(OUTPUTS, st.sampled_from([0.0, 0.25]))
def test_no_candidate_is_above_the_largest_row(outputs: Float64Array, more: float) -> None:
    """So that one bounded above 0 proves its disjunct, whatever is to be proved beyond it."""
    spec = same_class(3, 0.5)
    rows = candidates(spec, np.full(len(spec.disjuncts), more))
    values = rows.value.T @ outputs[:3] + rows.change.T @ (outputs[3:] - outputs[:3]) + rows.constant
    for place, (matrix, limits) in enumerate(spec.disjuncts):
        largest = (matrix @ outputs - limits - more).max()
        own = values[rows.disjunct == place]
        # Its rows themselves, and the mean of the two that are about the same classes.
        assert len(own) == len(limits) + 1
        assert (own <= largest + 1e-12).all()
    about_differences = ~rows.value.any(axis=0)
    assert about_differences.sum() == len(spec.disjuncts)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, np.inf, np.nan])
def test_tolerances_that_make_no_sense_are_refused(tolerance: float) -> None:
    with pytest.raises(UserError, match="a finite number above 0 is allowed"):
        difference(tolerance, 2)


def test_classes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="at least two outputs are allowed"):
        same_class(1)
    with pytest.raises(UserError, match="a finite number of at least 0 is allowed"):
        same_class(2, -0.5)
