"""From the bytes of result files to typed data, and how to refuse what does not fit: file, line, field, why."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from prunecert.errors import UserError

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

#: How deep lists and objects may lie in each other; what this program writes is below 12.
DEEPEST = 64
#: Bytes of the largest file that is read whole: summaries and baselines of a million images are far below.
LARGEST = 1 << 30
_LONGEST = 300
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_BRACKETS = re.compile(rb"[][{}]")
_PLACE = re.compile(r"\A(?P<what>.*?)(?: - at `\$(?P<where>.*)`)?\Z", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]*)`(?:, got `(?P<given>[^`]*)`)?")
_TOO_DEEP = f"lists or objects lie more than {DEEPEST} deep in each other"


def depth(text: bytes) -> int:
    """Returns how deep lists and objects lie in each other in a JSON text; it need not be valid."""
    deepest = level = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", text)):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest


def why(error: Exception) -> tuple[str, str]:
    """Returns where and why something could not be decoded.

    Returns:
        The field, e.g. ``cells[0].eps``, empty for the whole; and the reason, e.g. ``it must be a bool, not a str``.
    """
    if isinstance(error, RecursionError):
        return "", _TOO_DEEP
    match = _PLACE.match(_shown(str(error)))
    assert match is not None, "the pattern takes any text"
    what, where = match["what"], (match["where"] or "").lstrip(".")
    expected = _EXPECTED.fullmatch(what)
    if expected is not None:
        expectation = expected["wanted"].replace(" | ", " or ")
        actual = expected["given"]
        return where, f"it must be of type {expectation}" + (f", not {actual}" if actual else "")
    return where, what[:1].lower() + what[1:]


def _shown(text: str) -> str:
    """Returns foreign text on one line, not too long, its control characters as escapes."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def is_json(error: Exception) -> bool:
    """Whether the text was JSON, and only its content was not what it must be."""
    return isinstance(error, msgspec.ValidationError | RecursionError)


def build(kind: type[S], fields: Mapping[str, Any]) -> S:
    """Makes a row of plain data, and checks types and ranges as reading it back will.

    Args:
        kind: Its class.
        fields: By name; nested data is plain.

    Raises:
        TypeError: A field is not known, so that it would be lost.
        msgspec.ValidationError: A value is of another type, or out of its range.
    """
    unknown = fields.keys() - set(kind.__struct_fields__)
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
    config = kind.__struct_config__
    tag = {} if config.tag_field is None else {config.tag_field: config.tag}
    return msgspec.convert({**fields, **tag}, kind)


def plain(value: Any) -> Any:
    """Returns a struct as plain data, as it would be written."""
    return msgspec.to_builtins(value)


def read_bytes(path: Path, what: str, hint: str) -> bytes:
    """Reads a result file.

    Args:
        path: The file.
        what: What it should be, e.g. ``"Baseline"``, with which the message begins.
        hint: What to do if it is missing or unreadable, a clause.

    Raises:
        UserError: It is no file, is not readable, or is larger than any such file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{what} {path} can't be read (it is no file); {hint}.")
        if status.st_size > LARGEST:
            raise UserError(f"{what} {path} can't be read (it has {status.st_size:,} bytes); {hint}.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{what} {path} can't be read ({reason}); {hint}.") from error


def document(raw: bytes, path: Path, what: str, hint: str) -> dict[str, Any]:
    """Returns a file's JSON object as plain data.

    Args:
        raw: Its content.
        path: Its path, for messages.
        what: What it should be, e.g. ``"Baseline"``.
        hint: What to do if it is none, a clause.

    Raises:
        UserError: It is no JSON object, or is nested too deeply.
    """
    try:
        if depth(raw) > DEEPEST:
            raise RecursionError
        data: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
    except RecursionError:
        raise UserError(f"{what} {path} is refused: {_TOO_DEEP}; {hint}.") from None
    except msgspec.ValidationError as error:
        where, reason = why(error)
        if not where:
            raise UserError(f"{path} is no {what.lower()}; {hint}.") from error
        raise UserError(f"{what} {path} is refused: {reason}; {hint}.") from error
    except ValueError as error:
        raise UserError(f"{what} {path} is no JSON ({error}); {hint}.") from error
    return data


def convert(data: Mapping[str, Any], kind: type[T], path: Path, what: str, hint: str) -> T:
    """Returns a file's JSON object as typed data; arguments as `document`.

    Raises:
        UserError: A field is missing, of another type, or out of its range; the message names it.
    """
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        where, reason = why(error)
        place = f"field {where}: " if where else ""
        raise UserError(f"{what} {path} is damaged: {place}{reason}; {hint}.") from error
