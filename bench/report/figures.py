"""The figures of a run: what is kept, verified accuracy against compression, time against sparsity, certified radii."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecert.bench.report import certificates_figure as certified
from prunecert.bench.report import headline
from prunecert.bench.report.canvas import FILE_INK, PAGE_INK, compression_axis, look, page_svg, saver, style
from prunecert.bench.report.labels import literal
from prunecert.models import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Summary = Mapping[str, Any]
Cell = Mapping[str, Any]
#: Letters of a line of a panel's title, as wide as the narrowest panel.
_TITLE = 60
CERTIFIED = "certified-radius"
KEPT = "kept-accuracy"


def _panels(summary: Summary) -> dict[str, list[Cell]]:
    """Returns the cells with images by the title of their panel: network, objective and radius."""
    panels: dict[str, list[Cell]] = defaultdict(list)
    for cell in summary["cells"]:
        if cell["images"]:
            title = f"{cell['network']}, {cell['objective']}, ε = {cell['eps']}, {headline.of_images([cell])}"
            panels[title].append(cell)
    return dict(panels)


def _panels_of(summary: Summary, name: str) -> dict[str, list[Cell]]:
    """Returns the panels of a figure by their titles; none where it would be empty."""
    if name == CERTIFIED:
        return certified.panels(summary)
    if name != KEPT:
        return _panels(summary)
    compared = headline.compared(summary)
    return {headline.of_images(compared): [cell for cell in summary["cells"] if cell["images"]]} if compared else {}


def _lines(cells: list[Cell]) -> dict[tuple[str, int], list[Cell]]:
    """Returns the cells of a panel by pruner and seed, by rising compression; each begins at the dense control."""
    dense = {cell["seed"]: cell for cell in cells if cell["pruner"] == DENSE}
    lines: dict[tuple[str, int], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell["pruner"] != DENSE:
            lines[cell["pruner"], cell["seed"]].append(cell)
    for (_, seed), line in lines.items():
        line.sort(key=lambda cell: float(cell["compression"]))
        if seed in dense:
            line.insert(0, dense[seed])
    return dict(lines) or {(DENSE, seed): [cell] for seed, cell in dense.items()}


def _draw(summary: Summary, name: str, ink: str, save: Callable[[Figure], None]) -> bool:
    """Draws one panel a network, objective and radius and hands the figure to `save`.

    Matplotlib looks up some of its style only when it saves, so both happen under the same style.

    Returns:
        Whether there was anything to draw.
    """
    import matplotlib
    from matplotlib.figure import Figure

    panel = FIGURES[name][1]
    panels = _panels_of(summary, name)
    if not panels:
        return False
    names = sorted({cell["pruner"] for cells in panels.values() for cell in cells})
    names = [name for name in names if name != DENSE] or names
    looks = {name: look(place) for place, name in enumerate(names)}
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    with matplotlib.rc_context(style(name, ink)):
        width = 7.5 if name == KEPT else 5.2 * columns
        figure = Figure(figsize=(width, 3.6 * lines + 0.5), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False)
        for place, (title, cells) in zip(axes.flat, panels.items(), strict=False):
            place.set_title(literal(textwrap.fill(title, _TITLE, break_long_words=False)), fontsize=10)
            place.grid(visible=True, color=ink, alpha=0.12, linewidth=0.6)
            panel(place, cells, looks)
        for place in list(axes.flat)[len(panels) :]:
            place.set_visible(False)
        shown: dict[str, Any] = {}
        for place in axes.flat[: len(panels)]:
            for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
                # The first of each name: the seed that is drawn in full.
                shown.setdefault(label, handle)
        figure.legend(
            shown.values(),
            shown,
            loc="outside upper center",
            ncols=max(1, min(3, len(shown))),
            frameon=False,
            fontsize=9,
        )
        save(figure)
    return True


def _accuracy(axes: Axes, cells: list[Cell], looks: Mapping[str, tuple[str, str]]) -> None:
    lines = _lines(cells)
    count = len(lines)
    for number, ((pruner, seed), line) in enumerate(lines.items()):
        colour, marker = looks.get(pruner, look(0))
        pale = _pale(lines, pruner, seed)
        # Pruners share their ratios; a small shift keeps their error bars apart.
        x = [float(cell["compression"]) * 1.03 ** (number - (count - 1) / 2) for cell in line]
        verified = [100 * cell["verified"]["value"] for cell in line]
        attacked = [100 * cell["attacked"]["value"] for cell in line]
        bars = [
            [v - 100 * cell["verified"]["low"] for v, cell in zip(verified, line, strict=True)],
            [100 * cell["verified"]["high"] - v for v, cell in zip(verified, line, strict=True)],
        ]
        axes.fill_between(x, verified, attacked, color=colour, alpha=0.15, linewidth=0)
        axes.errorbar(
            x,
            verified,
            yerr=bars,
            color=colour,
            marker=marker,
            markersize=5,
            capsize=2,
            alpha=pale,
            label=literal(f"{pruner}: verified"),
        )
        axes.plot(
            x,
            attacked,
            color=colour,
            linestyle="--",
            linewidth=1,
            alpha=pale,
            label=literal(f"{pruner}: under attack (upper bound)"),
        )
    compression_axis(axes, cells)
    axes.set_ylabel("accuracy, % of images")
    axes.set_ylim(bottom=0)


def _pale(lines: Mapping[tuple[str, int], list[Cell]], pruner: str, seed: int) -> float:
    """Returns the opacity of a line: all seeds of a pruner but the first stand back."""
    return 1.0 if seed == min(other for name, other in lines if name == pruner) else 0.4


def _time(axes: Axes, cells: list[Cell], looks: Mapping[str, tuple[str, str]]) -> None:
    lines = _lines(cells)
    for (pruner, seed), line in lines.items():
        pale = _pale(lines, pruner, seed)
        colour, marker = looks.get(pruner, look(0))
        timed = [cell for cell in line if cell["time"]["median_s"]]
        x = [100 * cell["sparsity"] for cell in timed]
        axes.plot(
            x,
            [cell["time"]["median_s"] for cell in timed],
            color=colour,
            marker=marker,
            markersize=5,
            alpha=pale,
            label=literal(f"{pruner}: median"),
        )
        axes.plot(
            x,
            [cell["time"]["p90_s"] for cell in timed],
            color=colour,
            marker=marker,
            markersize=3,
            linestyle=":",
            linewidth=1,
            alpha=pale,
            label=literal(f"{pruner}: 90th percentile"),
        )
    if any(cell["time"]["median_s"] for cell in cells):
        axes.set_yscale("log")
    axes.set_xlabel("sparsity, % of prunable weights")
    axes.set_ylabel("seconds an image")


FIGURES: Mapping[str, tuple[str, Callable[[Axes, list[Cell], Mapping[str, tuple[str, str]]], None]]] = {
    KEPT: (headline.CAPTION, headline.draw),
    "verified-accuracy": (
        "Verified accuracy against compression; the shaded band reaches up to the robust accuracy under "
        "attack, bars are 95 % Wilson intervals",
        _accuracy,
    ),
    "time": ("Seconds a correctly classified image (all verifiers up to the deciding one) against sparsity", _time),
    CERTIFIED: (certified.CAPTION, certified.draw),
}


def caption(summary: Summary, name: str) -> str:
    """Returns what a figure's caption says, with the number of images, and a warning where they are few."""
    text = FIGURES[name][0]
    cells = headline.compared(summary) if name == KEPT else [cell for cell in summary["cells"] if cell["images"]]
    images = "" if name == CERTIFIED else headline.of_images(cells)
    return f"{text}; {images}" if images else text


def inline_svg(summary: Summary, name: str) -> str | None:
    """Returns a figure as SVG text for an HTML page, in the page's own text colour; None without cells."""
    words = caption(summary, name)
    drawn: list[str] = []
    _draw(summary, name, PAGE_INK, lambda figure: drawn.append(page_svg(figure, words)))
    return drawn[0] if drawn else None


def figure(summary: Summary, name: str) -> Figure | None:
    """Returns a figure as an object, in black on white; None without cells."""
    drawn: list[Figure] = []
    _draw(summary, name, FILE_INK, drawn.append)
    return drawn[0] if drawn else None


def save(summary: Summary, folder: Path) -> list[Path]:
    """Writes the figures as PNG and SVG and returns their paths."""
    paths: list[Path] = []
    for name in FIGURES:
        _draw(summary, name, FILE_INK, saver(paths, folder, name))
    return paths
