"""The folder of results: can it be written, and what becomes of it if nothing is."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prunecert.errors import UserError, describe_os_error


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Makes the folder of results before the work, and words what goes wrong in it as the end of every command does.

    A folder that was made here goes again if bad input ends the command before anything was written; empty logs are
    nothing.

    Args:
        out: The folder of ``--out``.

    Raises:
        UserError: It can't be made or written, now or later.
    """
    there = os.path.lexists(out) if len(os.fsencode(out)) < 4_096 else False
    try:
        out.mkdir(parents=True, exist_ok=True)
        # By trying: rights and file systems that are read-only are told apart from others by nothing else.
        with tempfile.TemporaryFile(dir=out):
            pass
        yield
    except UserError:
        if not there:
            with contextlib.suppress(OSError):
                for path in sorted(out.rglob("*"), reverse=True):
                    if path.is_dir():
                        path.rmdir()
                    elif not path.stat().st_size:
                        path.unlink()
                out.rmdir()
        raise
    except OSError as error:
        if error.filename is None:
            error.filename = str(out)
        raise UserError(describe_os_error(error)) from error
