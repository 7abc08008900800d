from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.numbers import read_number


@given(st.floats(allow_nan=False))
def test_numbers_are_read_as_they_are_written(number: float) -> None:
    assert read_number(repr(number)) == number


@pytest.mark.parametrize("text", ["", "x", "1_0", "٣", "１", "0x10", "1,5", "1" * 61])
def test_what_other_tools_read_otherwise_is_no_number(text: str) -> None:
    assert read_number(text) is None
