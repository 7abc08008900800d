"""The folder of results: can it be written, and who still reads what is printed."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prunecert.errors import UserError
from prunecert.printable import printable, shortened

#: What the top of every command words itself: a full disk.
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Makes the folder of results, and words what goes wrong in it, so that nothing ends in a traceback.

    A folder that was made here goes again if bad input ends the command before anything was written.

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
                out.rmdir()
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise UserError(
            f"{shortened(error.filename or out, 200)} can't be used for results ({error.strerror or error}); --out "
            "must be a folder that can be written, or made."
        ) from error


def say(text: str = "") -> None:
    """Prints a line, control characters as text; where its reader (`head`, say) has gone, work goes on silently."""
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
