"""The figures of the site; each is drawn for a family of entries, with the page's own entry pointed out.

Shares are of as many images as the rows show, which are the same for all rows of a figure; what is known image by image
(cactus plot, what decided) is of the entries' own images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from prunecert.bench.report.screen import FEW_IMAGES
from prunecert.bench.site.svg import Plot, horizontal, number, vertical, wrap
from prunecert.bench.site.view import Row
from prunecert.models import DENSE
from prunecert.verifiers.base import Kind

_COLOURS = 8
_CURVES = 7
_BARS = 12
#: Shades of what verified and of what broke an image.
_VERIFIED, _BROKEN = 6, 3


@dataclass(frozen=True)
class Figure:
    """A figure with its words.

    Args:
        title: Heading.
        caption: What is seen, in a sentence or two.
        svg: The drawing.
        legend: Pairs (class of the colour, name).
    """

    title: str
    caption: str
    svg: Markup
    legend: tuple[tuple[str, str], ...]


def series(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """Groups a family by pruner, submitter and seed, each by rising compression and begun at its dense control.

    Returns:
        Triples (colour's class, name, rows). Seeds of one pruner and submitter share colour and name; from the ninth
        name on the colour is that of the rest.
    """
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.cell["pruner"], row.entry["by"], row.cell["seed"]].append(row)
    submitters = {by for _, by, _ in groups}
    lines = []
    colours: dict[str, int] = {}
    for key in sorted(groups, key=lambda key: (key[0] == DENSE, *key)):
        pruner, by, seed = key
        if pruner == DENSE and any((p, by, seed) in groups for p, _, _ in groups if p != DENSE):
            continue
        line = sorted(groups[key], key=lambda row: row.compression)
        if pruner != DENSE:
            line = sorted(groups.get((DENSE, by, seed), []), key=lambda row: row.name)[:1] + line
        name = pruner if len(submitters) == 1 else f"{pruner} ({by or 'anonymous'})"
        place = colours.setdefault(name, len(colours))
        lines.append((f"s{place}" if place < _COLOURS else "rest", name, line))
    return lines


def _legend(groups: Sequence[tuple[str, str, list[Row]]]) -> tuple[tuple[str, str], ...]:
    names = dict.fromkeys((kind, name) for kind, name, _ in groups)
    shown = [(kind, name) for kind, name in names if kind != "rest"]
    rest = len(names) - len(shown)
    return (*shown, *([("rest", f"{rest} more")] if rest else []))


def _name(rows: Sequence[Row]) -> str:
    network, objective, eps = rows[0].family
    return f"{network}, {objective}, ε = {eps}"


def of_images(rows: Sequence[Row]) -> str:
    """Returns ``n = 1,000 images``, with a warning where they are few."""
    counts = sorted({row.images for row in rows})
    few = "; below 50, mind the intervals" if counts[0] < FEW_IMAGES else ""
    return f"n = {' or '.join(f'{count:,}' for count in counts)} images{few}"


def accuracy(rows: Sequence[Row], own: Row | None = None) -> Figure | None:
    """Verified accuracy against compression, with Wilson intervals; the accuracy under attack is dashed.

    Of the rows those on as many images as `own`, or as the first.
    """
    rows = [row for row in rows if row.images == (own or rows[0]).images]
    groups = series(rows)
    highest = max(row.result["attacked"]["high"] for row in rows)
    ratios = [row.compression for row in rows]
    ticks = sorted({float(f"{ratio:.2g}") for ratio in ratios})
    step = max(1.02, (max(ratios) / min(ratios)) ** 0.016)
    names = list(dict.fromkeys(name for _, name, _ in groups))[:_COLOURS]
    room = step ** (len(names) / 2 + 1)
    plot = Plot(
        f"Verified accuracy against compression: {_name(rows)}",
        horizontal([*ratios, min(ratios) / room, max(ratios) * room], log=True),
        vertical([100 * highest], zero=True),
        "compression",
        "accuracy, % of images",
        x_ticks=ticks,
        x_unit="×",
    )
    for kind, name, line in groups:
        # Pruners share their ratios; a small shift keeps their intervals apart.
        place = names.index(name) if name in names else _COLOURS
        shift = step ** (place - (len(names) - 1) / 2)
        verified = [row for row in line if row.can_verify]
        shares = [(row.compression * shift, row.result["verified"]) for row in verified]
        plot.bars([(x, 100 * share["low"], 100 * share["high"]) for x, share in shares], kind)
        plot.line([(row.compression * shift, 100 * row.result["attacked"]["value"]) for row in line], kind, dashed=True)
        points = [(x, 100 * share["value"]) for x, share in shares]
        plot.line(points, kind)
        plot.dots(points, kind)
        if own in verified:
            plot.ring(points[verified.index(own)])
    return Figure(
        "Verified accuracy against compression",
        f"Dots: verified accuracy with 95 % Wilson intervals, {of_images(rows)}. Dashed: robust accuracy under attack, "
        "its upper bound.",
        plot.svg(),
        _legend(groups),
    )


def _against_sparsity(
    rows: Sequence[Row], own: Row | None, value: Callable[[Row], float | None], label: str, y_label: str, log: bool
) -> tuple[Markup, tuple[tuple[str, str], ...]] | None:
    shown = [row for row in rows if (value(row) or 0) > 0 or (not log and value(row) is not None)]
    if not shown:
        return None
    groups = [(kind, name, [row for row in line if row in shown]) for kind, name, line in series(rows)]
    groups = [group for group in groups if group[2]]
    values = [v for row in shown if (v := value(row)) is not None]
    plot = Plot(
        f"{label}: {_name(rows)}",
        horizontal([0.0, 100.0]),
        vertical(values, log=log, zero=not log),
        "sparsity, % of prunable weights",
        y_label,
    )
    for kind, _, line in groups:
        points = [(100 * row.sparsity, v) for row in line if (v := value(row)) is not None]
        plot.line(points, kind)
        plot.dots(points, kind)
    if own in shown and own is not None and (v := value(own)) is not None:
        plot.ring((100 * own.sparsity, v))
    return plot.svg(), _legend(groups)


def time(rows: Sequence[Row], own: Row | None = None) -> Figure | None:
    """Median seconds an image against sparsity, of the entries that were timed on one machine."""
    same = [row for row in rows if own is None or row.machine == own.machine]
    title = "Verification time against sparsity"
    drawn = _against_sparsity(same, own, lambda row: row.result["time"]["median_s"], title, "seconds an image", True)
    return drawn and Figure(
        title,
        "Median over the correctly classified images; all verifiers up to the deciding one, without start-up. Only "
        f"entries from the same processor, devices and number of workers; {of_images(same)}.",
        *drawn,
    )


def unstable(rows: Sequence[Row], own: Row | None = None) -> Figure | None:
    """Unstable ReLUs against sparsity, as one verifier counts them."""
    subjects = [own] if own is not None and own.unstable else rows
    names = Counter(name for row in rows for name in row.unstable if any(name in other.unstable for other in subjects))
    if not names:
        return None
    verifier = max(sorted(names), key=lambda name: names[name])
    title = "Unstable ReLUs against sparsity"
    drawn = _against_sparsity(rows, own, lambda row: row.unstable.get(verifier), title, "unstable ReLUs", False)
    return drawn and Figure(
        title, f"Median an image, as the bounds of {verifier} leave them, of the entries' own images.", *drawn
    )


def cactus(rows: Sequence[Row], own: Row | None = None) -> Figure | None:
    """Images decided within a time, by entry: its own curve, the dense control's, and the nearest others."""
    same = [row for row in rows if own is None or row.own_machine == own.own_machine]
    if own is not None:
        same.sort(key=lambda row: (row is not own, row is not own.dense, abs(row.sparsity - own.sparsity), row.name))
    curves = []
    for row in same[:_CURVES]:
        times = sorted(max(o.seconds, 1e-5) for o in row.outcomes if o.result in ("unsat", "sat"))
        if times:
            curves.append((row, times))
    if not curves:
        return None
    title = "Cactus plot"
    plot = Plot(
        f"{title}: {_name(rows)}",
        horizontal([0.0, float(max(len(times) for _, times in curves))], zero=True),
        vertical([t for _, times in curves for t in (times[0], times[-1])], log=True),
        "images decided",
        "within seconds each",
    )
    legend = []
    for place, (row, times) in enumerate(curves):
        kind = "ownline" if row is own else f"s{place}"
        plot.line([(i, t) for i, t in enumerate(times, start=1)], kind)
        plot.dots([(float(len(times)), times[-1])], kind)
        legend.append((kind, f"{row.cell['pruner']} {row.compression:.3g}×" + (" (this entry)" if row is own else "")))
    return Figure(
        title,
        "Further right is more decided, lower is faster. At most seven entries, those nearest in sparsity, from the "
        "same machine.",
        plot.svg(),
        tuple(legend),
    )


def decided(rows: Sequence[Row], own: Row | None = None) -> Figure | None:
    """What decided the images, entry by entry, as stacked bars."""
    shown = sorted(rows, key=lambda row: (row is not own, 0 if own is None else abs(row.sparsity - own.sparsity)))
    shown = sorted(shown[:_BARS], key=lambda row: (row.compression, row.cell["pruner"], row.name))
    verifiers = list(dict.fromkeys(v for row in shown for v in row.verifiers))
    proving = [v for v in verifiers if any(_kind(row, v) != Kind.ATTACK for row in shown)]
    breaking = [v for v in verifiers if any(_kind(row, v) != Kind.INCOMPLETE for row in shown)]
    kinds = [("unsat", v, f"v{i % _VERIFIED}", f"verified by {v}") for i, v in enumerate(proving)]
    kinds += [("undecided", "", "undecided", "undecided")]
    kinds += [("sat", v, f"b{i % _BROKEN}", f"broken by {v}") for i, v in enumerate(breaking)]
    kinds += [("misclassified", "", "wrong", "misclassified")]
    parts, used = [], set()
    height, left, width = 26, 130, 560
    for place, row in enumerate(shown):
        y = 4 + place * height
        name = f"{row.cell['pruner']} {row.compression:.3g}×"
        name = name if len(name) <= 18 else f"{name[:11]}… {row.compression:.3g}×"
        weight = ' class="strong end"' if row is own else ' class="end"'
        parts.append(f'<text x="{left - 8}" y="{y + 10}" dy=".35em"{weight}>{escape(name)}</text>')
        counts = Counter(
            (o.result if o.result in ("unsat", "sat", "misclassified") else "undecided", o.by) for o in row.outcomes
        )
        x = float(left)
        for result, by, kind, words in kinds:
            count = counts[result, by]
            if not count:
                continue
            used.add(words)
            wide = count / row.own_images * (width - left - 4)
            parts.append(
                f'<rect class="fill {kind}" x="{number(x)}" y="{y}" width="{number(wide)}" height="20">'
                f"<title>{escape(words)}: {count} of {row.own_images}</title></rect>"
            )
            if wide > 24:
                faint = " faint" if kind in ("undecided", "wrong") else ""
                at = number(x + wide / 2)
                parts.append(f'<text class="inside mid{faint}" x="{at}" y="{y + 10}" dy=".35em">{count}</text>')
            x += wide
    return Figure(
        "What decided",
        "Images by the verifier that decided them; the number of images stands in each part. Of the images whose "
        f"answers are in the entries: {' or '.join(map(str, sorted({row.own_images for row in shown})))}.",
        wrap(f"What decided the images: {_name(rows)}", width, 8 + height * len(shown), parts),
        tuple((f"fill {kind}", words) for _, _, kind, words in kinds if words in used),
    )


def _kind(row: Row, verifier: str) -> str:
    return next((s["kind"] for s in row.entry["protocol"]["stages"] if s["verifier"] == verifier), "")


def of_entry(row: Row, family: Sequence[Row]) -> list[Figure]:
    """Returns all figures of an entry's page."""
    return [figure for draw in (accuracy, time, cactus, unstable, decided) if (figure := draw(family, row)) is not None]
