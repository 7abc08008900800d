from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.results import quantities
from prunecert.bench.schema.cell import show_eps


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (quantities.Count, (0, 2**53), (-1, 2**53 + 1, 10**400, 1.5, True, "1")),
        (quantities.Index, (0, 10**9), (-1, 2**63)),
        (quantities.Images, (0, 10_000_000), (-1, 10_000_001)),
        (quantities.Positive, (1,), (0, -1)),
        (quantities.Seed, (-(2**63), 2**63 - 1), (2**63,)),
        (quantities.Seconds, (-0.001, 1e12, 3), (1e13, float("nan"), float("inf"))),
        (quantities.Limit, (1e-9,), (0.0, -1.0, float("nan"))),
        (quantities.Share, (0.0, 1.0), (-1e-9, 1.0000001)),
        (quantities.Ratio, (1e-300, 1e300), (0.0, float("inf"))),
        (quantities.Name, ("", "ε = 2/255"), ("a\nb", "\x1b[2J", "a\x7f")),
    ],
)
def test_ranges(kind: Any, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    for value in good:
        assert msgspec.convert(value, kind) == value
    for value in bad:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, kind)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_every_radius_that_a_suite_shows_is_one(numerator: int, denominator: int) -> None:
    text = show_eps(Fraction(numerator, denominator))
    assert msgspec.convert(text, quantities.Radius) == text
    assert Fraction(text) == Fraction(numerator, denominator)


@pytest.mark.parametrize("text", ["1e-99999999", "1/0", "1/00", "2/255 ", "-2/255", "inf", "1" * 40, "0x1", ""])
def test_other_texts_are_no_radius(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, quantities.Radius)
