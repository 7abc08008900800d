"""Texts of what is asked of two networks become outputs that are unsafe, or are refused."""

from __future__ import annotations

import pytest

from prunecert.bench.schema.alike import alike_spec
from prunecert.errors import UserError
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.pairs.specification import difference, same_class


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("difference:0.5", difference(0.5, 3)),
        ("class", same_class(3)),
        ("class:0.25", same_class(3, 0.25)),
    ],
)
def test_what_is_asked_is_read(text: str, expected: OutputSpec) -> None:
    assert alike_spec(text, 3).digest() == expected.digest()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class:-1", "C must be a finite number of at least 0"),
        ("class:1e400", "C must be a finite number of at least 0"),
        ("difference:1e400", "T must be a finite number above 0"),
        ("difference:0", "T must be a finite number above 0"),
    ],
)
def test_numbers_out_of_range_are_named_as_they_were_written(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"^alike '{text}' is refused; {reason}"):
        alike_spec(text, 3, "alike")


@pytest.mark.parametrize(
    "text",
    ["", "difference", "difference:x", "class:", "class:nan", "alike", "difference:nan", "difference:٣", "class:1_0"],
)
def test_what_cannot_be_asked_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--alike .* is refused; allowed are difference:T"):
        alike_spec(text, 3)
