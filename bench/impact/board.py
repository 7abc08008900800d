"""Methods side by side, groups of them, other trainings: ``bench.retention --about methods|contrasts|trainings``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import UNSET

from prunecert.bench.planning.exports import export_cell
from prunecert.bench.report import contrast_tables, impact_tables, training_tables
from prunecert.bench.report.impact_tables import ImpactTable
from prunecert.bench.results.impact.contrasts import contrast_lines
from prunecert.bench.results.impact.costs import Costs, costs_of_cards, counted_macs, macs_of_card
from prunecert.bench.results.impact.images import ImageOutcomes
from prunecert.bench.results.impact.methods import BASELINE, method_lines
from prunecert.bench.results.impact.trainings import LEAST_METHODS, trained_boards
from prunecert.errors import UserError
from prunecert.models.checkpoint_folders import locate
from prunecert.onnx.count import count_shapes


def methods(outcomes: Sequence[ImageOutcomes], checkpoints: Path, against: str | None) -> Iterator[ImpactTable]:
    """Yields the board of each family: what methods keep, by how much they differ, what they cost.

    Args:
        outcomes: Networks.
        checkpoints: Folder with their cards.
        against: The pruner that they are held against; None: `BASELINE`.
    """
    baseline = against or BASELINE
    for lines in method_lines(outcomes, costs_of(outcomes, checkpoints), against=baseline):
        family = lines[0].title
        mark = impact_tables.reconstruction_note(line.pruner for line in lines)
        title = f"{family}, {min(line.images for line in lines)} images"
        yield ImpactTable(title, impact_tables.methods_table(lines), mark)
        tests = impact_tables.tests_table(lines, baseline)
        if tests.rows:
            yield ImpactTable(f"{family}: differences on the same images", tests, impact_tables.METHOD_NOTE)
        yield ImpactTable(f"{family}: what they cost", impact_tables.costs_table(lines), impact_tables.COST_NOTE)
        structure = impact_tables.structure_table(lines)
        if structure.rows:
            yield ImpactTable(f"{family}: what is left of units", structure, impact_tables.STRUCTURE_NOTE)


def contrasts(outcomes: Sequence[ImageOutcomes], checkpoints: Path, against: str | None) -> Iterator[ImpactTable]:
    """Yields the contrasts of each family.

    Args:
        outcomes: Networks.
        checkpoints: Folder with their cards, for multiply-adds.
        against: Hold each group of the taxonomy against this pruner; None: groups against one another.

    Raises:
        UserError: There are no two groups to compare.
    """
    macs = {name: float(cost.macs) for name, cost in costs_of(outcomes, checkpoints).items() if cost.macs is not None}
    boards = contrast_lines(outcomes, macs, pruner=against)
    if not boards:
        raise UserError(
            "No two groups of methods can be compared: no two of their networks have a seed, images and a size in "
            "common; verify more of the suite, or name another pruner with --against."
        )
    by_name = {part.cell.name: part for part in outcomes}
    uncounted = sorted(set(by_name) - set(macs))
    lacking = f"Multiply-adds are not known of {len(uncounted)} networks, whose checkpoints are not there."
    for lines in boards:
        notes = [contrast_tables.CONTRAST_NOTE, contrast_tables.unmatched_note(lines), lacking if uncounted else ""]
        held = f" against {against}" if against else ""
        table = contrast_tables.contrasts_table(lines)
        yield ImpactTable(f"{lines[0].family}: groups of methods{held}", table, "\n".join(filter(None, notes)))


def trainings(outcomes: Sequence[ImageOutcomes], against: str | None) -> Iterator[ImpactTable]:
    """Yields, for each family, how far another training moves a network, and what differences that leaves.

    Args:
        outcomes: Networks.
        against: The pruner that they are held against; None: `BASELINE`.

    Raises:
        UserError: Nowhere have enough methods two seeds.
    """
    boards = trained_boards(outcomes, against=against or BASELINE)
    if not boards:
        raise UserError(
            f"Nothing can be said of other trainings: at no compression do {LEAST_METHODS} methods (dense counts as "
            "one) share two seeds and images; train and verify further seeds, or ask for fewer restrictions."
        )
    for family in boards:
        for heading, table, note in training_tables.trained_tables(family):
            yield ImpactTable(f"{family[0].family}: {heading[0].lower()}{heading[1:]}", table, note)


def costs_of(outcomes: Sequence[ImageOutcomes], folder: Path) -> dict[str, Costs]:
    """Returns what networks cost: of those whose checkpoint of the same hash is there, or whose run has its card."""
    from prunecert.models.checkpoint import load_card

    cards: dict[str, Mapping[str, Any]] = {}
    shared: dict[str, float] = {}
    macs = counted_macs(outcomes)
    with tempfile.TemporaryDirectory() as scratch:
        for part in outcomes:
            name = part.cell.name
            if part.cell.card is not UNSET:
                cards[name] = part.cell.card
            file = locate(folder, name)
            if not file.is_file() or not file.with_suffix(".json").is_file():
                continue
            card = load_card(file)
            if card.sha256 == part.cell.checkpoint_sha256:
                cards[name] = card.to_json()
                # Only of a network of other layers must a file be made.
                if name not in macs and macs_of_card(cards[name]) is None:
                    macs[name] = count_shapes(export_cell(file, Path(scratch)).masked_path).sparse_macs
                if (seconds := shared_seconds(file)) is not None:
                    shared[name] = seconds
    return costs_of_cards(cards, shared_seconds=shared, macs=macs)


def shared_seconds(checkpoint: Path) -> float | None:
    """Returns what the pre-training took that a checkpoint began with, by the history beside it.

    Args:
        checkpoint: Its file.

    Returns:
        None where there is no history, or no shared pre-training in it.
    """
    from prunecert.models.history import history_file, read_history

    path = history_file(checkpoint)
    rows = read_history(path) if path.is_file() else []
    # Rows of the pre-training come first, with a key of their own.
    earlier = [row for row in rows if row.key != rows[-1].key]
    measuring = sum(row.held_out.seconds for row in earlier if row.held_out is not None)
    return sum(row.seconds for row in earlier) + measuring if earlier else None
