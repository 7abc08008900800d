"""What is proved so far, and how it is reported."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.bab.root import Standing

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(offset=NUMBERS, allowance=st.floats(1e-9, 1e3), proved=NUMBERS)
def test_a_reported_bound_is_no_higher_than_what_is_proved_of_the_property_s_own_row(
    offset: float, allowance: float, proved: float
) -> None:
    """Proved is a y - fl(offset + more) >= proved; reported must be below a y - offset."""
    standing = Standing(OutputSpec(((np.array([[1.0]]), np.array([offset])),)), (allowance,))
    more = float(standing.more[0])
    assert more > allowance
    standing.proved[0] = proved
    least = Fraction(proved) + Fraction(offset + more) - Fraction(offset)
    assert Fraction(standing.reported()[0]) <= least


def test_without_an_allowance_the_bound_is_reported_as_it_is() -> None:
    standing = Standing(OutputSpec.robustness(0, 3), ())
    standing.proved[:] = [0.125, -3.0]
    assert standing.reported() == (0.125, -3.0)


def test_only_a_witness_wins() -> None:
    standing = Standing(OutputSpec.robustness(0, 3), ())
    assert not standing.won(None, "attack")
    assert standing.outcome.status is Status.UNKNOWN
    witness = np.ones(2, dtype=np.float32)
    assert standing.won(witness, "bab")
    assert (standing.outcome.status, standing.outcome.stage) == (Status.SAT, "bab")
    assert standing.outcome.witness is witness
