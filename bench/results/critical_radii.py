"""Critical radii of a network's images: a row an image, and what they say together.

The rows lie in ``critical-radius.jsonl`` of a run's folder. An image's critical radius lies between the largest radius
at which its class is proved and the smallest at which it is broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from prunecert.errors import UserError
from prunecert.files import read_regular

SCHEMA_VERSION = 1
NAME = "critical-radius.jsonl"
_MOST_BYTES = 1 << 28
_Radius = Annotated[str, Meta(pattern=r"\A[0-9]{1,40}(/[1-9][0-9]{0,39})?\Z")]


class RadiusRow(Struct, kw_only=True, omit_defaults=True):
    """The critical radius of one image.

    Args:
        schema_version: 1.
        key: Stands for all that decides the answer but the image: network, data, verifiers, settings, limits, ends.
        network: The network's name.
        pruner: Its pruner, or ``dense``.
        image: Index in the split.
        label: Its class.
        correct: Whether the network classifies it correctly; of one that it doesn't, no radius is asked about.
        proved: Largest radius at which it keeps its class: proved; 0 where none was.
        broken: Smallest radius at which a confirmed counterexample was found; null where none was up to the highest.
        highest: The largest radius that was asked about.
        questions: How many were.
        seconds: What the verifiers took.
    """

    schema_version: int = SCHEMA_VERSION
    key: str
    network: str
    pruner: str
    image: Annotated[int, Meta(ge=0)]
    label: Annotated[int, Meta(ge=0)]
    correct: bool
    proved: _Radius
    broken: _Radius | None
    highest: _Radius
    questions: Annotated[int, Meta(ge=0)]
    seconds: Annotated[float, Meta(ge=0)]

    @property
    def ends(self) -> tuple[Fraction, Fraction | None]:
        """Largest radius that is proved, and smallest that is broken."""
        return Fraction(self.proved), None if self.broken is None else Fraction(self.broken)


def read_radii(path: Path) -> list[RadiusRow]:
    """Reads the rows of a file; of an image that is there twice the last one; a last line that is cut off is left out.

    Raises:
        UserError: A line is no row, or of a newer version.
    """
    if not path.exists():
        return []
    rows: dict[tuple[str, int], RadiusRow] = {}
    for number, line in enumerate(read_regular(path, _MOST_BYTES).split(b"\n")[:-1], 1):
        try:
            row = msgspec.json.decode(line, type=RadiusRow)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}, line {number}, is no critical radius ({error}); delete the file: the same command asks again."
            ) from error
        if row.schema_version > SCHEMA_VERSION:
            raise UserError(
                f"{path} has schema version {row.schema_version}, newer than this program reads ({SCHEMA_VERSION}); "
                "upgrade prunecert."
            )
        rows[row.key, row.image] = row
    return list(rows.values())


@dataclass(frozen=True)
class RadiusSummary:
    """Critical radii of a network's images together; a misclassified one has the radius 0.

    Args:
        network: The network's name.
        pruner: Its pruner, or ``dense``.
        images: How many.
        correct: How many of them it classifies correctly.
        proved: Lower quartile, median and upper quartile of the largest proved radius.
        broken: The same of the smallest broken radius; None where it is beyond the highest that was asked about.
        highest: The largest radius that was asked about.
    """

    network: str
    pruner: str
    images: int
    correct: int
    proved: tuple[Fraction, Fraction, Fraction]
    broken: tuple[Fraction | None, Fraction | None, Fraction | None]
    highest: Fraction

    def __str__(self) -> str:
        if not self.correct:
            return f"{self.network} ({self.pruner}): none of {self.images} images is classified correctly, so no radius"
        broken = "not broken" if self.broken[1] is None else f"broken at {shown_radius(self.broken[1])}"
        low, middle, high = (shown_radius(eps) for eps in self.proved)
        beyond = f" up to {shown_radius(self.highest)}" if self.broken[1] is None else ""
        few = "; few images, so take it as a hint" if self.images < 50 else ""
        return (
            f"{self.network} ({self.pruner}): the median image is proved up to {middle} and {broken}{beyond}; "
            f"quartiles of what is proved {low} and {high} ({self.images} images, {self.correct} classified "
            f"correctly{few})"
        )


def shown_radius(eps: Fraction) -> str:
    """Returns a radius in levels of 8 bits: ``2.5/255``."""
    return f"{float(eps * 255):.3g}/255"


def summarise_radii(rows: Iterable[RadiusRow]) -> list[RadiusSummary]:
    """Returns a summary a network, in the order of the rows; those of one name and pruner are told apart by keys."""
    groups: dict[tuple[str, str, str], list[RadiusRow]] = {}
    for row in rows:
        groups.setdefault((row.network, row.pruner, row.key), []).append(row)
    summaries = []
    for (network, pruner, _), members in groups.items():
        ends = [row.ends if row.correct else (Fraction(0), Fraction(0)) for row in members]
        beyond = 1 + max(Fraction(row.highest) for row in members)
        broken = _quartiles([beyond if end is None else end for _, end in ends])
        summaries.append(
            RadiusSummary(
                network=network,
                pruner=pruner,
                images=len(members),
                correct=sum(row.correct for row in members),
                proved=_quartiles([proved for proved, _ in ends]),
                broken=(_within(broken[0], beyond), _within(broken[1], beyond), _within(broken[2], beyond)),
                highest=beyond - 1,
            )
        )
    return summaries


def _within(eps: Fraction, beyond: Fraction) -> Fraction | None:
    return None if eps == beyond else eps


def _quartiles(values: Sequence[Fraction]) -> tuple[Fraction, Fraction, Fraction]:
    """Returns the values at a quarter, half and three quarters of the order; lower ones in between, never a mean.

    A mean of two radii would be no radius of any image, and above all that half of the images reach.
    """
    ordered = sorted(values)
    low, middle, high = (ordered[max(0, -(-len(ordered) * part // 4) - 1)] for part in (1, 2, 3))
    return low, middle, high


def contradictions_with(
    rows: Iterable[RadiusRow], statuses: Mapping[tuple[str, int], Mapping[Fraction, str]]
) -> list[str]:
    """Returns where a radius contradicts what a run has found: proved where it broke, or broken where it proved.

    Args:
        rows: The radii.
        statuses: What the run decided (``unsat``, ``sat``), by the rows' keys and image, at each radius.
    """
    lines = []
    for row in rows:
        proved, broken = row.ends
        for eps, status in statuses.get((row.key, row.image), {}).items():
            where = f"{row.network} ({row.pruner}) image {row.image}"
            if status == "sat" and row.correct and eps <= proved:
                lines.append(f"{where}: broken at {shown_radius(eps)}, and proved up to {shown_radius(proved)}")
            if status == "unsat" and broken is not None and broken <= eps:
                lines.append(f"{where}: proved at {shown_radius(eps)}, and broken at {shown_radius(broken)}")
    return lines
