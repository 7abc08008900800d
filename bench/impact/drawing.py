"""The figures of networks that verifiers have judged, wherever that is recorded: ``bench.retention --figures``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from prunecert.bench.impact.networks import chosen_cells
from prunecert.bench.leaderboard.recorded import recorded_cells
from prunecert.bench.report import figures
from prunecert.errors import UserError
from prunecert.models.checkpoint_folders import checkpoint_files


def draw(
    source: Path,
    folder: Path,
    *,
    compressions: Collection[float] | None = None,
    patterns: str | None = None,
    only: Collection[str] | None = None,
) -> list[Path]:
    """Draws what a run's report draws, of a run, its summary or the leaderboard's entries; returns the files.

    Args:
        source: A run, its summary, or a folder of leaderboard entries.
        folder: Where figures go, as PNG and SVG; it is made, and files of their names are replaced.
        compressions: Only these, and the dense controls; None for all.
        patterns: Only cells whose name fits one of these comma-separated patterns, and the dense controls.
        only: Only cells of these names; None for all.

    Raises:
        UserError: Nothing of what is asked for is there, or can't be read, or the folder can't be written to.
    """
    if source.is_dir() and checkpoint_files(source):
        raise UserError(
            f"--figures of {source} is refused: it holds checkpoints, whose cards have no verified accuracy; give a "
            "run, its summary.json or the leaderboard's entries (results)."
        )
    recorded = [cell for cell in recorded_cells(source) if only is None or cell.name in only]
    cells = chosen_cells(recorded, source, compressions, patterns)
    # Certificates of smoothing, which a figure of their own shows, are not of these networks.
    summary = {"cells": [msgspec.to_builtins(cell) for cell in cells], "certificates": []}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = figures.save(summary, folder)
    except OSError as error:
        raise UserError(
            f"--figures {folder} can't be written to ({error.strerror}); give a folder of your own."
        ) from error
    if not drawn:
        raise UserError(f"{source} holds no images of the networks asked for, so that there is nothing to be drawn.")
    return drawn
