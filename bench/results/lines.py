"""The lines of a result log: decoding them into rows, encoding rows, and saying which line is damaged, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from prunecert.bench.results.decode import DEEPEST, depth, is_json, why
from prunecert.bench.results.row_types import (
    CertificateRow,
    EndRow,
    ImageRow,
    PairRow,
    ProofRow,
    PropertyRow,
    Row,
    VerdictRow,
    VisitRow,
)
from prunecert.bench.results.session_types import SessionRow, VerifySessionRow
from prunecert.errors import UserError
from prunecert.files import IrregularFileError, open_regular

SCHEMA_VERSION = 1
#: What a writer takes: a row, or a property's as plain data.
Writable = Row | dict[str, Any]


class _SessionHead(Struct, tag="session", tag_field="type"):
    """As much of a session as says which kind it is; anything else is looked at when that is known."""

    schema_version: Any = None
    verifiers: Any = None


_Quick = _SessionHead | ImageRow | VerdictRow | CertificateRow | ProofRow | PairRow | PropertyRow | VisitRow | EndRow
_decode = msgspec.json.Decoder(_Quick).decode
_decode_session = msgspec.json.Decoder(SessionRow).decode
_decode_verify_session = msgspec.json.Decoder(VerifySessionRow).decode
_encode = msgspec.json.Encoder().encode


def open_log(path: Path) -> BinaryIO:
    """Opens a log file for reading.

    Raises:
        UserError: It is no file, or may not be read.
    """
    try:
        return open_regular(path)
    except IrregularFileError as error:
        raise UserError(f"{path} is refused: it is called like a result file but is none; take it away.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); its folder is no run that can be read.") from error


def decode_lines(path: Path, before: int, lines: bytes) -> list[Row]:
    """Decodes whole lines.

    Args:
        path: Their file, for messages.
        before: How many lines of it come before.
        lines: The lines, without the last one's line break.

    Raises:
        UserError: One is damaged, no row, or of a newer schema; the message names it.
    """
    parts = lines.split(b"\n")
    try:
        rows: list[Any] = list(map(_decode, parts))
    except (ValueError, RecursionError):
        rows = [_decode_slowly(path, number, line) for number, line in enumerate(parts, start=before + 1)]
    for place, row in enumerate(rows):
        kind = type(row)
        if kind is _SessionHead:
            rows[place] = _session(path, before + place + 1, row, parts[place])
        elif kind is PropertyRow and depth(parts[place]) > DEEPEST:
            raise _refusal(path, before + place + 1, RecursionError())
    return rows


def _decode_slowly(path: Path, number: int, line: bytes) -> Any:
    try:
        return _decode(line)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, number, error) from error


def _refusal(path: Path, number: int, error: Exception) -> UserError:
    if not is_json(error):
        return UserError(
            f"{path}, line {number}: this is no JSON ({error}), so the file was damaged after it was written; "
            "restore it, or delete that line to have its instance done again."
        )
    where, reason = why(error)
    if not where and not isinstance(error, RecursionError) and "required field" not in reason:
        return UserError(f"{path}, line {number}: a row must be an object with a 'type'; restore the file.")
    if where == "type":
        return UserError(
            f"{path}, line {number}: its type is none that this program knows ({reason}); restore the file, or upgrade "
            "prunecert."
        )
    place = f"field {where}: " if where else ""
    return UserError(
        f"{path}, line {number}: {place}{reason}; restore the file, or delete that line to have its instance done "
        "again."
    )


def _session(path: Path, number: int, head: _SessionHead, line: bytes) -> SessionRow | VerifySessionRow:
    _check_schema(path, head.schema_version)
    try:
        if depth(line) > DEEPEST:
            raise RecursionError
        return _decode_session(line) if head.verifiers is None else _decode_verify_session(line)
    except (ValueError, RecursionError) as error:
        where, reason = why(error)
        place = f"field {where}: " if where else ""
        raise UserError(
            f"{path}, line {number}: this session row is refused: {place}{reason}; restore the file."
        ) from error


def first_session(path: Path, line: bytes) -> SessionRow | VerifySessionRow:
    """Decodes a file's first line.

    Raises:
        UserError: It is damaged, or no session.
    """
    (row,) = decode_lines(path, 0, line)
    if not isinstance(row, SessionRow | VerifySessionRow):
        raise UserError(f"{path}, line 1: a result file must begin with a session row; this is none.")
    return row


def property_documents(path: Path, before: int, lines: bytes) -> list[dict[str, Any]]:
    """Returns the `property` rows among whole lines as plain data, after checking all of the lines.

    Raises:
        UserError: As `decode_lines`.
    """
    rows = decode_lines(path, before, lines)
    return [
        msgspec.json.decode(line, type=dict[str, Any])
        for row, line in zip(rows, lines.split(b"\n"), strict=True)
        if isinstance(row, PropertyRow)
    ]


def _check_schema(path: Path, version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"{path}: a session row has no valid schema_version (found {version!r:.40}).")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path} is of schema version {version}, newer than this program reads ({SCHEMA_VERSION}); "
            "upgrade prunecert."
        )


def _escaped(value: Any) -> Any:
    """Returns plain data whose texts are whole characters: halves of surrogate pairs become escapes."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value


def encode(row: Writable) -> bytes:
    """Returns a row as a line.

    Raises:
        ValueError: It could not be read back: a number that is not finite, a field of another type. That is a mistake
            of the program, and better found before it stands in a file.
    """
    try:
        line = _encode(row)
    except UnicodeEncodeError:
        # A path whose bytes are no UTF-8, say.
        line = _encode(_escaped(msgspec.to_builtins(row)))
    try:
        head = _decode(line)
        if isinstance(head, _SessionHead):
            (_decode_session if head.verifiers is None else _decode_verify_session)(line)
    except ValueError as error:
        raise ValueError(f"a row is refused because it could not be read back: {error}") from error
    return line + b"\n"
