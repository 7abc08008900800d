"""What compaction took from each network: units by layer, weights and ReLUs, before and after."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prunecert.bench.report.medium import Table

#: Heading, and whether the column holds numbers.
COLUMNS: tuple[tuple[str, bool], ...] = (
    ("network", False),
    ("×", True),
    ("units of each layer, masked → compact", False),
    ("weights", True),
    ("kept %", True),
    ("ReLUs", True),
    ("kept %", True),
)
Record = Mapping[str, Any]


def rows(cells: Iterable[tuple[str, float, Record | None]]) -> list[list[str]]:
    """Returns the table's cells as text, in the order of `COLUMNS`, of the networks that lost something.

    Args:
        cells: For each network: its name, its compression, and the record of its compaction, if there is one.
    """
    lines = []
    for name, compression, record in cells:
        if record is None or all(layer["before"] == layer["after"] for layer in record["layers"]):
            continue
        before, after = (sum(math.prod(layer[key]) for layer in record["layers"]) for key in ("before", "after"))
        neurons, left = record["relus"]
        units = [(layer["before"][0], layer["after"][0]) for layer in record["layers"]]
        lines.append(
            [
                name,
                f"{compression:g}",
                " ".join(str(b) if b == a else f"{b}→{a}" for b, a in units),
                f"{before:,} → {after:,}",
                f"{100 * after / before:.1f}",
                f"{neurons:,} → {left:,}",
                f"{100 * left / max(1, neurons):.1f}",
            ]
        )
    return lines


def of_summary(summary: Mapping[str, Any]) -> list[list[str]]:
    """Returns `rows` of a run's summary."""
    return rows((cell["name"], cell["compression"], cell["compaction"]) for cell in summary["cells"])


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Returns the table as Markdown, or nothing where no network lost anything."""
    if not table:
        return ""
    return "\n".join([*Table(COLUMNS, table).markdown(), ""])


def layers(record: Record) -> list[list[str]]:
    """Returns one line a layer: name, operator, shapes of its weights before and after, percent that is left."""
    return [
        [
            layer["name"],
            layer["operator"],
            "×".join(map(str, layer["before"])),
            "×".join(map(str, layer["after"])),
            f"{100 * math.prod(layer['after']) / math.prod(layer['before']):.1f}",
        ]
        for layer in record["layers"]
    ]
