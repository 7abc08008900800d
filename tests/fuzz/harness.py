"""What every fuzzer shares: tries one input after another, and counts what must not happen."""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from prunecert.errors import UserError, describe

#: No command takes longer for a file of a few kilobytes.
SLOWEST_S = 10.0
_LONGEST_SENTENCE = 10_000

Try = Callable[[random.Random, Path], str]
#: Tries, a seed and a folder; returns counts by outcome, and (outcome, reason, file) of what went wrong.
Fuzz = Callable[[int, int, Path], tuple[Counter[str], list[tuple[str, str, bytes]]]]


def run(attempts: dict[str, Try], count: int, seed: int, folder: Path) -> Counter[str]:
    """Tries `count` changed inputs and returns how often what happened.

    Args:
        attempts: By name, functions that make a changed input in a folder, hand it to the product, and return what
            came of it in a word; a `UserError` counts as ``refused``.
        count: How many in all, in turn.
        seed: Each input has a seed of its own made of this and its number, so that one alone can be tried again.
        folder: Where files are written.

    Returns:
        Counts by ``attempt: outcome``; the outcomes ``TRACEBACK``, ``HANG`` and ``RAW`` are faults, and each is
        described on standard output.
    """
    counts: Counter[str] = Counter()
    names = sorted(attempts)
    for number in range(count):
        name = names[number % len(names)]
        rng = random.Random(f"{seed} {number}")
        # By the processor's time: a busy machine is nobody's fault. What waits for ever never gets here.
        began = time.process_time()
        try:
            outcome = attempts[name](rng, folder)
        except UserError as error:
            outcome = "refused" if presentable(describe(error)[0]) else "RAW"
            if outcome == "RAW":
                print(f"{name} {number} (seed {seed}): {str(error)!r:.500}")
        except Exception:
            outcome = "TRACEBACK"
            print(f"{name} {number} (seed {seed}):\n{traceback.format_exc(limit=-6)}")
        if (spent := time.process_time() - began) > SLOWEST_S:
            print(f"{name} {number} (seed {seed}): {spent:.1f} s")
            outcome = "HANG"
        counts[f"{name}: {outcome}"] += 1
    return counts


def presentable(sentence: str, most: int = _LONGEST_SENTENCE) -> bool:
    """Whether what a command would say can be read: one line of printable text, not without end."""
    return 0 < len(sentence) <= most and sentence.isprintable()


def faults(counts: Counter[str]) -> dict[str, int]:
    """Returns what must not have happened."""
    return {key: n for key, n in counts.items() if key.rpartition(": ")[2] in ("TRACEBACK", "HANG", "RAW", "WRONG")}


def run_files(fuzz: Fuzz, shown: int) -> int:
    """Runs a fuzzer that keeps the bytes of what went wrong as a program: N and SEED on the command line.

    Args:
        fuzz: Returns how many files had which outcome, and what went wrong: outcome, reason, file.
        shown: Bytes of a file that are printed.

    Returns:
        1 if something went wrong.
    """
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, faults = fuzz(count, seed, Path(folder))
    for word, reason, raw in faults[:20]:
        print(f"{word}: {reason[:400]}\n  {raw[:shown]!r}")
    print(f"{count} files, seed {seed}, {time.perf_counter() - begin:.0f} s: {dict(outcomes)}")
    return 1 if faults else 0


def main(attempts: dict[str, Try]) -> int:
    """Runs a fuzzer as a program: N and SEED on the command line; returns 1 if there was a fault."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        counts = run(attempts, count, seed, Path(folder))
    for key, n in sorted(counts.items()):
        print(f"{n:7d}  {key}")
    return 1 if faults(counts) else 0
