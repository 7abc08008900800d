"""Pruners side by side: against the dense control and against LWM, on the same images.

Everything is the mean over seeds. Intervals and tests take images as the sample: they say how sure the order of these
networks is on other images, not how another training would come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec import UNSET

from prunecert.bench.results.impact.costs import Costs, units_kept
from prunecert.bench.results.impact.images import ImageOutcomes, Metric
from prunecert.bench.results.impact.pairs import Change, Comparison, change_of, compare, families
from prunecert.bench.results.stats import holm
from prunecert.models import DENSE

#: What other methods are held against: the seed of them all.
BASELINE = "lwm"


@dataclass(frozen=True)
class MethodLine:
    """A pruner at a compression.

    Args:
        title: Network, objective and radius.
        pruner: The pruner, or ``dense``.
        nominal: All weights over those kept, as asked for.
        compression: The same, as counted.
        seeds: How many networks.
        images: How many images.
        clean: Accuracy.
        verified: Lower end of the bracket; None where it was only attacked.
        attacked: Upper end.
        to_dense: Change of the verified accuracy (of the attacked one where that is all) against the dense control.
        to_baseline: Change against LWM, or another pruner, at the compression asked for; its p value is adjusted for
            all such tests of the family.
        unstable: Median of the unstable ReLUs.
        seconds: Mean time of verification, of a correctly classified image.
        train_seconds: See `costs.Costs`.
        macs: See `costs.Costs`.
        estimated: Whether a part of the training's seconds is an estimate.
        filters: Share of the filters that compaction leaves; None where nobody has compacted the networks.
        neurons: The same of the neurons of hidden linear layers.
    """

    title: str
    pruner: str
    nominal: float
    compression: float
    seeds: int
    images: int
    clean: float
    verified: float | None
    attacked: float
    to_dense: Change | None
    to_baseline: Change | None
    unstable: float | None
    seconds: float | None
    train_seconds: float | None
    macs: float | None
    estimated: bool = False
    filters: float | None = None
    neurons: float | None = None


def method_lines(
    outcomes: Iterable[ImageOutcomes], costs: Mapping[str, Costs], *, against: str = BASELINE
) -> list[list[MethodLine]]:
    """Returns the lines of each family, dense first, then by compression and name.

    Args:
        outcomes: Networks.
        costs: By the cell's name; what is missing is not shown.
        against: The pruner that the others are held against, at their compression.
    """
    boards = []
    for family in families(outcomes).values():
        dense = [part for (pruner, _), parts in family.items() if pruner == DENSE for part in parts]
        lines = []
        for (pruner, compression), parts in family.items():
            baseline = family.get((against, compression), [])
            lines.append(
                _line(
                    parts,
                    None if pruner == DENSE else compare(dense, parts),
                    None if pruner in (DENSE, against) else compare(baseline, parts),
                    [costs[part.cell.name] for part in parts if part.cell.name in costs],
                )
            )
        lines.sort(key=lambda line: (line.pruner != DENSE, round(line.compression, 1), line.pruner))
        boards.append(_adjusted(lines))
    return boards


def _line(
    parts: Sequence[ImageOutcomes], dense: Comparison | None, baseline: Comparison | None, costs: Sequence[Costs]
) -> MethodLine:
    cell = parts[0].cell
    metric: Metric = "verified" if all("verified" in part.metrics for part in parts) else "attacked"

    def share(of: Metric) -> float:
        return float(np.mean([part.flags(of).mean() for part in parts]))

    def change(comparison: Comparison | None) -> Change | None:
        return None if comparison is None or metric not in comparison.metrics else change_of(comparison, metric)

    unstable = [part.unstable[~np.isnan(part.unstable)] for part in parts]
    counted = [float(np.median(values)) for values in unstable if len(values)]
    seconds = [float(part.seconds[part.clean].mean()) for part in parts if part.clean.any()]
    measured = [part.cell.measured_compression or part.cell.compression for part in parts]
    trained = [cost.train_seconds for cost in costs if cost.train_seconds is not None]
    macs = [cost.macs for cost in costs if cost.macs is not None]
    records = [part.cell.compaction for part in parts]
    units = [units_kept(record) for record in records if record is not None and record is not UNSET]
    return MethodLine(
        title=f"{cell.network}, {cell.objective}, {cell.eps}",
        pruner=cell.pruner,
        nominal=cell.compression,
        compression=float(np.mean(measured)),
        seeds=len(parts),
        images=min(map(len, parts)),
        clean=share("clean"),
        verified=share("verified") if metric == "verified" else None,
        attacked=share("attacked"),
        to_dense=change(dense),
        to_baseline=change(baseline),
        unstable=float(np.mean(counted)) if counted else None,
        seconds=float(np.mean(seconds)) if seconds else None,
        train_seconds=_mean(trained),
        macs=_mean(macs),
        estimated=any(cost.estimated for cost in costs),
        filters=_mean([filters for filters, _ in units if filters is not None]),
        neurons=_mean([neurons for _, neurons in units if neurons is not None]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _adjusted(lines: list[MethodLine]) -> list[MethodLine]:
    """Returns the lines with p values against the baseline that are adjusted for their number."""
    tested = [place for place, line in enumerate(lines) if line.to_baseline is not None]
    changes = [change for line in lines if (change := line.to_baseline) is not None]
    for place, change, p in zip(tested, changes, holm([change.p for change in changes]), strict=True):
        lines[place] = replace(lines[place], to_baseline=replace(change, p=p))
    return lines
