"""Gives the reader of VNN-LIB files many that are valid or broken: ``python -m tests.fuzz.vnnlib N SEED``.

Right is a property whose sets are the file's at every point tried, or one printable sentence; wrong are any other
exception, over 10 seconds, and sets that differ from an independent evaluation of the file.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from prunecert.errors import UserError
from prunecert.verifiers.formats.vnnlib import UnsupportedPropertyError, read_property
from tests.fuzz.compare import NotUnderstoodError, difference
from tests.fuzz.texts import packed, property_text

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
        made = read_property(path)
    except UserError as error:
        word = "unsupported" if isinstance(error, UnsupportedPropertyError) else "refused"
        return ("message" if not str(error).isprintable() or len(str(error)) > 1_000 else word), str(error)
    except HangError:
        return "hang", ""
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    try:
        wrong = difference(path.read_bytes().decode("utf-8"), made, draw)
    except (NotUnderstoodError, RecursionError, UnicodeDecodeError, ValueError, TypeError, IndexError):
        return "read, not compared", ""
    return ("wrong", wrong) if wrong else ("read and compared", "")


def fuzz(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[tuple[str, str, bytes]]]:
    """Reads files.

    Returns:
        How many had which outcome, and what went wrong: outcome, reason, file.
    """
    found: Counter[str] = Counter()
    faults = []
    for i in range(count):
        draw = random.Random(f"{seed} {i}")
        raw = packed(property_text(draw), draw)
        word, reason = outcome(raw, folder / "fuzz.vnnlib", draw)
        found[word] += 1
        if word in ("traceback", "hang", "wrong", "message"):
            faults.append((word, reason, raw))
    return found, faults


def main() -> int:
    """Runs it from the command line."""
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found, faults = fuzz(count, seed, Path(folder))
    for word, reason, raw in faults[:20]:
        print(f"{word}: {reason[:400]}\n  {raw[:1500]!r}")
    print(f"{count} files, seed {seed}, {time.perf_counter() - begin:.0f} s: {dict(found)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
