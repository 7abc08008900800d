"""What a comparison found: states, test cases, and the images that changed."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from prunecert.bench.results.stats import mcnemar_exact, paired_difference
from prunecert.bench.schema.gate import CellLimits
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE
from prunecert.printable import plural

SCHEMA_VERSION = 1


class CaseState(enum.StrEnum):
    """How a test case ended. `error`: it can't be told, because something that should have answered failed."""

    PASS = "pass"  # noqa: S105 — no password
    WARN = "warn"
    SKIP = "skip"
    ERROR = "error"
    FAIL = "fail"


class Loss(enum.StrEnum):
    """How an image was lost that had been proved; each kind has a budget of its own but for `error`."""

    BROKEN = "broken"
    UNDECIDED = "undecided"
    NEAR_LIMIT = "near-limit"
    ERROR = "error"


class MetricChange(NamedTuple):
    """An image whose outcome changed.

    Args:
        image: Its index.
        label: Its class.
        was: Its status in the baseline.
        was_by: Who decided it there, or None.
        now: Its status in the run.
        now_by: Who decided it there, or None.
        seconds: The seconds it took in the baseline.
        share: The deciding verifier's share of its limit there.
        loss: For images that were proved: how they were lost. None for others.
    """

    image: int
    label: int
    was: str
    was_by: str | None
    now: str
    now_by: str | None
    seconds: float
    share: float
    loss: Loss | None = None

    def __str__(self) -> str:
        was = f"{self.was} by {self.was_by}" if self.was_by else self.was
        now = f"{self.now} by {self.now_by}" if self.now_by else self.now
        near = f" (took {100 * self.share:.0f} % of its limit)" if self.loss is Loss.NEAR_LIMIT else ""
        return f"image {self.image}: was {was}{near}, now {now}"


@dataclass(frozen=True)
class Metric:
    """A share of the image set, in the baseline and in the run.

    Args:
        name: ``verified``, ``attacked`` or ``clean``.
        n: Images.
        base: How many in the baseline.
        run: How many in the run.
        lost: Images that counted and no longer do.
        gained: Images that count and did not.
    """

    name: str
    n: int
    base: int
    run: int
    lost: int
    gained: int

    @property
    def change(self) -> Fraction:
        """The run's share less the baseline's."""
        return Fraction(self.run - self.base, self.n)

    @property
    def p(self) -> float:
        """McNemar's exact two-sided p value."""
        return mcnemar_exact(self.lost, self.gained)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `change` for paired shares."""
        return paired_difference(self.lost, self.gained, self.n)[1:]

    def to_json(self) -> dict[str, Any]:
        """Returns plain data; shares are within 0 and 1."""
        low, high = self.interval
        return {
            "base": self.base,
            "run": self.run,
            "n": self.n,
            "lost": self.lost,
            "gained": self.gained,
            "change": float(self.change),
            "low": low,
            "high": high,
            "mcnemar_p": self.p,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.base / self.n:.1f} → {100 * self.run / self.n:.1f} % ({100 * float(self.change):+.1f} pp, "
            f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}; {self.lost} lost, {self.gained} gained, "
            f"McNemar p = {self.p:.2g})"
        )


class TimeRatio(NamedTuple):
    """The run's median seconds over the baseline's, on the images that both classify correctly."""

    ratio: float
    low: float
    high: float
    base_median: float
    run_median: float
    images: int

    def __str__(self) -> str:
        return (
            f"×{self.ratio:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}; median {self.base_median:.3g} → "
            f"{self.run_median:.3g} s, {self.images} images)"
        )


@dataclass(frozen=True)
class GateCase:
    """One test case.

    Args:
        cell: The cell, or the empty string for the run as a whole.
        name: What is tested.
        state: How it ended.
        message: One line.
        lines: Particulars, one line each.
    """

    cell: str
    name: str
    state: CaseState
    message: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class CellResult:
    """One cell's comparison.

    Args:
        name: The cell.
        same_network: Whether both exports have the same hash before compaction.
        limits: What it was held to.
        metrics: By name.
        lost: Images that were proved and no longer are.
        gained: Images that are proved and were not.
        time: The ratio of times, or why there is none.
        seconds: The run's seconds on this cell.
        cases: The test cases.
    """

    name: str
    same_network: bool
    limits: CellLimits
    metrics: Mapping[str, Metric]
    lost: Sequence[MetricChange]
    gained: Sequence[MetricChange]
    time: TimeRatio | str
    seconds: float
    cases: Sequence[GateCase]

    @property
    def state(self) -> CaseState:
        """The worst state of its cases, where a skipped one is no worse than a passed one."""
        return worst(self.cases)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            "name": self.name,
            "state": str(self.state),
            "same_network": self.same_network,
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "lost": [_change(change) for change in self.lost],
            "gained": [_change(change) for change in self.gained],
            "time": {"not_compared": self.time} if isinstance(self.time, str) else self.time._asdict(),
            "seconds": self.seconds,
            "cases": [_case(case) for case in self.cases],
        }


def _change(change: MetricChange) -> dict[str, Any]:
    data = change._asdict()
    data["loss"] = None if change.loss is None else str(change.loss)
    return data


def _case(case: GateCase) -> dict[str, Any]:
    return {"name": case.name, "state": str(case.state), "message": case.message, "lines": list(case.lines)}


_ORDER = (CaseState.PASS, CaseState.SKIP, CaseState.WARN, CaseState.ERROR, CaseState.FAIL)


def worst(cases: Sequence[GateCase]) -> CaseState:
    """Returns the gravest state: a regression is certain, an error leaves it open, so a regression comes first."""
    state = max((case.state for case in cases), key=_ORDER.index, default=CaseState.PASS)
    return CaseState.PASS if state is CaseState.SKIP else state


@dataclass(frozen=True)
class GateResult:
    """A whole comparison.

    Args:
        cells: Cell by cell.
        cases: Test cases of the run as a whole.
        head: What was compared with what, as plain data.
        notes: Sentences that a reader should see.
    """

    cells: Sequence[CellResult]
    cases: Sequence[GateCase]
    head: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def all_cases(self) -> list[GateCase]:
        """Every test case."""
        return [*self.cases, *(case for cell in self.cells for case in cell.cases)]

    @property
    def exit_code(self) -> int:
        """1 with a regression or a contradiction; else 2 if something failed; else 0."""
        return {CaseState.FAIL: EXIT_REGRESSION, CaseState.ERROR: EXIT_USAGE}.get(worst(self.all_cases), EXIT_OK)

    @property
    def outcome(self) -> str:
        """``passed``, ``failed`` or ``broken``."""
        return {EXIT_OK: "passed", EXIT_REGRESSION: "failed", EXIT_USAGE: "broken"}[self.exit_code]

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        lost = sum(len(cell.lost) for cell in self.cells)
        gained = sum(len(cell.gained) for cell in self.cells)
        bad = [cell for cell in self.cells if cell.state in (CaseState.FAIL, CaseState.ERROR)]
        cells = plural(len(self.cells), "cell")
        changes = f"{plural(lost, 'proved image')} lost, {gained} gained"
        if self.outcome == "passed":
            change = sum(cell.metrics["verified"].run - cell.metrics["verified"].base for cell in self.cells)
            verdict = "better than the baseline" if change > 0 else "no regression"
            return f"PASSED: {cells}, {verdict}; {changes}"
        where = f"{len(bad)} of {cells}" if bad else cells
        word = "FAILED: a regression or a contradiction in" if self.outcome == "failed" else "BROKEN: errors in"
        return f"{word} {where}; {changes}"

    def to_json(self) -> dict[str, Any]:
        """Returns plain data; `results/README.md` describes it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "gate",
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "headline": self.headline,
            **self.head,
            "notes": list(self.notes),
            "cases": [_case(case) for case in self.cases],
            "cells": [cell.to_json() for cell in self.cells],
        }
