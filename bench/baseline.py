"""Make or update the baseline that bench.gate holds later runs to, on purpose and with the reason recorded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.records import Snapshot, of_run
from prunecert.bench.gating.result import plural
from prunecert.bench.machine import utc_now
from prunecert.bench.results.baseline_types import HistoryCell, HistoryEntry
from prunecert.bench.results.outcome import MISCLASSIFIED
from prunecert.errors import EXIT_OK, UserError, run_main

_SHOWN = 8


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert baseline", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory to take")
    parser.add_argument("--out", type=Path, required=True, help="baseline file, e.g. results/baselines/NAME.json")
    parser.add_argument("--reason", required=True, help="why, in a sentence; it is recorded in the file")
    parser.add_argument("--allow-unpublishable", action="store_true", help="take a run that must not be published")
    parser.add_argument("--allow-errors", action="store_true", help="take a run in which a verifier failed on images")
    parser.add_argument("--drop-cells", action="store_true", help="update although the run lacks cells of the old one")
    return parser


def check(run: Snapshot, directory: Path, *, allow_unpublishable: bool, allow_errors: bool) -> None:
    """Refuses runs that later ones should not be measured by.

    Raises:
        UserError: The run is not complete, contradicts itself, has failures, or must not be published.
    """
    if run.unfinished:
        raise UserError(
            f"{directory} is refused: it is not complete ({', '.join(run.unfinished[:_SHOWN])}). Run the same "
            "bench.run command again; it goes on where it stopped."
        )
    empty = [name for name, cell in run.cells.items() if not cell.images]
    if empty or not run.cells:
        raise UserError(
            f"{directory} is refused: {'cell ' + empty[0] if empty else 'the run'} has no verified images, so that "
            "nothing could be held to it; verify some."
        )
    if run.contradictions:
        first = run.contradictions[0]
        raise UserError(
            f"{directory} is refused: {plural(len(run.contradictions), 'contradiction')} between verifiers, first on "
            f"{first['cell']} image {first['image']}; a baseline must not hold a wrong answer."
        )
    untaken = [name for name, cell in run.cells.items() if cell.untaken]
    if untaken:
        raise UserError(
            f"{directory} is refused: no verifier takes {', '.join(untaken[:_SHOWN])}, so that nothing could be held "
            "to it; ask others, or leave it out of the suite."
        )
    failed = [(name, place) for name, cell in run.cells.items() for place in cell.errors()]
    if failed and not allow_errors:
        cell, (image, verifier) = failed[0]
        raise UserError(
            f"{directory} is refused: verifiers failed {plural(len(failed), 'time')}, first {verifier} on {cell} image "
            f"{image}. Mend that and do them again with bench.run --retry error, or accept them with --allow-errors."
        )
    if run.unpublishable and not allow_unpublishable:
        raise UserError(
            f"{directory} is refused: it is not publishable ({'; '.join(run.unpublishable)}). Use CIFAR-10 itself, "
            "or accept that with --allow-unpublishable."
        )


def entry(run: Snapshot, reason: str) -> HistoryEntry:
    """Returns the line of the history: when, why, and what the cells were then."""
    cells = {}
    for name, cell in run.cells.items():
        statuses = [outcome.status for outcome in cell.outcomes().values()]
        cells[name] = HistoryCell(
            onnx_sha256=cell.info.onnx_sha256,
            n=len(statuses),
            verified=statuses.count("unsat"),
            attacked=len(statuses) - statuses.count("sat") - statuses.count(MISCLASSIFIED),
            clean=len(statuses) - statuses.count(MISCLASSIFIED),
        )
    return HistoryEntry(date=utc_now(), reason=reason, run_started=run.head.started, cells=cells)


def _previous(path: Path, run: Snapshot, drop_cells: bool) -> tuple[HistoryEntry, ...]:
    """Returns the history of the baseline that is updated; empty if there is none."""
    if not path.exists():
        return ()
    old = baseline_file.read(path)
    if old.head.suite != run.head.suite:
        raise UserError(
            f"--out {path} is refused: it is the baseline of suite {old.head.suite!r}, and the run is of "
            f"{run.head.suite!r}; choose another file."
        )
    lacking = [name for name in old.cells if name not in run.cells]
    if lacking and not drop_cells:
        raise UserError(
            f"--run is refused: it lacks {len(lacking)} cells of {path} ({', '.join(lacking[:_SHOWN])}). Verify them "
            "as well, or drop them on purpose with --drop-cells."
        )
    return old.history


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
    history = _previous(options.out, run, options.drop_cells)
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
