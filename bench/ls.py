"""List suites, networks, objectives and their add-ons, pruners, verifiers with their settings, and runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from prunecert.bench.report.listing import WHAT, show
from prunecert.errors import EXIT_OK, UserError, did_you_mean, run_main
from prunecert.page_help import PageHelp

RUNS = Path("results/runs")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="prunecert ls", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"any of {', '.join(WHAT)} (default: all)")
    parser.add_argument("--runs-dir", type=Path, default=RUNS, help="folder of runs (default: results/runs)")
    options = parser.parse_args(argv)
    for what in options.what:
        if what not in WHAT:
            raise UserError(did_you_mean("thing to list", what, WHAT))
    console = Console()
    subjects = list(options.what or WHAT)
    if "verifiers" in subjects and "settings" not in subjects:
        subjects.insert(subjects.index("verifiers") + 1, "settings")
    for number, what in enumerate(subjects):
        if number:
            console.print()
        show(WHAT[what](options.runs_dir), console, grouped=what == "settings")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
