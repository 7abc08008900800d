"""What pruning keeps of a dense control's accuracies, of whatever a folder or file holds: ``bench.retention``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from prunecert.bench.leaderboard.recorded import recorded_networks
from prunecert.bench.report.kept_accuracies import kept_of_cells, kept_of_checkpoints
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.models.checkpoint_folders import checkpoint_files


def cells_of_suite(suite: str | None) -> frozenset[str] | None:
    """Returns the names of a suite's cells; None for no suite, which means all cells.

    Args:
        suite: A shipped suite's name, or a YAML file.

    Raises:
        UserError: There is none of that name, or it can't be read.
    """
    return None if suite is None else frozenset(cell.name for cell, _ in load_suite(suite).cells)


def kept_accuracies(
    source: Path | None,
    compressions: Collection[float] | None = None,
    cells: str | None = None,
    only: Collection[str] | None = None,
) -> str:
    """Returns the Markdown table of checkpoints, by their cards, or of networks that complete verifiers have judged.

    Args:
        source: A folder of checkpoints, a run's folder or its summary, or the leaderboard's entries; None: the
            checkpoints that are looked for where none are named.
        compressions: Only these ratios; None: all.
        cells: Only cells whose name fits one of these comma-separated shell patterns; None: all.
        only: Only cells of these names; None: all.

    Raises:
        UserError: There is nothing of the kind, a file of it can't be read, or nothing of what is asked for is in it.
    """
    if source is None or not source.exists() or (source.is_dir() and checkpoint_files(source)):
        return kept_of_checkpoints(source, compressions, cells, only)
    recorded = recorded_networks(source)
    if not recorded:
        raise UserError(
            f"{source} holds no checkpoints (*.safetensors with their cards), no run and no leaderboard entries; "
            "give a folder of one of these, or a run's summary.json."
        )
    epochs = {network.cell.name: network.epochs for network in recorded if network.epochs is not None}
    return kept_of_cells((n.cell for n in recorded), str(source), compressions, cells, only, epochs=epochs)
