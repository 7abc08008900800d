"""What is recorded of networks, wherever it stands: a run, its summary, or the leaderboard's entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from prunecert.bench.leaderboard.entry import as_rows, entry_files, load_entry
from prunecert.bench.leaderboard.entryschema import misshapen
from prunecert.bench.leaderboard.standing import one_for_each_cell
from prunecert.bench.results.store import is_run
from prunecert.bench.results.summary import summarise, summarise_cell
from prunecert.bench.results.summary_cells import SummaryCell
from prunecert.bench.results.summary_types import read_summary
from prunecert.errors import UserError
from prunecert.printable import shortened


def load_whole_entry(path: Path) -> Any:
    """Returns a leaderboard entry.

    Raises:
        UserError: A field is missing or of another type.
    """
    entry = load_entry(path)
    for field, problem in misshapen(entry):
        raise UserError(f"{shortened(path)}: {field}: {problem}; prunecert check names all that is wrong with it.")
    return entry


def recorded_cells(source: Path) -> list[SummaryCell]:
    """Returns the cells of a run, of its summary, or of leaderboard entries: one for each network.

    Args:
        source: A run's folder, its ``summary.json``, the folder of entries, or one with a folder ``leaderboard``.

    Raises:
        UserError: There is nothing of the kind, or it can't be read.
    """
    summary = source / "summary.json" if source.is_dir() else source
    if summary.is_file():
        return read_summary(summary).cells
    if is_run(source):
        return [msgspec.convert(cell, SummaryCell) for cell in summarise(source)["cells"]]
    entries = (load_whole_entry(path) for path in entry_files(source))
    return [
        msgspec.convert(summarise_cell(*as_rows(entry)), SummaryCell)
        for entry, _ in one_for_each_cell((entry, None) for entry in entries)
    ]
