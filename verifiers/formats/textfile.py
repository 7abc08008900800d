"""Reads files that people hand in, gzipped or not, within a limit: a few kilobytes of gzip may be any size."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from prunecert.errors import UserError
from prunecert.files import IrregularFileError, open_regular
from prunecert.printable import article, shortened

#: Most bytes of a text, unpacked: the largest property of VNN-COMP has some 15 MB.
MAX_TEXT = 128 << 20
#: Most bytes of any other file, unpacked: protobuf has no larger messages.
MAX_BYTES = 2 << 30


def read_bytes(path: Path, kind: str, limit: int = MAX_BYTES) -> bytes:
    """Reads a file, gzipped or not.

    Args:
        path: The file.
        kind: What it should be, for messages.
        limit: Most bytes that it may have, unpacked; no more is read.

    Raises:
        UserError: It is missing, can't be read, is too large, or is a cut-off gzip file.
    """
    name = shortened(path, 200)
    try:
        with open_regular(path) as stream:
            raw = stream.read(limit + 1)
        # By content, not by name: VNN-COMP's folders have both under either name.
        if raw[:2] == b"\x1f\x8b" and len(raw) <= limit:
            raw = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(limit + 1)
    except IrregularFileError:
        what = "a folder" if path.is_dir() else "no plain file (a pipe or a device)"
        raise UserError(f"{name} is {what}; wanted is {article(kind)} file.") from None
    except FileNotFoundError:
        raise UserError(f"The {kind} file {name} does not exist.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"The {kind} file {name} is a damaged or cut-off gzip file; get it again.") from None
    except PermissionError:
        raise UserError(f"The {kind} file {name} may not be read by this user; change its permissions.") from None
    except (OSError, ValueError) as error:
        # ValueError: a null byte in the name.
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The {kind} file {name} can't be read ({reason}).") from None
    if len(raw) > limit:
        raise UserError(
            f"The {kind} file {name} is refused: it has over {limit >> 20} MiB (unpacked); allowed is up to that."
        )
    return raw


def read_text(path: Path, kind: str) -> str:
    """Reads a text file of up to `MAX_TEXT` bytes; like `read_bytes`, and a `UserError` too if it is not text."""
    try:
        return read_bytes(path, kind, MAX_TEXT).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{shortened(path, 200)} is no {kind} file: it is not text.") from None
