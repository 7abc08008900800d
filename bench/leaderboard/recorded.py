"""What is recorded of networks, wherever it stands: a run, its summary, or the leaderboard's entries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from prunecert.bench.leaderboard.entry import as_rows, entry_files, load_entry
from prunecert.bench.leaderboard.entryschema import misshapen
from prunecert.bench.leaderboard.standing import one_for_each_cell
from prunecert.bench.results.impact.costs import Trained, total_epochs, trained
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


class RecordedNetwork(NamedTuple):
    """A network, and how long it was trained.

    Args:
        cell: What was verified.
        epochs: Of all its training, its parent's included; None where that isn't recorded, as in runs and summaries.
    """

    cell: SummaryCell
    epochs: int | None


def recorded_cells(source: Path) -> list[SummaryCell]:
    """Returns the cells of a run, of its summary, or of leaderboard entries, as `recorded_networks` has them."""
    return [network.cell for network in recorded_networks(source)]


def recorded_networks(source: Path) -> list[RecordedNetwork]:
    """Returns what is recorded in a run, in its summary, or in leaderboard entries: one for each network.

    Args:
        source: A run's folder, its ``summary.json``, the folder of entries, or one with a folder ``leaderboard``.

    Raises:
        UserError: There is nothing of the kind, or it can't be read.
    """
    summary = source / "summary.json" if source.is_dir() else source
    if summary.is_file():
        return [RecordedNetwork(cell, None) for cell in read_summary(summary).cells]
    if is_run(source):
        return [RecordedNetwork(msgspec.convert(cell, SummaryCell), None) for cell in summarise(source)["cells"]]
    entries = one_for_each_cell((load_whole_entry(path), None) for path in entry_files(source))
    epochs = total_epochs({entry["cell"]["name"]: _trained(entry) for entry, _ in entries if entry["training"]})
    return [
        RecordedNetwork(
            msgspec.convert(summarise_cell(*as_rows(entry)), SummaryCell), epochs.get(entry["cell"]["name"])
        )
        for entry, _ in entries
    ]


def _trained(entry: Mapping[str, Any]) -> Trained:
    return trained(entry["cell"], entry["training"])
