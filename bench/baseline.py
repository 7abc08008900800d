"""Make or update the baseline that bench.gate holds later runs to, on purpose and with the reason recorded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.baseline_update import check, entry, history_of
from prunecert.bench.gating.records import of_run
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.page_help import PageHelp


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert baseline", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("--run", type=Path, required=True, help="run directory to take")
    parser.add_argument("--out", type=Path, required=True, help="baseline file, e.g. results/baselines/NAME.json")
    parser.add_argument("--reason", required=True, help="why, in a sentence; it is recorded in the file")
    parser.add_argument("--allow-unpublishable", action="store_true", help="take a run that must not be published")
    parser.add_argument("--allow-errors", action="store_true", help="take a run in which a verifier failed on images")
    parser.add_argument("--drop-cells", action="store_true", help="update although the run lacks cells of the old one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Raises:
        UserError: The run or the file is refused; nothing is written then.
    """
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    reason = " ".join(options.reason.split())
    if not reason:
        raise UserError("--reason is empty; say in a sentence why the baseline is made or changed.")
    if options.out.suffix != ".json":
        raise UserError(f"--out {options.out} is refused; the file's name must end in .json.")
    run = of_run(options.run)
    check(run, options.run, allow_unpublishable=options.allow_unpublishable, allow_errors=options.allow_errors)
    history = history_of(options.out, run, drop_cells=options.drop_cells)
    now = entry(run, reason)
    baseline_file.write(options.out, replace(run, history=(*history, now)))
    console = Console(highlight=False)
    before = history[-1].cells if history else {}
    for name, cell in now.cells.items():
        was = f"{before[name].verified}/{before[name].n} → " if name in before else ""
        text = f"{name}: verified {was}{cell.verified}/{cell.n}"
        console.print(text, markup=False, soft_wrap=True)
    word = f"update {len(history)} of" if history else "made"
    console.print(f"{word} {options.out}: {reason}", markup=False, soft_wrap=True)
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
