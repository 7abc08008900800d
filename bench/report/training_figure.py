"""The history of a training as a figure: loss, and accuracies on held-out images, an epoch after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.bench.report.canvas import COLOURS, FILE_INK, style
from prunecert.bench.report.labels import literal
from prunecert.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from prunecert.models.history import EpochRow

_CURVES = {
    "clean": "clean",
    "pgd": "under attack (PGD)",
    "crown_ibp": "proved (CROWN-IBP)",
    "ibp": "proved (intervals)",
    "noisy": "under noise",
}


def stretches(rows: Sequence[EpochRow]) -> list[tuple[str, int, int]]:
    """Returns the stages in order, each with its first and last epoch as numbered over all of them, from 1."""
    stages: list[tuple[str, int, int]] = []
    for number, row in enumerate(rows, 1):
        if stages and stages[-1][0] == row.stage:
            stages[-1] = (row.stage, stages[-1][1], number)
        else:
            stages.append((row.stage, number, number))
    return stages


def curves(rows: Sequence[EpochRow]) -> dict[str, tuple[list[int], list[float]]]:
    """Returns the held-out accuracies that were measured: epochs, and per cent, by the name in `EpochRow.held_out`."""
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for number, row in enumerate(rows, 1):
        for name in _CURVES if row.held_out is not None else ():
            share = getattr(row.held_out, name)
            if share is not None:
                epochs, shares = lines.setdefault(name, ([], []))
                epochs.append(number)
                shares.append(100 * share)
    return lines


def write_history_figure(rows: Sequence[EpochRow], title: str, path: Path) -> Path | None:
    """Draws a history into an SVG file, and returns its path; None if there is nothing to draw.

    Args:
        rows: The history.
        title: The cell's name.
        path: The file.
    """
    if not rows:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    lines = curves(rows)
    with matplotlib.rc_context(style(title, FILE_INK)):
        figure = Figure(figsize=(7.2, 5.6 if lines else 3.0), layout="constrained")
        upper = figure.add_subplot(2 if lines else 1, 1, 1)
        _draw_loss(upper, rows)
        upper.set_title(literal(title), fontsize=10)
        if lines:
            lower = figure.add_subplot(2, 1, 2, sharex=upper)
            for colour, (name, (epochs, shares)) in zip(COLOURS, lines.items(), strict=False):
                lower.plot(epochs, shares, color=colour, marker="o", markersize=3, linewidth=1.2, label=_CURVES[name])
            images = max(row.held_out.images for row in rows if row.held_out is not None)
            lower.set_ylabel(f"% of {images} held-out images")
            lower.set_ylim(bottom=0)
            lower.legend(frameon=False, fontsize=8)
        (lower if lines else upper).set_xlabel("epoch, over all stages")
        with replacing(path) as scratch:
            figure.savefig(scratch, format="svg", facecolor="white", metadata={"Date": None})
    return path


def _draw_loss(axes: Axes, rows: Sequence[EpochRow]) -> None:
    """Draws the loss, the radius beside it, and where stages begin."""
    epochs = range(1, len(rows) + 1)
    axes.plot(epochs, [row.loss for row in rows], color=COLOURS[0], linewidth=1.2)
    axes.set_ylabel("loss, mean of an epoch")
    radius = axes.twinx()
    radius.plot(epochs, [255 * row.eps for row in rows], color=COLOURS[1], linewidth=0.8, linestyle="--")
    radius.set_ylabel("radius × 255, dashed")
    radius.set_ylim(bottom=0)
    for name, first, _ in stretches(rows):
        axes.axvline(first - 0.5, color="#7f7f7f", linewidth=0.6, linestyle=":")
        axes.annotate(
            literal(name), (first - 0.3, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top", color="#555555"
        )
