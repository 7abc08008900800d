"""Ranks that say how sure they are: the places that the intervals allow.

Networks are ranked by verified accuracy among all of the same radius on as many images. One is surely ahead of another
where an interval of 95 % says so: that of their paired difference where the answers on each image are known for both
(Agresti and Min 2005), else where their Wilson intervals don't touch. Its best place is one behind all that are surely
ahead of it, its worst one before all that it is surely ahead of. Each pair is judged by itself, at 95 %.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.bench.results.summary_types import CONFIDENCE
from prunecert.bench.site.view import Row

_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rank:
    """A place among comparable networks.

    Args:
        place: By the share itself; equal shares have equal places.
        best: The lowest place that the intervals allow.
        worst: The highest.
        of: How many are ranked.
    """

    place: int
    best: int
    worst: int
    of: int

    def __str__(self) -> str:
        """Returns ``3 (1–9)``; the range is left out where there is none."""
        return str(self.place) if self.best == self.worst else f"{self.place} ({self.best}–{self.worst})"


def ranks(rows: Sequence[Row]) -> dict[str, Rank]:
    """Returns ranks by the entry's name, for each radius and number of images; attacks alone have none.

    Args:
        rows: Rows of one class or several; each is ranked among its own.
    """
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.can_verify:
            groups[row.eps, row.images, row.data_fingerprint].append(row)
    return {row.name: rank for group in groups.values() for row, rank in zip(group, _ranked(group), strict=True)}


def _ranked(rows: Sequence[Row]) -> list[Rank]:
    values = np.array([row.result["verified"]["k"] for row in rows])
    ahead = surely_ahead(rows)
    places = 1 + (values[None, :] > values[:, None]).sum(axis=1)
    best, worst = 1 + ahead.sum(axis=0), len(rows) - ahead.sum(axis=1)
    return [Rank(int(p), int(b), int(w), len(rows)) for p, b, w in zip(places, best, worst, strict=True)]


def surely_ahead(rows: Sequence[Row]) -> _Bools:
    """Returns for each pair whether the first is surely ahead of the second, [rows, rows].

    Args:
        rows: Rows of one radius and number of images.
    """
    low = np.array([row.result["verified"]["low"] for row in rows])
    high = np.array([row.result["verified"]["high"] for row in rows])
    ahead: _Bools = low[:, None] > high[None, :]
    sets: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.larger is None:
            sets[row.entry["data"]["images_sha256"]].append(place)
    for places in sets.values():
        ahead[np.ix_(places, places)] = _paired([rows[place] for place in places])
    return ahead


def _paired(rows: Sequence[Row]) -> _Bools:
    """`stats.paired_difference` of all pairs at once: whether its lower end is above 0."""
    proved = np.array([[outcome.result == "unsat" for outcome in row.outcomes] for row in rows], dtype=np.float64)
    wins = proved @ (1 - proved).T
    b, c, n = wins.T + 0.5, wins + 0.5, proved.shape[1] + 2
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    half = z * np.sqrt((b + c) - (c - b) ** 2 / n) / n
    ahead: _Bools = (c - b) / n - half > 0
    return ahead
