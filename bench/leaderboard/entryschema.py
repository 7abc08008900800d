"""Decoding a leaderboard entry, and judging its fields by their types before anything is made of them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from prunecert.bench.leaderboard.entry_types import FIELDS, OPTIONAL, Columns
from prunecert.jsontext import refuse_depth
from prunecert.printable import shortened

#: Entries of the whole test split with ten verifiers have some 4 MB.
MOST_BYTES = 16 << 20
_DEEPEST = 12
_LONGEST_TEXT = 10_000
_LONGEST_NAME = 200
_LONGEST_NUMBER = 40
_MOST_PROBLEMS = 50
#: Fields in which a person may have written several lines.
_PROSE = re.compile(r"(^|\.)notes?$")


class Unreadable:
    """Stands in an entry where the file has a number that is none, or far beyond any use.

    Args:
        why: What is wrong with it.
    """

    def __init__(self, why: str) -> None:
        self.why = why


def _whole(text: str) -> int | Unreadable:
    # Converting thousands of digits takes time, and Python refuses it.
    return int(text) if len(text) <= _LONGEST_NUMBER else Unreadable(f"a number of {len(text):,} characters is refused")


def _real(text: str) -> float | Unreadable:
    if len(text) > _LONGEST_NUMBER:
        return Unreadable(f"a number of {len(text):,} characters is refused")
    return float(text) if math.isfinite(float(text)) else Unreadable(f"{text} is refused; it must be a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        # Readers differ in which of the two they take.
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                fields[key] = Unreadable("the field stands there twice")
    return fields


def decode(data: bytes) -> Any:
    """Returns what a JSON text holds; numbers that can't be taken are `Unreadable`, so that they can be named.

    Raises:
        ValueError: It is no JSON, no UTF-8, or nested thousands deep.
    """
    text = data.decode("utf-8")
    refuse_depth(text)
    try:
        return json.loads(
            text,
            parse_int=_whole,
            parse_float=_real,
            parse_constant=lambda name: Unreadable(f"{name} is no number in JSON"),
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("it is nested thousands of levels deep") from None


def misshapen(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (field, what is wrong) for everything that is missing, unknown, of another type or out of bounds."""
    count = 0
    for field, what in _extremes(entry, "", 0):
        count += 1
        if count <= _MOST_PROBLEMS:
            yield field, what
    if count:
        # What can't be read can't be compared either.
        return
    for name, kind in FIELDS.items():
        if name in entry:
            yield from _converted(entry[name], kind, name)
        elif name not in OPTIONAL:
            yield name, "the field is missing"
    for name in entry.keys() - FIELDS.keys():
        yield shortened(name, 60), "there is no such field"
    verdicts = entry.get("verdicts")
    for verifier, columns in verdicts.items() if isinstance(verdicts, dict) else ():
        yield from _converted(columns, Columns, f"verdicts.{verifier}")


def _converted(value: Any, kind: Any, path: str) -> Iterator[tuple[str, str]]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        where = where.rstrip("`")
        missing = re.fullmatch(r"Object missing required field `(.*)`", what)
        unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
        if missing:
            yield f"{path}{where}.{missing[1]}", "the field is missing"
        elif unknown:
            yield shortened(f"{path}{where}.{unknown[1]}", _LONGEST_NAME), "there is no such field"
        else:
            yield f"{path}{where}", _words(what)


def _words(what: str) -> str:
    """Returns the decoder's complaint in our words."""
    expectation = re.fullmatch(r"Expected `(.*)`, got `(.*)`", what)
    if expectation:
        return f"{_kind(expectation[2])} is refused; it must be {_kind(expectation[1])}"
    return f"out of bounds: {what[:1].lower()}{what[1:]}"


def _kind(names: str) -> str:
    words = {
        "int": "a whole number",
        "float": "a number",
        "str": "text",
        "bool": "true or false",
        "object": "an object",
        "array": "a list",
        "null": "null",
    }
    return " or ".join(words.get(name, name) for name in names.split(" | "))


def _is_plain(item: Any) -> bool:
    """Whether an item of a list is surely taken, as nearly all of an entry's are: a walk has no need to go there."""
    kind = type(item)
    if kind is int:
        return bool(abs(item) <= 2**53)
    if kind is float:
        return math.isfinite(item)
    if kind is str:
        return len(item) <= _LONGEST_TEXT and item.isprintable()
    return kind is bool or item is None


def _extremes(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yields what no field may hold: unreadable numbers, control characters, half characters, deep nesting."""
    if depth > _DEEPEST:
        yield path, f"it is nested more than {_DEEPEST} levels deep"
    elif isinstance(value, dict):
        for key, item in value.items():
            where = f"{path}.{shortened(key, 60)}" if path else shortened(key, 60)
            if len(key) > _LONGEST_NAME or not key.isprintable():
                yield where, f"the name is refused; allowed are {_LONGEST_NAME} printable characters"
            yield from _extremes(item, where, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if not _is_plain(item):
                yield from _extremes(item, f"{path}[{number}]", depth + 1)
    elif isinstance(value, Unreadable):
        yield path, value.why
    elif isinstance(value, str):
        plain = re.sub(r"[\n\t]", " ", value) if _PROSE.search(path) else value
        if len(value) > _LONGEST_TEXT or not plain.isprintable():
            yield path, f"{shortened(repr(value), 60)} is refused; allowed are {_LONGEST_TEXT:,} printable characters"
    elif isinstance(value, int) and abs(value) > 2**53:
        yield path, f"{value} is refused; whole numbers must be within 2^53, beyond which JSON's readers differ"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, f"{value} is refused; it must be a finite number"
