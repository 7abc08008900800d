from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from prunecert.bench.results import decode
from prunecert.bench.results.decode import DEEPEST, build, convert, depth, document, plain, read_bytes, why
from prunecert.errors import UserError

TEXTS = st.text() | st.sampled_from(['"', "\\", '\\"', "[", "}", '{"a": ['])
DOCUMENTS = st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)


class Point(Struct, tag="point", tag_field="type"):
    x: int
    name: str = ""
    inner: list[int] = []


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(DOCUMENTS)
def test_depth_counts_brackets_and_none_within_texts(value: Any) -> None:
    assert depth(json.dumps(value).encode()) == depth_of(value)
    assert depth(msgspec.json.encode(value)) == depth_of(value)


@pytest.mark.parametrize(
    ("value", "where", "reason"),
    [
        ({"type": "point", "x": "1"}, "x", "it must be of type int, not str"),
        ({"type": "point", "x": 1, "inner": [1, None]}, "inner[1]", "it must be of type int, not null"),
        ({"type": "point"}, "", "object missing required field `x`"),
        ([], "", "it must be of type object, not array"),
    ],
)
def test_why_names_field_and_reason(value: Any, where: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(value, Point)
    assert why(error.value) == (where, reason)


@given(st.text(max_size=2_000))
def test_foreign_text_stays_on_one_printable_line(text: str) -> None:
    where, reason = why(ValueError(text))
    assert (where + reason).isprintable()
    assert len(reason) < 10 * decode._LONGEST + 2
    assert why(RecursionError())[1] == f"lists or objects lie more than {DEEPEST} deep in each other"


def test_rows_are_built_as_they_will_be_read() -> None:
    assert build(Point, {"x": 3}) == Point(3)
    assert plain(Point(3)) == {"type": "point", "x": 3, "name": "", "inner": []}
    with pytest.raises(TypeError, match="Point has no field colour"):
        build(Point, {"x": 3, "colour": "red"})
    with pytest.raises(msgspec.ValidationError):
        build(Point, {"x": "three"})


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", Path("a\0b")):
        with pytest.raises(UserError, match=r"Thing .* can't be read .*; do this") as error:
            read_bytes(path, "Thing", "do this")
        assert "\n" not in str(error.value)
    (tmp_path / "file").write_bytes(b"1234")
    assert read_bytes(tmp_path / "file", "Thing", "do this") == b"1234"
    monkeypatch.setattr(decode, "LARGEST", 3)
    with pytest.raises(UserError, match="it has 4 bytes"):
        read_bytes(tmp_path / "file", "Thing", "do this")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "Thing x is no JSON"),
        (b"\xff{}", "x is no JSON"),
        (b"[]", "x is no thing"),
        (b"7", "x is no thing"),
        (b'{"a": ' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "deep in each other"),
    ],
)
def test_what_is_no_object_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        document(raw, Path("x"), "Thing", "do this")
    assert document(b'{"a": [1]}', Path("x"), "Thing", "do this") == {"a": [1]}


def test_data_of_another_type_is_damaged() -> None:
    assert convert({"type": "point", "x": 1}, Point, Path("x"), "Thing", "do this") == Point(1)
    with pytest.raises(UserError, match=r"Thing x is damaged: field x: it must be of type int, not bool; do this\."):
        convert({"type": "point", "x": True}, Point, Path("x"), "Thing", "do this")
