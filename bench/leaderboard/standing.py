"""Which entry of a cell stands for it, where several suites or runs have verified the same network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def one_for_each_cell(items: Iterable[tuple[Mapping[str, Any], T]]) -> list[tuple[Mapping[str, Any], T]]:
    """Leaves out entries of cells for which another stands: one network isn't two seeds because two suites verified it.

    Of entries of one cell on the same data that stands which has most images; of equals that of the latest run.

    Args:
        items: Pairs (entry, whatever belongs to it).

    Returns:
        Those that stand, in their order.
    """
    pairs = list(items)
    standing: dict[tuple[str, str], int] = {}
    for place, (entry, _) in enumerate(pairs):
        key = entry["cell"]["name"], entry["data"]["fingerprint"]
        if key not in standing or _worth(entry) > _worth(pairs[standing[key]][0]):
            standing[key] = place
    return [pairs[place] for place in sorted(standing.values())]


def _worth(entry: Mapping[str, Any]) -> tuple[int, str, str]:
    return entry["data"]["images"], entry["protocol"]["started"], entry["name"]
