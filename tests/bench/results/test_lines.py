from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.results.decode import plain
from prunecert.bench.results.lines import SCHEMA_VERSION, decode_lines, encode, first_session, property_documents
from prunecert.errors import UserError
from tests.bench.rowkit import all_typed, typed
from tests.fuzz.rows import certificate_rows, pair_rows, property_rows, run_rows, timing_rows

LOG = Path("instances.main.jsonl")
ALL = [*run_rows(), *certificate_rows(), *pair_rows(), *timing_rows(), *property_rows()]


def lines(*rows: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def test_a_line_is_a_row_and_a_row_is_a_line() -> None:
    for row in all_typed(ALL):
        line = encode(row)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert decode_lines(LOG, 0, line[:-1]) == [row]


def test_rows_come_in_their_order_whatever_their_kinds() -> None:
    decoded = decode_lines(LOG, 0, lines(*run_rows()))
    assert [plain(row) for row in decoded] == run_rows()


def test_the_damaged_line_is_the_one_that_is_named() -> None:
    rows = run_rows()
    for place in range(len(rows)):
        text = lines(*rows).split(b"\n")
        text[place] = text[place][:-5]
        with pytest.raises(UserError, match=rf"line {place + 41}: this is no JSON"):
            decode_lines(LOG, 40, b"\n".join(text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[]", "a row must be an object with a 'type'"),
        (b"7", "a row must be an object with a 'type'"),
        (b'{"type": "verdikt"}', "its type is none that this program knows"),
        (b'{"type": "image"}', "missing required field"),
        (b'{"type": "session", "schema_version": "1"}', "no valid schema_version"),
        (b'{"type": "session", "schema_version": true}', "no valid schema_version"),
        (b'{"type": "session", "schema_version": %d}' % (SCHEMA_VERSION + 1), "newer than this program reads"),
        (b'{"type": "session", "schema_version": 1}', "this session row is refused"),
        (b"[" * 100_000, "line 1: "),
    ],
)
def test_one_sentence_says_what_a_line_is_not(line: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        decode_lines(LOG, 0, line)
    assert "\n" not in str(error.value)


def test_a_file_begins_with_a_session() -> None:
    session, image = run_rows()[:2]
    assert plain(first_session(LOG, lines(session))) == session
    with pytest.raises(UserError, match="must begin with a session row"):
        first_session(LOG, lines(image))


def test_properties_are_kept_with_fields_that_nobody_knows() -> None:
    rows = [{**row, "colour": [1]} if row["type"] == "property" else row for row in property_rows()]
    documents = property_documents(LOG, 0, lines(*rows))
    assert documents == [row for row in rows if row["type"] == "property"]
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    with pytest.raises(UserError, match="deep in each other"):
        property_documents(LOG, 0, lines({**rows[-1], "more": deep}))


def test_half_a_character_becomes_an_escape_and_what_no_json_holds_is_a_mistake() -> None:
    row = typed({"type": "verdict", "detail": "a\udcffb"})
    (decoded,) = decode_lines(LOG, 0, encode(row)[:-1])
    assert plain(decoded)["detail"] == r"a\udcffb"
    row.timeout = float("nan")
    with pytest.raises(ValueError, match="could not be read back"):
        encode(row)
