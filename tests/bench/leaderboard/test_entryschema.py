from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.leaderboard.entryschema import Unreadable, decode, misshapen
from tests.bench import boards

ENTRY = boards.make()
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(allow_nan=False, width=32)
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(DOCUMENTS.filter(lambda value: "Infinity" not in json.dumps(value)))
def test_what_json_can_say_is_decoded_as_it_was_said(value: Any) -> None:
    assert decode(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "NaN is no number in JSON"),
        ("-Infinity", "-Infinity is no number in JSON"),
        ("1e999", "it must be a finite number"),
        ("9" * 500, "a number of 500 characters is refused"),
        ("0." + "1" * 500, "a number of 502 characters is refused"),
    ],
)
def test_numbers_that_are_none_keep_their_place(text: str, why: str) -> None:
    value = decode(f'{{"a": [1, {text}]}}'.encode())["a"][1]
    assert isinstance(value, Unreadable)
    assert why in value.why


def test_a_field_that_stands_there_twice_is_neither_of_the_two() -> None:
    value = decode(b'{"a": 1, "b": 2, "a": 3}')
    assert value["b"] == 2
    assert isinstance(value["a"], Unreadable)


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000, b'{"a": ' * 5_000 + b"1" + b"}" * 5_000])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data)


def problems(**changes: Any) -> dict[str, str]:
    return dict(misshapen({**copy.deepcopy(ENTRY), **changes}))


def test_an_entry_is_of_its_own_shape() -> None:
    assert problems() == {}


def test_fields_are_named_with_what_they_must_be() -> None:
    assert problems(name=7) == {"name": "a whole number is refused; it must be text"}
    assert problems(extra=1) == {"extra": "there is no such field"}
    assert list(dict(misshapen({key: value for key, value in ENTRY.items() if key != "data"}))) == ["data"]
    assert "verdicts.ibp.image" in problems(verdicts={"ibp": {}})


def test_what_no_field_may_hold_is_named_before_any_type() -> None:
    places = problems(method={"title": "a\x1b[2J", "url": 2**60, "notes": "two\nlines"})
    assert set(places) == {"method.title", "method.url"}
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    assert list(problems(method=deep)) == ["method" + "[0]" * 12]


def test_a_flood_of_problems_ends() -> None:
    assert 0 < len(list(misshapen({**ENTRY, "method": ["\x00"] * 10_000}))) < 1_000
