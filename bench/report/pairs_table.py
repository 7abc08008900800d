"""The table of pairs: over how many images' boxes a pruned network was proved to decide as another of its chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunecert.bench.report.labels import rest_of
from prunecert.bench.report.medium import Table

Summary = Mapping[str, Any]
CAPTION = "Pairs of networks: % of images over whose box the two are proved to be alike"
COLUMNS = (
    ("network", False),
    ("objective", False),
    ("ε", False),
    ("pruner", False),
    ("×", True),
    ("compared with", False),
    ("asked", False),
    ("n", True),
    ("same decision, proved %", True),
    ("different %", True),
    ("proved by", False),
    ("undecided", False),
    ("median s", True),
)


_NARROW = (
    ("pruner", False),
    ("seed", True),
    ("×", True),
    ("with", False),
    ("same, proved %", True),
    ("differ %", True),
    ("open", True),
    ("s", True),
)


def rows(summary: Summary) -> list[list[str]]:
    """Returns the table's cells as text, in the order of `COLUMNS`; nothing of runs without pairs."""
    return [_row(pair) for pair in summary.get("pairs", ())]


def _row(pair: Mapping[str, Any]) -> list[str]:
    seconds = pair["time"]["median_s"]
    return [
        pair["network"],
        pair["objective"],
        pair["eps"],
        pair["pruner"],
        f"{pair['compression']:g}",
        pair["partner"] if pair["step"] else "dense",
        pair["alike"],
        str(pair["images"]),
        _percent(pair["same"]),
        _percent(pair["different"], interval=False),
        ", ".join(f"{name} {counts['unsat']}" for name, counts in pair["decided_by"].items() if counts["unsat"]) or "–",
        _undecided(pair),
        "–" if seconds is None else f"{seconds:.3g}",
    ]


def narrow(summary: Summary) -> list[tuple[str, Table]]:
    """Returns a table for each network, objective, radius and thing asked, for 80 columns, with its title."""
    groups: dict[str, list[list[str]]] = {}
    for pair in summary.get("pairs", ()):
        title = f"{pair['network']}, {pair['objective']}, ε = {pair['eps']}, {pair['images']} images: {pair['alike']}"
        to_do = pair["pending"] + pair["images_asked"] - pair["images"]
        seconds = pair["time"]["median_s"]
        row = [
            pair["pruner"],
            str(pair["seed"]),
            f"{pair['compression']:g}",
            rest_of(pair["partner"], pair["name"]) if pair["step"] else "dense",
            _percent(pair["same"]),
            _percent(pair["different"], interval=False),
            f"{pair['undecided']['total']}{f' +{to_do}' if to_do else ''}",
            "–" if seconds is None else f"{seconds:.2g}",
        ]
        groups.setdefault(title, []).append(row)
    return [(title, Table(_NARROW, rows)) for title, rows in groups.items()]


def _undecided(pair: Mapping[str, Any]) -> str:
    counts = pair["undecided"]
    split = ", ".join(f"{status} {count}" for status, count in counts.items() if status != "total" and count)
    to_do = pair["pending"] + pair["images_asked"] - pair["images"]
    return str(counts["total"]) + (f" ({split})" if split else "") + (f" + {to_do} to do" if to_do else "")


def _percent(share: Mapping[str, Any], *, interval: bool = True) -> str:
    if share["value"] is None:
        return "–"
    text = f"{100 * share['value']:.1f}"
    return f"{text} ({100 * share['low']:.1f}–{100 * share['high']:.1f})" if interval else text


def notes(summary: Summary) -> list[str]:
    """Returns what has to be said beneath the table."""
    if not summary.get("pairs"):
        return []
    return [
        "same decision, proved: over the image's whole box the network does what the other one does: its class "
        "(class), its class wherever that is ahead by C (class:C), its outputs within T (difference:T). Shares are of "
        f"all images, whatever the networks make of them, with {100 * summary['confidence']:.0f} % Wilson intervals; "
        "different: a point of the box shows it, on both files. None of it counts as verified."
    ]


def markdown(summary: Summary) -> str:
    """Returns the table and its notes as Markdown; nothing of runs without pairs."""
    if not summary.get("pairs"):
        return ""
    return "\n".join(["", f"## {CAPTION}", "", *Table(COLUMNS, rows(summary)).markdown(), "", *notes(summary), ""])
