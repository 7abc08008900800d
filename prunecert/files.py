"""Reading foreign files without being held up by them, and names of files that are about to become others."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import secrets
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from prunecert.errors import UserError, describe_os_error
from prunecert.printable import shortened


class IrregularFileError(UserError):
    """A folder, a pipe or a device where a plain file belongs."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a plain file for reading.

    A pipe or a device (a link to ``/dev/zero``, say) would keep its reader for ever.

    Args:
        path: The file; a symbolic link is followed.

    Raises:
        IrregularFileError: It is no plain file.
        OSError: There is none, or it can't be read.
        ValueError: There is a zero byte in its name.
    """

    def without_waiting(name: str, flags: int) -> int:
        # Opening a pipe would wait for its writer, were it not for O_NONBLOCK.
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    try:
        stream = open(path, "rb", opener=without_waiting)  # noqa: SIM115
    except IsADirectoryError as error:
        raise IrregularFileError(f"{shortened(path)} is a folder; give a file.") from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise IrregularFileError(f"{shortened(path)} is no plain file (a pipe or a device); give a plain file.")
    return stream


def read_regular(path: Path, most: int) -> bytes:
    """Returns a file's bytes, if it is a plain file of a size that can be meant.

    Args:
        path: The file; a symbolic link is followed.
        most: Bytes that it may hold.

    Raises:
        UserError: There is none, it is no plain file, it is larger, or it can't be read.

    >>> read_regular(write_text(Path("suite.yaml"), "name: x"), most=100)
    b'name: x'
    >>> read_regular(Path("suite.yaml"), most=3)
    Traceback (most recent call last):
    prunecert.errors.UserError: suite.yaml is refused: it has 7 bytes; at most 3 are read.
    """
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            # Files of /proc say that they are empty.
            data = stream.read(most + 1) if size <= most else b""
    except OSError as error:
        raise UserError(describe_os_error(error)) from error
    except ValueError as error:  # A zero byte in the name.
        raise UserError(f"{shortened(path)} is no name of a file ({error}); give another one.") from error
    if max(size, len(data)) > most:
        raise UserError(
            f"{shortened(path)} is refused: it has {max(size, len(data)):,} bytes; at most {most:,} are read."
        )
    return data


def scratch_beside(path: Path) -> Path:
    """Returns a name beside `path` that no other process uses, on whatever machine that shares the folder.

    What is written there and then moved to `path` appears whole or not at all, however many processes write it.

    Args:
        path: What the file will be called.
    """
    host = "".join(c if c.isalnum() else "-" for c in platform.node())
    return path.with_name(f".{path.name}.{host}.{os.getpid()}.part")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a name beside `path` to write a file to, which then becomes `path`: whole, or not at all.

    Two processes that write it at once, or two threads, each write their own scratch file; the last one stays. After
    an error `path` is what it was, and nothing is left beside it.

    Args:
        path: The file; its folder is there.

    >>> with replacing(Path("summary.json")) as scratch:
    ...     count = scratch.write_text("{}")
    ...     Path("summary.json").exists()
    False
    >>> Path("summary.json").read_text(), scratch.exists()
    ('{}', False)
    """
    # Without the file's own name, which may be as long as names can be.
    scratch = path.with_name(f".{os.getpid()}.{secrets.token_hex(8)}.part")
    try:
        scratch.touch()
        mode = stat.S_IMODE(scratch.stat().st_mode)
        yield scratch
        scratch.chmod(mode)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> Path:
    """Writes a file whole or not at all, and returns its path; see `replacing`.

    Args:
        path: The file; its folder is there.
        data: What it will hold.
    """
    with replacing(path) as scratch:
        scratch.write_bytes(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Writes a text file in UTF-8 whole or not at all, and returns its path; see `write_bytes`."""
    return write_bytes(path, text.encode(errors="backslashreplace"))


def unpack_tar(data: bytes, folder: Path) -> None:
    """Unpacks an archive that a program of this machine made, such as ``git archive``, into a folder.

    Where Python can it keeps links and names that lead out of the folder from being followed (from 3.11.4 on; the
    first releases of 3.11, which some systems ship, can't).

    Args:
        data: The archive, not compressed.
        folder: Where its files go.
    """
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)  # noqa: S202 (its filter is set, where there is one)
