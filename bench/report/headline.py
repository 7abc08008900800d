"""The figure that a report opens with: what pruning keeps of the verified accuracy, against compression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecert.bench.report.canvas import compression_axis, look
from prunecert.bench.report.labels import literal
from prunecert.bench.report.screen import FEW_IMAGES, control
from prunecert.bench.results.ratios import unpaired_ratio
from prunecert.models import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Summary = Mapping[str, Any]
Cell = Mapping[str, Any]
CAPTION = (
    "Verified accuracy kept of the dense network's, against compression: a line for each network and objective, at "
    "each compression the pruner that keeps most on these images (the mean of its seeds), with 95 % intervals that "
    "take pruned and dense network for independent"
)


@dataclass(frozen=True)
class Point:
    """What the best pruner keeps at a compression.

    Args:
        compression: All prunable weights over those that are kept.
        kept: Share of the dense network's verified accuracy.
        low: Lower end of its 95 % interval.
        high: Upper end.
        pruner: Which pruner it is.
        seeds: Of how many seeds it is the mean.
    """

    compression: float
    kept: float
    low: float
    high: float
    pruner: str
    seeds: int


def of_images(cells: Sequence[Cell]) -> str:
    """Returns ``n = 1,000 images``, with a warning where they are few; nothing without cells."""
    counts = sorted({int(cell["images"]) for cell in cells})
    if not counts:
        return ""
    few = f"; below {FEW_IMAGES} images, mind the intervals" if counts[0] < FEW_IMAGES else ""
    return f"n = {' or '.join(f'{count:,}' for count in counts)} images{few}"


def compared(summary: Summary) -> list[Cell]:
    """Returns the pruned cells whose dense control has verified images."""
    return [cell for cell in summary["cells"] if (dense := control(summary, cell)) and dense["verified"]["k"]]


def lines(summary: Summary) -> dict[str, list[Point]]:
    """Returns a line for each network, objective and radius, by rising compression; those with a pruned network alone.

    Args:
        summary: A run's summary.
    """
    cells = compared(summary)
    radii = len({cell["eps"] for cell in cells})
    grouped: dict[str, dict[float, dict[str, list[Cell]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell in cells:
        name = f"{cell['network']}, {cell['objective']}" + (f", ε = {cell['eps']}" if radii > 1 else "")
        grouped[name][float(cell["compression"])][cell["pruner"]].append(cell)
    return {
        name: [
            max((_point(summary, ratio, pruner, of) for pruner, of in by.items()), key=lambda point: point.kept)
            for ratio, by in sorted(ratios.items())
        ]
        for name, ratios in grouped.items()
    }


def _point(summary: Summary, ratio: float, pruner: str, cells: Sequence[Cell]) -> Point:
    """Returns the mean over the seeds on most images; its interval is one network's with that mean: no narrower."""
    n = max(cell["images"] for cell in cells)
    cells = [cell for cell in cells if cell["images"] == n]
    pairs = [(cell["verified"]["k"], dense["verified"]["k"]) for cell in cells if (dense := control(summary, cell))]
    k, base = (round(sum(side) / len(side)) for side in zip(*pairs, strict=True))
    kept, low, high = unpaired_ratio(k, max(1, base), n)
    return Point(ratio, kept, low, high, pruner, len(pairs))


def draw(axes: Axes, cells: Sequence[Cell], looks: Mapping[str, tuple[str, str]]) -> None:
    """Draws the lines on one panel.

    Args:
        axes: Where.
        cells: All cells with images, dense ones among them.
        looks: Not used: lines are no pruners.
    """
    shown = lines({"cells": cells})
    for place, (name, points) in enumerate(shown.items()):
        # Networks share their ratios; a small shift keeps their intervals apart.
        x = [point.compression * 1.04 ** (place - (len(shown) - 1) / 2) for point in points]
        kept = [100 * point.kept for point in points]
        bars = [
            [100 * (point.kept - point.low) for point in points],
            [100 * (point.high - point.kept) for point in points],
        ]
        colour, marker = look(place)
        # Every line begins at its dense network, which keeps all.
        axes.plot([1.0, x[0]], [100.0, kept[0]], color=colour, linewidth=1, linestyle=":")
        axes.errorbar(x, kept, yerr=bars, color=colour, marker=marker, markersize=5, capsize=2, label=literal(name))
    axes.axhline(100, color="gray", linewidth=0.8, alpha=0.5)
    compression_axis(axes, [cell for cell in cells if cell["pruner"] == DENSE or control({"cells": cells}, cell)])
    axes.set_ylabel("verified accuracy kept, %")
