"""How much worse is too much: thresholds and budgets, read from a suite's ``gate`` section or a file of its own.

    gate:
      verified: -0.5pp        # the most that verified accuracy may fall, in percentage points
      timeouts: 2%            # images near the limit that may run out of time: a share of the set, or a number
      require: certificates   # of all that counts as verified, checked then and there
      networks:
        cnn-large: {attacked: -2pp}
      cells:
        "*_lwm_x10_*": {verified_min: 40%}

The three budgets are nested: what `broken` leaves serves `undecided`, and what that leaves serves `timeouts`.
What a cell's pattern sets goes before what its network sets, and that before the section itself.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from prunecert.bench.schema.yamlfile import Section
from prunecert.errors import UserError, did_you_mean
from prunecert.models import NETWORKS
from prunecert.printable import shortened

METRICS = ("verified", "attacked", "clean")


@dataclass(frozen=True)
class Budget:
    """A number of images that is allowed: a count, or a share of the image set, rounded down."""

    count: int = 0
    share: Fraction | None = None

    def allowed(self, images: int) -> int:
        """Returns how many of `images` it allows."""
        return self.count if self.share is None else math.floor(self.share * images)

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{float(100 * self.share):g}%"


@dataclass(frozen=True)
class CellLimits:
    """What one cell is held to. Shares are exact fractions of the image set.

    Args:
        verified: The most that verified accuracy may change downwards, e.g. -1/200 for ``-0.5pp``.
        attacked: Likewise for attacked accuracy.
        clean: Likewise for clean accuracy.
        sparsity: Likewise for the sparsity counted in the exported network.
        verified_min: The least verified accuracy, or None.
        attacked_min: The least attacked accuracy, or None.
        clean_min: The least clean accuracy, or None.
        broken: Images that were `unsat` and may now be `sat` or misclassified, under other weights. Under the same
            weights that is a contradiction, which nothing allows.
        undecided: Images that were `unsat` well within the limit and may now be undecided.
        timeouts: Images that were `unsat` near the limit and may now be undecided.
        strict_below: Share of its limit below which a verifier's proof counts as well within it.
        time: Ratio of medians above which a slower run is warned of.
    """

    verified: Fraction = Fraction(-1, 200)
    attacked: Fraction = Fraction(-1, 100)
    clean: Fraction = Fraction(-1, 100)
    sparsity: Fraction = Fraction(-1, 200)
    verified_min: Fraction | None = None
    attacked_min: Fraction | None = None
    clean_min: Fraction | None = None
    broken: Budget = Budget(0)
    undecided: Budget = Budget(0)
    timeouts: Budget = Budget(share=Fraction(1, 100))
    strict_below: float = 0.5
    time: float = 1.5

    def drop(self, metric: str) -> Fraction:
        """Returns the threshold of a metric: at most 0."""
        value: Fraction = getattr(self, metric)
        return value

    def floor(self, metric: str) -> Fraction | None:
        """Returns the floor of a metric, or None."""
        value: Fraction | None = getattr(self, f"{metric}_min")
        return value


def _drop(value: object) -> Fraction:
    match = re.fullmatch(r"[-−]?([0-9]{1,9}(?:\.[0-9]{1,9})?) ?pp", value) if isinstance(value, str) else None
    share = Fraction(match[1]) / 100 if match else Fraction(2)
    if match is None or share > 1 or (share and value[0] not in "-−"):  # type: ignore[index]
        raise UserError(
            f"{shortened(repr(value))} is refused; write the fall that is allowed in percentage points, e.g. -0.5pp."
        )
    return -share


def _percent(value: object) -> Fraction | None:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?%", value) if isinstance(value, str) else None
    return Fraction(match[1]) / 100 if match and float(match[1]) <= 100 else None


def _floor(value: object) -> Fraction:
    share = _percent(value)
    if share is None:
        raise UserError(f"{shortened(repr(value))} is refused; write a share within 0 % and 100 %, e.g. 40%.")
    return share


def _budget(value: object) -> Budget:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Budget(value)
    share = _percent(value)
    if share is None:
        raise UserError(
            f"{shortened(repr(value))} is refused; write a number of images or a share of them, e.g. 3 or 2%."
        )
    return Budget(share=share)


def _number(low: float, high: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UserError(f"{shortened(repr(value))} is refused; it must be a number within {low:g} and {high:g}.")
        return float(value)

    return read


#: What can be required.
REQUIREMENTS = ("certificates",)
_MOST_PATTERNS = 500
_READERS: dict[str, Callable[[object], object]] = {
    **dict.fromkeys((*METRICS, "sparsity"), _drop),
    **{f"{metric}_min": _floor for metric in METRICS},
    **dict.fromkeys(("broken", "undecided", "timeouts"), _budget),
    "strict_below": _number(0, 1),
    "time": _number(1, 1000),
}
assert set(_READERS) == {item.name for item in fields(CellLimits)}


@dataclass(frozen=True)
class RuleSet:
    """The rules of a suite.

    Args:
        source: Where they stand, for people.
        base: Values for all cells, by the names in `CellLimits`.
        networks: Values by network.
        cells: Values by pattern of cell names, later ones before earlier ones.
        require: What else is asked of each image that counts as verified: ``certificates``, or nothing.
    """

    source: str = "the gate's defaults"
    base: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cells: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    require: str = ""

    def of(self, cell: str, network: str) -> CellLimits:
        """Returns what a cell is held to."""
        merged = {**self.base, **self.networks.get(network, {})}
        for pattern, values in self.cells:
            if fnmatch.fnmatchcase(cell, pattern):
                merged.update(values)
        return CellLimits(**merged)

    def idle(self, cells: Collection[str]) -> list[str]:
        """Returns the patterns that fit none of `cells`."""
        return [pattern for pattern, _ in self.cells if not fnmatch.filter(cells, pattern)]


def _values(section: Section, also: tuple[str, ...] = ()) -> dict[str, Any]:
    values = {}
    for key, value in section.data.items():
        if key in also:
            continue
        if key not in _READERS:
            raise section.refusal(key, did_you_mean("key", key, [*_READERS, *also]))
        try:
            values[key] = _READERS[key](value)
        except UserError as error:
            raise section.refusal(key, str(error)) from error
    return values


def parse_rules(section: Section | None, source: str, cells: Collection[str] | None = None) -> RuleSet | None:
    """Reads a ``gate`` section.

    Args:
        section: The section, or None.
        source: Where it stands, for people.
        cells: The cells that there are; a pattern that fits none of them is refused. None if that is not known.

    Returns:
        The rules; None where there is no section.

    Raises:
        UserError: A key is unknown or a value of another form; the message names file and line.
    """
    if section is None:
        return None
    networks: dict[str, dict[str, Any]] = {}
    group = section.section("networks")
    for name in group.data if group else ():
        assert group is not None
        try:
            NETWORKS.check(name)
        except UserError as error:
            raise group.refusal(name, str(error)) from error
        one = group.section(name)
        networks[name] = _values(one) if one else {}
    patterns: list[tuple[str, dict[str, Any]]] = []
    group = section.section("cells")
    if group is not None and len(group.data) > _MOST_PATTERNS:
        raise section.refusal("cells", f"{len(group.data)} patterns are refused; allowed are {_MOST_PATTERNS}.")
    for pattern in group.data if group else ():
        assert group is not None
        if cells is not None and not fnmatch.filter(cells, pattern):
            raise group.refusal(pattern, did_you_mean("cell", pattern, cells))
        one = group.section(pattern)
        patterns.append((pattern, _values(one) if one else {}))
    require = section.take("require", str, "")
    if require and require not in REQUIREMENTS:
        raise section.refusal("require", did_you_mean("requirement", require, REQUIREMENTS))
    return RuleSet(source, _values(section, ("networks", "cells", "require")), networks, tuple(patterns), require)
