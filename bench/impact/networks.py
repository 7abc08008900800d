"""Networks side by side: ``bench.retention --about networks``, what each keeps and what it costs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.bench.leaderboard.recorded import recorded_cells
from prunecert.bench.planning.exports import export_cell
from prunecert.bench.report import networks_table
from prunecert.bench.report.impact_tables import ImpactTable
from prunecert.bench.results.summary_cells import SummaryCell
from prunecert.bench.schema.cell import fitting
from prunecert.errors import UserError
from prunecert.models import DENSE
from prunecert.models.checkpoint_folders import locate
from prunecert.onnx.count import count_shapes

if TYPE_CHECKING:
    from prunecert.models.checkpoint import Card


def networks(
    source: Path,
    checkpoints: Path,
    *,
    compressions: Collection[float] | None,
    patterns: str | None,
    whole: bool,
    only: Collection[str] | None = None,
) -> Iterator[ImpactTable]:
    """Yields what networks keep and what they cost: for each by itself, or for all.

    Args:
        source: A run, its summary, or a folder of leaderboard entries.
        checkpoints: Folder with the networks' checkpoints, whose weights and multiply-adds are counted.
        compressions: Only these, and the dense controls; None for all.
        patterns: Only cells whose name fits one of these comma-separated patterns, and the dense controls.
        whole: Whether tables may be wider than a terminal of 80 columns.
        only: Only cells of these names; None for all.

    Raises:
        UserError: Nothing of what is asked for is there, or can't be read.
    """
    recorded = [cell for cell in recorded_cells(source) if only is None or cell.name in only]
    cells = chosen_cells(recorded, source, compressions, patterns)
    sizes = dict(_sizes([(cell.name, cell.checkpoint_sha256) for cell in cells], checkpoints))
    lines = networks_table.lines_of(
        cells, {name: networks_table.NetworkSizes(card.kept, macs) for name, (card, macs) in sizes.items()}
    )
    if not lines:
        raise UserError(f"{source} holds no finished network of those asked for.")
    unfinished = ", ".join(cell.name for cell in cells if not cell.finished)
    left_out = f"Not finished, and left out: {unfinished}." if unfinished else ""
    groups = {"Accuracies": lines} if whole else networks_table.families(lines)
    for title, group in groups.items():
        accuracies = networks_table.accuracies_table(group, narrow=not whole)
        yield ImpactTable(title, accuracies, networks_table.ACCURACY_NOTE)
        costs = networks_table.costs_table(group, narrow=not whole)
        note = " ".join(filter(None, (networks_table.cost_note(lines, narrow=not whole), left_out)))
        yield ImpactTable("Costs" if whole else f"{title}: costs", costs, note)


def chosen_cells(
    cells: Sequence[SummaryCell], source: Path, compressions: Collection[float] | None, patterns: str | None
) -> list[SummaryCell]:
    """Returns the cells asked for, and their dense controls.

    Args:
        cells: All cells.
        source: Where they are from, for the message.
        compressions: Only these; None for all.
        patterns: Only cells whose name fits one of these comma-separated patterns; None for all.

    Raises:
        UserError: A pattern fits none.
    """
    chosen = [cell for cell in cells if compressions is None or cell.compression in compressions]
    if patterns is not None:
        names = set(fitting((cell.name for cell in chosen), patterns, str(source)))
        chosen = [cell for cell in chosen if cell.name in names]
    kept = {cell.name for cell in chosen}
    trainings = {(cell.network, cell.objective, cell.eps, cell.seed) for cell in chosen}
    return [
        cell
        for cell in cells
        if cell.name in kept
        or (cell.pruner == DENSE and (cell.network, cell.objective, cell.eps, cell.seed) in trainings)
    ]


def _sizes(networks: Iterable[tuple[str, str | None]], folder: Path) -> Iterator[tuple[str, tuple[Card, int]]]:
    """Yields cards and multiply-adds, counted in the export, of networks whose checkpoint of the same hash is there."""
    from prunecert.models.checkpoint import load_card

    with tempfile.TemporaryDirectory() as scratch:
        for name, sha256 in networks:
            file = locate(folder, name)
            if not file.is_file() or not file.with_suffix(".json").is_file():
                continue
            card = load_card(file)
            if card.sha256 == sha256:
                path = export_cell(file, Path(scratch)).masked_path
                yield name, (card, count_shapes(path).sparse_macs)
                path.unlink(missing_ok=True)
