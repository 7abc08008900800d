"""Which entry stands for a network that several suites or runs have verified."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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
    chosen = _standing([entry for entry, _ in pairs], lambda entry: (entry["cell"]["name"], _data(entry)))
    return [pair for pair, place in zip(pairs, chosen, strict=True) if pair[0] is pairs[place][0]]


def stand_ins(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns, by the name of each entry that another stands for, the other's name.

    Two entries are of one network if their ONNX file, radius, data and submitter are the same. That with most images
    stands for it; of equals that of the latest run.
    """

    def network(entry: Mapping[str, Any]) -> Hashable:
        return entry["files"]["onnx_sha256"], entry["cell"]["eps"], _data(entry), entry["by"]

    places = _standing(entries, network)
    names = ((entry["name"], entries[place]["name"]) for entry, place in zip(entries, places, strict=True))
    return {name: other for name, other in names if name != other}


def _data(entry: Mapping[str, Any]) -> Hashable:
    return entry["data"]["fingerprint"], entry["data"]["split"]


def _standing(entries: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Hashable]) -> list[int]:
    """Returns, for each entry, the place of the one that stands for all with its key."""
    best: dict[Hashable, int] = {}
    keys = [key(entry) for entry in entries]
    for place, (own, entry) in enumerate(zip(keys, entries, strict=True)):
        if own not in best or _worth(entry) > _worth(entries[best[own]]):
            best[own] = place
    return [best[own] for own in keys]


def _worth(entry: Mapping[str, Any]) -> tuple[int, str, str]:
    return entry["data"]["images"], entry["protocol"]["started"], entry["name"]
