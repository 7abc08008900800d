"""The figures of a timing run: seconds against sparsity, the factors of each speed-up, and cactus plots."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecert.bench.report.canvas import COLOURS, FILE_INK, PAGE_INK, page_svg, saver, style
from prunecert.bench.report.labels import literal
from prunecert.bench.schema.timing import COMPACT, FILLED, MASKED
from prunecert.models import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Group = Mapping[str, Any]
_LOOKS = {FILLED: (":", "^"), MASKED: ("--", "s"), COMPACT: ("-", "o")}
_WORDS = {
    FILLED: "zeros filled (control)",
    MASKED: "masked",
    COMPACT: "dead units removed",
    "search": "fewer unstable ReLUs and domains",
    "arithmetic": "zeros skipped",
    "shapes": "smaller shapes",
}
_FACTORS = {"search": COLOURS[0], "arithmetic": COLOURS[1], "shapes": COLOURS[2]}
_WHOLE = "in all, with 95 % interval"


def _lines(group: Group, verifier: Mapping[str, Any]) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """Yields pruner, variant and the points (sparsity, median seconds), each line from the dense network on."""
    networks = {network["name"]: network for network in group["networks"]}
    rows = [(networks[row["network"]], row) for row in verifier["networks"]]
    dense = {network["variant"]: row["median_s"] for network, row in rows if network["pruner"] == DENSE}
    pruners = dict.fromkeys(network["pruner"] for network, _ in rows if network["pruner"] != DENSE) or [DENSE]
    for pruner in pruners:
        for variant in _LOOKS:
            points = [
                (network["sparsity"], row["median_s"])
                for network, row in rows
                if network["pruner"] == pruner and network["variant"] == variant
            ]
            if points and pruner != DENSE and dense:
                points.append((0.0, dense.get(variant, dense.get(MASKED, points[0][1]))))
            if points:
                yield pruner, variant, sorted(points)


def _sparsity_axis(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xticks(range(len(values)))
    axes.set_xticklabels([f"{100 * value:.3g}" for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)


def _sparsities(group: Group) -> list[float]:
    return sorted({round(network["sparsity"], 3) for network in group["networks"]})


def _seconds(axes: Axes, group: Group, verifier: Mapping[str, Any]) -> None:
    values = _sparsities(group)
    pruners = list(dict.fromkeys(network["pruner"] for network in group["networks"] if network["pruner"] != DENSE))
    for pruner, variant, points in _lines(group, verifier):
        style, marker = _LOOKS[variant]
        name = _WORDS[variant] if len(pruners) < 2 else f"{pruner}, {_WORDS[variant]}"
        axes.plot(
            [values.index(round(sparsity, 3)) for sparsity, _ in points],
            [1e3 * seconds for _, seconds in points],
            linestyle=style,
            marker=marker,
            markersize=4,
            color=COLOURS[pruners.index(pruner) % len(COLOURS) if pruner in pruners else 0],
            label=literal(name),
        )
    axes.set_yscale("log")
    _plain_log(axes)
    _sparsity_axis(axes, values)


def _plain_log(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _bars(axes: Axes, group: Group, verifier: Mapping[str, Any]) -> None:
    statistic = "mean" if verifier["mean_is"] == "par2" else "median"
    rows = [row for row in verifier["factors"] if row["pruner"] != DENSE and row[statistic]["units"]]
    for place, row in enumerate(rows):
        ratios, up, down = row[statistic], 0.0, 0.0
        for name, colour in _FACTORS.items():
            if name not in ratios:
                continue
            height = -math.log10(ratios[name]["ratio"])
            bottom = up if height > 0 else down
            axes.bar(place, height, bottom=bottom, width=0.62, color=colour, label=_WORDS[name], linewidth=0)
            up, down = (up + height, down) if height > 0 else (up, down + height)
        whole = ratios["whole"]
        middle = -math.log10(whole["ratio"])
        low, high = (middle if whole[key] is None else -math.log10(whole[key]) for key in ("high", "low"))
        axes.errorbar(
            place,
            middle,
            yerr=[[max(0.0, middle - low)], [max(0.0, high - middle)]],
            fmt="D",
            markersize=4,
            color=axes.xaxis.label.get_color(),
            capsize=2.5,
            label=_WHOLE,
        )
    axes.axhline(0, color=axes.xaxis.label.get_color(), linewidth=0.8)
    pruners = {row["pruner"] for row in rows}
    # Names of pruners are longer than a bar is wide.
    under = {pruner: "\n" + pruner.replace("-", "-\n") if len(pruners) > 1 else "" for pruner in pruners}
    names = [f"{100 * row['sparsity']:.3g}{under[row['pruner']]}" for row in rows]
    axes.set_xticks(range(len(rows)))
    axes.set_xticklabels(names, fontsize=8)
    axes.set_xlim(-0.6, max(1, len(rows)) - 0.4)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -math.log10(1.5)), max(high, math.log10(2.2)))
    _speedup_axis(axes)
    axes.set_title(axes.get_title() + (", PAR2" if statistic == "mean" else ""), fontsize=10)


def _speedup_axis(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    low, high = axes.get_ylim()
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    ticks = [math.log10(step) for step in steps if low <= math.log10(step) <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{10**value:.3g}×"))


def _cactus(axes: Axes, group: Group, verifier: Mapping[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    networks = {network["name"]: network for network in group["networks"]}
    written: dict[tuple[str, float], dict[str, Any]] = {}
    for row in verifier["networks"]:
        network = networks[row["network"]]
        written.setdefault((network["pruner"], network["compression"]), {})[network["variant"]] = row
    for number, ((pruner, compression), rows) in enumerate(sorted(written.items(), key=lambda item: item[0][1])):
        row = rows.get(COMPACT, rows.get(MASKED))
        if row is None:
            continue
        times = row["cactus_s"]
        axes.step(
            [*times, 1e9],
            [*range(1, len(times) + 1), len(times)],
            where="post",
            color=COLOURS[number % len(COLOURS)],
            linestyle="-" if number < len(COLOURS) else "--",
            label=DENSE if pruner == DENSE else literal(f"{pruner} {compression:g}×"),
        )
    axes.set_xscale("log")
    axes.set_ylim(0, 1.05 * max(row["images"] for row in verifier["networks"]))
    all_times = [time for each in group["verifiers"] for row in each["networks"] for time in row["cactus_s"]] or [0.1]
    axes.set_xlim(min(all_times) / 1.5, max(max(all_times), 10 * min(all_times)) * 1.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


#: By name: caption, what draws a panel, label of the vertical axis, label of the horizontal one.
FIGURES: Mapping[str, tuple[str, Callable[[Axes, Group, Mapping[str, Any]], None], str, str]] = {
    "seconds": (
        "Milliseconds an image (median) against sparsity, on the same images",
        _seconds,
        "ms an image",
        "sparsity, %",
    ),
    "factors": (
        "Speed-up against the dense network and its factors, which multiply to it; below 1× is slower",
        _bars,
        "times faster",
        "sparsity, %",
    ),
    "cactus": (
        "Images decided within a time, compact networks",
        _cactus,
        "images decided",
        "seconds",
    ),
}


def _draw(group: Group, name: str, ink: str, save: Callable[[Figure], None]) -> None:
    """Draws a group's figure, one panel a verifier, and hands it to `save`."""
    import matplotlib
    from matplotlib.figure import Figure

    _, panel, vertical, horizontal = FIGURES[name]
    verifiers = group["verifiers"]
    columns = min(3 if len(verifiers) <= 6 else 4, len(verifiers))
    lines = -(-len(verifiers) // columns)
    with matplotlib.rc_context(style(name, ink)):
        figure = Figure(figsize=(max(4.6, 3.5 * columns), 2.5 * lines + 0.9), layout="constrained")
        # Milliseconds are to be compared between verifiers, too.
        axes = figure.subplots(lines, columns, squeeze=False, sharey=name == "seconds", sharex=name == "cactus")
        for number, (place, verifier) in enumerate(zip(axes.flat, verifiers, strict=False)):
            place.set_title(literal(verifier["verifier"]), fontsize=10)
            place.grid(visible=True, axis="y", color=ink, alpha=0.12, linewidth=0.6)
            panel(place, group, verifier)
            if number % columns == 0:
                place.set_ylabel(vertical)
            if number + columns >= len(verifiers):
                place.set_xlabel(horizontal)
                place.tick_params(labelbottom=True)
        for place in list(axes.flat)[len(verifiers) :]:
            place.set_visible(False)
        handles: dict[str, Any] = {}
        for place in axes.flat:
            for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.suptitle(literal(group["name"]), fontsize=11)
        order = [*_WORDS.values(), _WHOLE]
        labels = sorted(handles, key=lambda label: order.index(label) if label in order else -1)
        figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=4, frameon=False)
        save(figure)


def inline_svg(group: Group, name: str) -> str:
    """Returns a figure as SVG text for an HTML page, in the page's own text colour."""
    drawn: list[str] = []
    _draw(group, name, PAGE_INK, lambda figure: drawn.append(page_svg(figure, FIGURES[name][0])))
    return drawn[0]


def slug(group: Group) -> str:
    """Returns a group's name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", str(group["name"]).lower().replace("ε", "eps")).strip("-")


def save(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of all groups as PNG and SVG and returns their paths."""
    paths: list[Path] = []
    for group in summary["groups"]:
        for name in FIGURES if group["verifiers"] else ():
            _draw(group, name, FILE_INK, saver(paths, folder, f"{name}-{slug(group)}"))
    return paths
