"""Verify a suite's checkpoints: plan, verify, store, and show the table.

Runs of the same command go on where the last one stopped: finished instances are never done again.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from prunecert.bench.leaderboard.submit import submit
from prunecert.bench.results.decode import plain
from prunecert.bench.run_options import request_of, run_parser
from prunecert.bench.running.progress import Output
from prunecert.bench.running.run import run_suite
from prunecert.errors import EXIT_OK, ending_at_once, run_main


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    return run_parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Args:
        argv: Its arguments; None: those of the process.

    Returns:
        0; 1 if verifiers contradict each other; 2 if a verifier failed on everything it was asked.

    Raises:
        UserError: Anything about the input.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    console = Output()
    result = run_suite(request_of(options, arguments), console)
    if not options.submit or result.session is None:
        return result.exit_code
    if result.exit_code != EXIT_OK:
        console.print("nothing was submitted: see above.", markup=False, soft_wrap=True)
        return result.exit_code
    # The leaderboard is about what is proved; certificates hold with a probability.
    proving = [plan for plan in result.plans if plan.protocol.cascade]
    for path in submit(result.out, proving, result.protocols, plain(result.session), by=options.by):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    return result.exit_code


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def command() -> int:
    """Runs `main`, which Ctrl-C and a request to terminate end at once."""
    signal.signal(signal.SIGTERM, _interrupt)
    return ending_at_once(main)


if __name__ == "__main__":
    run_main(command)
