from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.results.decode import plain
from prunecert.bench.results.protocol_types import Missing
from prunecert.bench.results.session_types import SessionRow, indices_of, present
from tests.bench.rowkit import SESSION, complete, typed


@given(st.integers(0, 50), st.sets(st.integers(0, 60)))
def test_present_images_are_the_cells_own_in_its_order(images: int, rows: set[int]) -> None:
    numbers = indices_of(images, None)
    assert present(numbers, rows) == [number for number in range(images) if number in rows]


@given(st.lists(st.integers(0, 60), unique=True), st.sets(st.integers(0, 60)))
def test_listed_images_keep_the_order_in_which_they_are_listed(listed: list[int], rows: set[int]) -> None:
    assert present(indices_of(len(listed), listed), rows) == [number for number in listed if number in rows]


def test_millions_of_images_are_not_counted_one_by_one() -> None:
    assert present(indices_of(10_000_000, None), {5, 10_000_000}) == [5]


def test_a_missing_cell_of_an_older_run_has_a_name_only() -> None:
    old = msgspec.convert({"name": "c", "command": "train c"}, Missing)
    assert (old.family, old.member) == ("", "")
    # What is not said is not written, so that old rows are written as they were read.
    assert plain(old) == {"name": "c", "command": "train c"}
    new = Missing(name="f_m", command="x", family="f", member="m")
    assert msgspec.convert(plain(new), Missing) == new


def test_a_session_is_written_as_it_was_read() -> None:
    row = complete({"type": "session", "cells": [{"stages": [{}]}]})
    assert plain(typed(row)) == row


@pytest.mark.parametrize("field", sorted(SESSION))
def test_no_field_of_a_session_may_be_of_another_type(field: str) -> None:
    row: dict[str, Any] = complete({"type": "session"})
    wrong: Any = 7 if not isinstance(row[field], int) else "seven"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**row, field: wrong}, SessionRow)
