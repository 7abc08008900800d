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


@pytest.mark.parametrize("text", ["", "difference", "difference:x", "class:", "class:nan", "alike", "difference:nan"])
def test_what_cannot_be_asked_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--alike .* is refused; allowed are difference:T"):
        alike_spec(text, 3)
