"""Floors: how high the rooms of a folder stand upon each other, and which arrows run back up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tests.house import Arrow, circles, rooms

#: Circles of more rooms than this are ordered by a rule of thumb; the exact order takes 2^n steps.
_EXACT = 16


@dataclass(frozen=True)
class Floors:
    """The rooms of one folder.

    Args:
        folder: Its dotted name.
        rooms: Modules and folders in it that import each other.
        arrows: Pairs of rooms of which one imports the other.
        floors: Rooms on the longest way down.
        up: Arrows that run from a lower floor to a higher one, however the rooms are stacked: at least so many.
        circles: Sets of rooms that can all be reached from one another.
    """

    folder: str
    rooms: int
    arrows: int
    floors: int
    up: int
    circles: tuple[frozenset[str], ...]

    def __str__(self) -> str:
        loops = [f"circle of {', '.join(sorted(room.rpartition('.')[2] for room in loop))}" for loop in self.circles]
        return (
            f"{self.folder}: {self.rooms} rooms, {self.floors} floors, {self.arrows} arrows, {self.up} up; "
            f"{'; '.join(loops) or 'no circle'}"
        )


def floors(pairs: Collection[Arrow]) -> list[Floors]:
    """Returns the floors of every folder, by its name.

    Args:
        pairs: Arrows between modules, `tests.house.arrows`.
    """
    forks = rooms(pairs)
    return [
        _stacked(folder, {(one, other) for one, other in forks if one.rpartition(".")[0] == folder})
        for folder in sorted({one.rpartition(".")[0] for one, _ in forks})
    ]


def _stacked(folder: str, inner: set[Arrow]) -> Floors:
    loops = sorted(circles(inner), key=sorted)
    up = {arrow for loop in loops for arrow in _upward(loop, inner)}
    down = inner - up
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            heights[room] = 1 + max((height(other) for one, other in down if one == room), default=0)
        return heights[room]

    names = set().union(*inner)
    return Floors(folder, len(names), len(inner), max(map(height, names)), len(up), tuple(loops))


def _upward(loop: Collection[str], inner: Collection[Arrow]) -> set[Arrow]:
    """Returns the fewest arrows without which a circle is none (of large circles: few)."""
    names = sorted(loop)
    targets = {one: {other for a, other in inner if a == one and other in loop} for one in names}
    order = _order(names, targets) if len(names) <= _EXACT else sorted(names, key=lambda name: -len(targets[name]))
    return {(one, other) for i, one in enumerate(order) for other in targets[one] & set(order[:i])}


def _order(names: list[str], targets: dict[str, set[str]]) -> list[str]:
    """Returns the rooms, highest first, with the fewest arrows up: the best order of each subset, smallest first."""
    masks = [sum(1 << names.index(other) for other in targets[name]) for name in names]
    #: For each set of upper rooms: arrows up among them, and which is the lowest.
    best: list[tuple[int, int]] = [(0, -1)] * (1 << len(names))
    for upper in range(1, len(best)):
        best[upper] = min(
            (best[upper ^ (1 << low)][0] + (masks[low] & upper).bit_count(), low)
            for low in range(len(names))
            if upper >> low & 1
        )
    order: list[str] = []
    upper = len(best) - 1
    while upper:
        lowest = best[upper][1]
        order.append(names[lowest])
        upper ^= 1 << lowest
    return order[::-1]
