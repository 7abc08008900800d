"""What a run must be to be held up as a baseline, and what is recorded of it when one is made or updated."""

from __future__ import annotations

from pathlib import Path

from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.records import Snapshot
from prunecert.bench.machine import utc_now
from prunecert.bench.results.baseline_types import HistoryCell, HistoryEntry
from prunecert.bench.results.outcome import MISCLASSIFIED
from prunecert.errors import UserError
from prunecert.printable import plural

_SHOWN = 8


def check(run: Snapshot, directory: Path, *, allow_unpublishable: bool, allow_errors: bool) -> None:
    """Refuses runs that later ones should not be measured by.

    Raises:
        UserError: The run is not complete, contradicts itself, has failures, or must not be published.
    """
    if run.unfinished:
        raise UserError(
            f"{directory} is refused: it is not complete ({', '.join(run.unfinished[:_SHOWN])}). Give the same "
            "command again (prunecert run); it goes on where it stopped."
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
            f"{image}. Mend that and do them again with prunecert run --retry error, or accept them: --allow-errors."
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


def history_of(path: Path, run: Snapshot, *, drop_cells: bool) -> tuple[HistoryEntry, ...]:
    """Returns the history of the baseline that is updated; empty if there is none.

    Args:
        path: The baseline's file.
        run: What it is to be made of.
        drop_cells: Whether the run may lack cells of it.

    Raises:
        UserError: It is of another suite, or has cells that the run lacks.
    """
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
