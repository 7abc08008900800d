"""A run's table on a screen of 80 or 120 columns: what is asked first; the files have all columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunecert.bench.report.medium import Table
from prunecert.bench.schema.own import OWN, PRUNED
from prunecert.models import DENSE, FULL_BITS

Summary = Mapping[str, Any]
Cell = Mapping[str, Any]
#: Screens from this width on have the wide columns, too.
WIDE = 118
#: Characters of a wide table beside its last column.
_BESIDE = 88
#: Below so many images the interval says more than the share.
FEW_IMAGES = 50
_COLUMNS = (
    ("pruner", False),
    ("seed", True),
    ("×", True),
    ("clean %", True),
    ("verified %", True),
    ("kept %", True),
    ("attack %", True),
    ("open", True),
)
_WIDE_COLUMNS = (("s", True), ("verified by", False))


def control(summary: Summary, cell: Cell) -> Cell | None:
    """Returns the dense network of a pruned one's network, objective, radius and seed; None if it isn't there.

    Its images must be as many and of the same split. Of a network of rounded weights it is the one in float32.
    """
    keys = ("objective", "eps", "seed", "split", "images", "data_fingerprint")
    network = _in_full(cell)
    if cell["pruner"] == DENSE and cell["network"] == network:
        return None
    return next(
        (
            one
            for one in summary["cells"]
            if one["pruner"] == DENSE and one["network"] == network and all(one[key] == cell[key] for key in keys)
        ),
        None,
    )


def _in_full(cell: Cell) -> str:
    """Returns what a cell's network is called where its weights aren't rounded; see `Cell.network_label`."""
    network: str = cell["network"]
    rounded = "size" in cell and any(width != FULL_BITS for width in cell["size"]["bits"])
    return network.rpartition(" ")[0] if rounded else network


def kept(summary: Summary, cell: Cell) -> float | None:
    """Returns a pruned network's verified images over its dense one's; None where there are none."""
    dense = control(summary, cell)
    return cell["verified"]["k"] / dense["verified"]["k"] if dense is not None and dense["verified"]["k"] else None


def finding(summary: Summary) -> str:
    """Returns what the run shows, in a sentence: how much the most pruned network that keeps nine tenths keeps.

    Networks on few images are spoken of only where there are no others. Empty where none has a dense one beside it.
    """
    pruned = [cell for cell in summary["cells"] if cell["pruner"] != DENSE]
    shares = [(cell, share) for cell in pruned if (share := kept(summary, cell)) is not None]
    shares = [one for one in shares if one[0]["images"] >= FEW_IMAGES] or shares
    if not shares:
        return ""
    good = [(cell, share) for cell, share in shares if share >= 0.9]
    # The most pruned of those that keep nine tenths, else the one that keeps most.
    cell, share = (
        max(good, key=lambda one: (one[0]["measured_compression"], one[1]))
        if good
        else max(shares, key=lambda one: one[1])
    )
    dense = control(summary, cell)
    assert dense is not None
    few = f" Only {cell['images']} images: mind the intervals." if cell["images"] < FEW_IMAGES else ""
    # Nobody may have said how a network of one's own was trained and pruned.
    by = "" if cell["pruner"] == PRUNED else f" by {cell['pruner']}"
    objective = "" if cell["objective"] == OWN else f"{cell['objective']}, "
    return (
        f"Pruned to {cell['measured_compression']:.3g}×{by}, {cell['network']} ({objective}ε = {cell['eps']}) keeps "
        f"{100 * share:.0f} % of its dense network's verified accuracy: "
        f"{_percent(cell['verified'])} % of {cell['images']:,} images, dense {_percent(dense['verified'])} %.{few}"
    )


def tables(summary: Summary, width: int) -> list[tuple[str, Table]]:
    """Returns a table for each network, objective, radius and number of images, with its title.

    Args:
        summary: A run's summary.
        width: Columns of the screen.
    """
    groups: dict[str, list[list[str]]] = {}
    room = width - _BESIDE if width >= WIDE else 0
    for cell in sorted(summary["cells"], key=lambda cell: (cell["seed"], cell["compression"])):
        few = ", few: mind the intervals" if cell["images"] < FEW_IMAGES else ""
        title = f"{cell['network']}, {cell['objective']}, ε = {cell['eps']}, {cell['images']} images{few}"
        groups.setdefault(title, []).append(_row(summary, cell, room))
    columns = (*_COLUMNS, *(_WIDE_COLUMNS if room else ()))
    return [(title, Table(columns, rows)) for title, rows in groups.items()]


def _row(summary: Summary, cell: Cell, room: int) -> list[str]:
    share = kept(summary, cell)
    pending = cell["pending"] + cell["images_asked"] - cell["images"]
    open_images = f"{cell['undecided']['total']}{f' +{pending}' if pending else ''}"
    time = cell["time"]["median_s"]
    row = [
        cell["pruner"],
        str(cell["seed"]),
        f"{cell['compression']:g}",
        _percent(cell["clean"]),
        _interval(cell["verified"], 1 if room else 0),
        "" if share is None else f"{100 * share:.0f}",
        _percent(cell["attacked"]),
        open_images,
    ]
    return [*row, "–" if time is None else f"{time:.2g}", _verified_by(cell, room)] if room else row


def _verified_by(cell: Cell, room: int) -> str:
    """Returns who proved how many, most first, as many as there is room for: ``ibp 377, crown-ibp 33, +22``."""
    counts = {name: counts["unsat"] for name, counts in cell["decided_by"].items() if counts["unsat"]}
    text = ""
    for place, name in enumerate(sorted(counts, key=lambda name: -counts[name])):
        longer = f"{text}, {name} {counts[name]}" if place else f"{name} {counts[name]}"
        rest = sum(sorted(counts.values())[: len(counts) - place - 1])
        if place and len(longer) + (len(f", +{rest}") if rest else 0) > room:
            return f"{text}, +{sum(sorted(counts.values())[: len(counts) - place])}"
        text = longer
    return text or "–"


def _percent(share: Mapping[str, Any]) -> str:
    return "–" if share["value"] is None else f"{100 * share['value']:.1f}"


def _interval(share: Mapping[str, Any], digits: int) -> str:
    if share["value"] is None:
        return "–"
    return f"{_percent(share)} ({100 * share['low']:.{digits}f}–{100 * share['high']:.{digits}f})"


def legend(width: int) -> str:
    """Returns what the headings stand for of the columns that a screen of so many columns has."""
    seconds = "s: median seconds an image. " if width >= WIDE else ""
    return (
        "verified % with its 95 % interval ≤ true robust accuracy ≤ attack % (robust accuracy under attack); kept %: "
        f"of the dense network's verified accuracy; open: undecided images. {seconds}More columns are in table.md."
    )
