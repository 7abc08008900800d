from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.ranges import NumberRange, show_number

#: NumberRange, what they say, a value within and one without.
LIMITS = [
    (NumberRange(at_least=1), "1 or more", 1, 0),
    (NumberRange(above=0), "above 0", 1, 0),
    (NumberRange(at_least=0, at_most=9), "from 0 to 9", 9, 10),
    (NumberRange(at_least=1e-7, below=1), "from 1e-7 to below 1", 1e-7, 1.0),
    (NumberRange(above=0, at_most=20_000), "above 0 and at most 20,000", 20_000, 20_001),
    (NumberRange(above=0, below=1), "within (0, 1)", 0.999, 1.0),
    (NumberRange(at_most=9), "at most 9", -99, 10),
    (NumberRange(below=9.5), "below 9.5", -99.0, 9.5),
]


@pytest.mark.parametrize(("limits", "words", "within", "without"), LIMITS)
def test_they_hold_and_say_so(limits: NumberRange, words: str, within: float, without: float) -> None:
    assert limits
    assert str(limits) == words
    assert limits.hold(within)
    assert not limits.hold(without)
    assert not limits.hold(math.nan)


def test_none_are_none() -> None:
    assert not NumberRange()
    assert str(NumberRange()) == ""
    assert NumberRange().hold(math.nan)


@pytest.mark.parametrize("both", [{"at_least": 0, "above": 0}, {"at_most": 1, "below": 1}])
def test_there_is_one_on_each_side(both: dict[str, float]) -> None:
    with pytest.raises(TypeError, match="one lower and one upper limit"):
        NumberRange(**both)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_open_and_closed_ends_differ_at_the_end_alone(end: float, value: float) -> None:
    assert NumberRange(at_least=end).hold(value) == (NumberRange(above=end).hold(value) or value == end)
    assert NumberRange(at_most=end).hold(value) == (NumberRange(below=end).hold(value) or value == end)


@given(st.floats(1e-9, 1e9))
def test_a_number_for_people_is_the_number(value: float) -> None:
    assert float(show_number(value)) == pytest.approx(value, rel=1e-5)
