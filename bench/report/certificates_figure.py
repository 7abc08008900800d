"""Certified accuracy against the l2 radius, a curve a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunecert.bench.report.labels import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cell = Mapping[str, Any]
CAPTION = (
    "Certified accuracy of the smoothed classifiers against the l2 radius (randomized smoothing; each image's "
    "certificate holds with probability 1 − α); dotted: the largest radius that so many samples can show"
)
_STYLES = ("-", "--", "-.", ":")


def panels(summary: Mapping[str, Any]) -> dict[str, list[Cell]]:
    """Returns the certified cells by the title of their panel."""
    cells_by_title: dict[str, list[Cell]] = defaultdict(list)
    for cell in summary["certificates"]:
        if cell["images"]:
            title = f"{cell['network']}, {cell['objective']}, σ = {cell['sigma']:g}, n = {cell['n']:,}"
            cells_by_title[title].append(cell)
    return dict(cells_by_title)


def curve(cell: Cell) -> tuple[list[float], list[float]]:
    """Returns the corners of a cell's curve: radii, and the per cent of images certified up to there.

    Between two radii the later one's value holds, as with ``steps-pre``.
    """
    radii, n = sorted(cell["radii"]), cell["images"]
    count = len(radii)
    x = [0.0, *radii, *radii[-1:]]
    y = [100 * k / n for k in [count, *range(count, 0, -1), *([0] if radii else [])]]
    return x, y


def draw(axes: Axes, cells: list[Cell], looks: Mapping[str, tuple[str, str]]) -> None:
    """Draws one panel; colours tell pruners, line styles ratios."""
    ratios = sorted({float(cell["compression"]) for cell in cells if cell["compression"] > 1})
    for cell in cells:
        x, y = curve(cell)
        dense = cell["compression"] == 1
        colour = "#7f7f7f" if dense and cell["pruner"] not in looks else looks[cell["pruner"]][0]
        style = "-" if dense else _STYLES[ratios.index(float(cell["compression"])) % len(_STYLES)]
        label = cell["pruner"] if dense else f"{cell['pruner']} {cell['compression']:g}×"
        axes.plot(x, y, drawstyle="steps-pre", color=colour, linestyle=style, linewidth=1.5, label=literal(label))
    for reach in sorted({cell["largest_radius"] for cell in cells}):
        axes.axvline(reach, color="#7f7f7f", linestyle=":", linewidth=0.8)
    axes.set_xlabel("l2 radius, pixels in [0, 1]")
    axes.set_ylabel("certified accuracy, % of images")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
