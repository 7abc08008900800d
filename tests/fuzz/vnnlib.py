"""Gives the reader of VNN-LIB files many that are valid or broken: ``python -m tests.fuzz.vnnlib N SEED``.

Right is a property whose sets are the file's at every point tried, or one printable sentence; wrong are any other
exception, over 10 seconds, and sets that differ from an independent evaluation of the file.
"""

from __future__ import annotations

import random
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from prunecert.errors import UserError
from prunecert.verifiers.formats.vnnlib import UnsupportedPropertyError, read_property
from tests.fuzz.compare import NotUnderstoodError, difference
from tests.fuzz.harness import presentable, run_files
from tests.fuzz.texts import packed, property_text

#: Characters of a sentence about one file.
_LONGEST = 1_000


LIMIT_S = 10


class HangError(BaseException):
    """The reader took too long."""


def _late(*_: Any) -> None:
    raise HangError


def outcome(raw: bytes, path: Path, draw: random.Random) -> tuple[str, str]:
    """Reads one file.

    Returns:
        What came of it in one word, ``"traceback"``, ``"hang"``, ``"wrong"`` and ``"message"`` among them, and the
        reason.
    """
    path.write_bytes(raw)
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(LIMIT_S)
    try:
        spec = read_property(path)
    except UserError as error:
        word = "unsupported" if isinstance(error, UnsupportedPropertyError) else "refused"
        return ("message" if not presentable(str(error), _LONGEST) else word), str(error)
    except HangError:
        return "hang", ""
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    try:
        wrong = difference(path.read_bytes().decode("utf-8"), spec, draw)
    except (NotUnderstoodError, RecursionError, UnicodeDecodeError, ValueError, TypeError, IndexError):
        return "read, not compared", ""
    return ("wrong", wrong) if wrong else ("read and compared", "")


def fuzz(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[tuple[str, str, bytes]]]:
    """Reads files.

    Returns:
        How many had which outcome, and what went wrong: outcome, reason, file.
    """
    outcomes: Counter[str] = Counter()
    faults = []
    for i in range(count):
        draw = random.Random(f"{seed} {i}")
        raw = packed(property_text(draw), draw)
        word, reason = outcome(raw, folder / "fuzz.vnnlib", draw)
        outcomes[word] += 1
        if word in ("traceback", "hang", "wrong", "message"):
            faults.append((word, reason, raw))
    return outcomes, faults


if __name__ == "__main__":
    sys.exit(run_files(fuzz, shown=1500))
