"""Options that several commands share, and numbers: refused where they make no sense, before anything is done.

One meaning each, whatever the verb: `THREADS` is what ``--threads`` takes, wherever it stands.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.numbers import read_number
from prunecert.printable import shortened
from prunecert.verifiers.base import Status


def whole(what: str, least: int, most: int) -> Callable[[str], int]:
    """Returns an argparse type for whole numbers.

    Args:
        what: What is counted, for the message, e.g. ``"images"``.
        least: The smallest that is taken.
        most: The largest.
    """

    def read(text: str) -> int:
        # Longer ones than any limit aren't converted at all.
        value = int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text.strip()) else None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{shortened(repr(text), 60)} is refused; it must be a whole number of {what} from {least:,} to "
                f"{most:,}"
            )
        return value

    return read


def number(what: str, above: float, most: float) -> Callable[[str], float]:
    """Returns an argparse type for numbers; neither infinity nor NaN is one.

    Args:
        what: What it is, for the message, e.g. ``"seconds"``.
        above: It must be above this.
        most: The largest that is taken.
    """

    def read(text: str) -> float:
        value = read_number(text)
        if value is None or not above < value <= most:
            raise argparse.ArgumentTypeError(
                f"{shortened(repr(text), 60)} is refused; it must be a number of {what} above {above:g} and at most "
                f"{most:,.10g}"
            )
        return value

    return read


#: CIFAR-10's larger split.
IMAGES = whole("images", 1, 50_000)
WORKERS = whole("processes", 1, 1_024)
THREADS = whole("threads", 1, 1_024)
SECONDS = number("seconds", 0, 7 * 86_400)
#: A verifier's process has some 200 MiB before it has read anything.
MEMORY_MB = whole("MiB", 256, 1 << 24)
MEGABYTES = number("megabytes", 0.01, 1_000_000)
SEED = whole("seed", 0, 2**31 - 1)
REPEATS = whole("repeats", 1, 10_000)
EPOCHS = whole("epochs", 3, 100_000)
TRIALS = whole("trials", 1, 100_000)
#: How many trials stand for one that goes on.
ETA = number("trials", 1, 1_000)
RUNGS = whole("rungs", 1, 100)
RADIUS = number("pixels in [0, 1]", 0, 1)
PART = whole("images", 1, 10_000_000)
TASKS = whole("tasks", 1, 100_000)
CPUS = whole("processors", 1, 100_000)


def add_compact_option(parser: argparse.ArgumentParser) -> None:
    """Adds --compact and --no-compact, which replace what the suite says."""
    modes = [str(mode) for mode in Mode]
    parser.add_argument(
        "--compact", nargs="?", const=str(Mode.PIXELS), choices=modes, metavar="MODE",
        help="remove dead and constant units first: pixels (what does nothing for pixels in [0, 1]), all-inputs, exact "
        "(no constant is folded but 0), off (default: the suite's; pixels where it says nothing)",
    )  # fmt: skip
    parser.add_argument(
        "--no-compact",
        dest="compact",
        action="store_const",
        const=str(Mode.OFF),
        help="the masked networks as they are",
    )


def parse_statuses(text: str | None) -> frozenset[Status]:
    """Reads the statuses of ``--retry``, comma-separated; None is none of them.

    Example:
        >>> sorted(parse_statuses("timeout, error"))
        [<Status.ERROR: 'error'>, <Status.TIMEOUT: 'timeout'>]

    Raises:
        UserError: One is unknown, or is an answer that nobody needs to ask for again.
    """
    allowed = [str(status) for status in Status if not status.decided]
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if any(word not in allowed for word in words):
        raise UserError(f"--retry {text!r} is refused; allowed are {', '.join(allowed)}, comma-separated.")
    return frozenset(Status(word) for word in words)


def add_checking_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the checking of a run's certificates can be told."""
    parser.add_argument("--run", type=Path, metavar="DIR", help="check all certificates of this run")
    parser.add_argument(
        "--exports",
        type=Path,
        default=Path("onnx_exports"),
        metavar="DIR",
        help="folder of the networks' ONNX files (default: onnx_exports)",
    )
    parser.add_argument("--suite", metavar="NAME", help="the run's suite, name or file, if it is none that ships")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument("--workers", type=WORKERS, default=1, metavar="N", help="processes side by side (default: 1)")
    parser.add_argument("--sample", type=IMAGES, metavar="N", help="check N certificates, drawn with --seed")
    parser.add_argument("--seed", type=SEED, help="of --sample (default: drawn anew, and said)")
