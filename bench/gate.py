"""The CI regression gate: compare a run with its baseline, image by image.

With --run an existing run is gated. With --suite the suite is run first, by 'prunecert run' and its options, and gated;
what makes a comparison impossible, such as other limits, data, versions, images or verifiers, is found before the first
image. The suite's networks may be your own ONNX files: see docs/gate.md.
Exit code 0: fine; 1: a regression or a contradiction; 2: wrong usage, a run that is not complete, or one in which a
verifier failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console

from prunecert.bench.gate_options import directory_of, gate_parser, request_of
from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.report import GateReport
from prunecert.bench.gating.run import run_gate
from prunecert.errors import ending_at_once, run_main


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    return gate_parser(__doc__)


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Args:
        argv: Arguments; the process's own by default.
        environment: Environment variables; the process's own by default. ``GITHUB_ACTIONS`` and
            ``GITHUB_STEP_SUMMARY`` are looked at.

    Raises:
        UserError: The two can't be compared; the report folder then says so as well.
    """
    own = parser()
    options, rest = own.parse_known_args(sys.argv[1:] if argv is None else argv)
    if rest and options.suite is None:
        own.error(f"unrecognized arguments: {' '.join(rest)} (options of 'prunecert run' need --suite)")
    console = Console(highlight=False)
    report = GateReport(options.report, os.environ if environment is None else environment)
    with report.refusals():
        base = baseline_file.read(options.baseline)
        directory = directory_of(options, rest)
        report.lies_in(directory)
        result = run_gate(request_of(options, rest, base, directory))
    report.tell(result, console)
    return result.exit_code


def command() -> int:
    """Runs `main`, which Ctrl-C ends at once."""
    return ending_at_once(main)


if __name__ == "__main__":
    run_main(command)
