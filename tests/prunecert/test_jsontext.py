from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.jsontext import parse_json, read_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested thousands"),
        ('{"a":' * 100_000, "nested thousands"),
        ("1" * 5000, "5,000 digits"),
        ("-" + "1" * 50, "51 digits"),
        ("0." + "1" * 50, "52 digits"),
        ("1e999", "beyond a float"),
        ("NaN", "no number in JSON"),
        ("-Infinity", "no number in JSON"),
        ("{", "Expecting"),
        ("", "Expecting"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(text.encode())


def test_what_is_no_utf_8_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(b'"\xff"')


@pytest.mark.slow
@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists))
def test_everything_else_is_read_as_json_has_it(data: object) -> None:
    assert parse_json(json.dumps(data).encode()) == data


def test_files_are_plain_and_of_a_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no plain file"):
        read_json(tmp_path / "pipe", 10)
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf[1, 2]")
    assert read_json(tmp_path / "x", 9) == [1, 2]
    with pytest.raises(UserError, match="at most 8 are read"):
        read_json(tmp_path / "x", 8)
