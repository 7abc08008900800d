"""What pruning takes from whom, as tables that a terminal of 80 columns holds; see `bench.results.impact`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from prunecert.bench.report.medium import Column, Table
from prunecert.bench.results.impact.classes import REPEATS, ClassChange, class_changes
from prunecert.bench.results.impact.exemplars import exemplars
from prunecert.bench.results.impact.images import METRICS, FloatArray, Metric
from prunecert.bench.results.impact.methods import BASELINE, MethodLine
from prunecert.bench.results.impact.pairs import Change, Comparison
from prunecert.bench.results.impact.potential import ALLOWANCE, potentials
from prunecert.bench.results.stats import rank_correlation
from prunecert.models.pruners.taxonomy import MARK, RECONSTRUCTIONS, Structure, marked, taxonomy_of

#: What a corrected p value must be at most for a star.
SIGNIFICANT = 0.05
#: Below so many images most differences are within chance.
FEW = 50
SHORT: dict[Metric, str] = {"clean": "clean", "attacked": "attack", "verified": "verified"}
#: What the accuracies are called where they are shown.
NAMES: dict[Metric, str] = {"clean": "clean", "attacked": "under attack", "verified": "verified"}
CLASS_NOTE = (
    "dense→pruned, in %; change: 95 % interval over images of the last accuracy's change, in points; p: that it did "
    "not change (McNemar's exact test, over several seeds the sign-flip test by images); excess p: that the class "
    "changes as all images do (permuted labels); both corrected by Holm for all classes and accuracies of the "
    "comparison; *: p is at most 0.05."
)
EXEMPLAR_NOTE = (
    "lost: proved for the majority of the dense networks and a minority of the pruned ones; gained: the reverse. "
    "changed: images on which a pruned network and the dense one of its seed disagree; chance: on which two dense ones "
    "of different seeds do. With fewer than five seeds a majority says little."
)
METHOD_NOTE = (
    "Means over seeds; differences of verified accuracy in points (of that under attack where nothing is proved), 95 % "
    "intervals over images, paired by seed; p: McNemar's exact test against the method of that column at the same "
    "compression (the sign-flip test by images over several seeds), corrected by Holm for the family."
)
STRUCTURE_NOTE = (
    "Filters, and neurons of hidden linear layers, that are left when what is dead has been removed; weights: those "
    "that are not zero."
)
GRADIENT_NOTE = (
    "excess: mean cross-entropy of the pruned network minus the dense one's. rank corr.: Spearman's, over classes, of "
    "excess loss with the norm of the dense network's mean gradient on the class, and its permutation test."
)
COST_NOTE = (
    "train: all of a network's training; a pre-training that several share, or a parent's training, is charged to each "
    "in full, as if it were alone. ~: that part is estimated from the dense control's seconds an epoch, since no "
    "history of it is there. unstable: median over images, by the first verifier that counts them; verify: mean of the "
    "correctly classified images, all verifiers up to the deciding one."
)


@dataclass(frozen=True)
class ImpactTable:
    """A table with what stands above and below it."""

    title: str
    table: Table
    note: str = ""


class Losses(Protocol):
    """A network's loss and gradients by class; see `models.groups.Groups`."""

    @property
    def losses(self) -> FloatArray:
        """Mean cross-entropy of each class; NaN for one without images."""

    @property
    def gradients(self) -> FloatArray:
        """Norm of its mean gradient."""


def percent(share: float) -> str:
    """Returns a share as percent with one decimal."""
    return f"{100 * share:.1f}"


def p_value(p: float) -> str:
    """Returns a p value with as many digits as it deserves."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def points(value: float, low: float, high: float) -> str:
    """Returns a difference of shares and its interval in points."""
    return f"{100 * value:+.1f} ({100 * low:+.1f} {100 * high:+.1f})"


def interval(low: float, high: float) -> str:
    """Returns the interval of a difference of shares, in points."""
    return f"({100 * low:+.1f} {100 * high:+.1f})"


def of_change(change: Change | None) -> str:
    """Returns a paired change in points, or a dash."""
    return "–" if change is None else points(change.value, change.low, change.high)


def class_name(label: int, names: Sequence[str]) -> str:
    """Returns a class's name, or its number where it has none."""
    return names[label] if label < len(names) else str(label)


def classes_table(
    comparison: Comparison,
    names: Sequence[str] = (),
    *,
    repeats: int = REPEATS,
    changes: Sequence[ClassChange] | None = None,
) -> Table:
    """Returns the classes of a comparison, those that lose most of the strongest accuracy first.

    Args:
        comparison: Dense and pruned networks.
        names: The classes' names.
        repeats: Permutations of the labels.
        changes: Those of the classes, where they are computed already.
    """
    metrics, last = comparison.metrics, comparison.metrics[-1]
    columns: list[Column] = [
        ("class (images)", False),
        *((SHORT[metric], True) for metric in metrics),
        ("change (95 %)", True),
        ("p", True),
        ("excess p", True),
    ]
    by_class: dict[int, dict[Metric, ClassChange]] = {}
    for change in class_changes(comparison, repeats=repeats) if changes is None else changes:
        by_class.setdefault(change.label, {})[change.metric] = change
    rows = []
    for label, own in sorted(by_class.items(), key=lambda item: item[1][last].change):
        strongest = own[last]
        rows.append(
            [
                f"{class_name(label, names)} ({strongest.images})",
                *(_from_to(own[metric]) for metric in metrics),
                interval(strongest.low, strongest.high),
                p_value(strongest.p),
                p_value(strongest.excess_p),
            ]
        )
    return Table(columns, rows)


def excess_note(comparison: Comparison, changes: Sequence[ClassChange], names: Sequence[str] = ()) -> str:
    """Returns the classes that change otherwise than all images do, accuracy by accuracy, or nothing.

    Args:
        comparison: Dense and pruned networks.
        changes: Its classes'.
        names: The classes' names.
    """
    parts = [
        f"{class_name(one.label, names)}, {NAMES[one.metric]}, {100 * one.excess:+.1f} points beyond all images "
        f"(excess p {p_value(one.excess_p)})"
        for one in sorted(changes, key=lambda one: one.excess_p)
        if one.excess_p <= SIGNIFICANT
    ]
    return f"{comparison.title}: {'; '.join(parts)}." if parts else ""


def _from_to(change: ClassChange) -> str:
    text = f"{100 * change.dense:.0f}→{100 * change.pruned:.0f}"
    return f"{text}*" if change.p <= SIGNIFICANT else text


def exemplars_table(comparisons: Sequence[Comparison], names: Sequence[str] = ()) -> Table:
    """Returns, for each comparison, the images whose guarantee is lost and gained, and the classes that lose most."""
    columns: list[Column] = [
        ("pruner", False),
        ("×", True),
        ("seeds", True),
        ("lost", True),
        ("gained", True),
        ("changed %", True),
        ("chance %", True),
        ("most lost", False),
    ]
    rows = []
    for comparison in comparisons:
        if "verified" not in comparison.metrics:
            continue
        images = exemplars(comparison)
        counts = Counter(class_name(label, names) for label in images.lost_classes).most_common(1)
        rows.append(
            [
                marked(comparison.pruner),
                f"{comparison.compression:g}",
                str(images.seeds),
                str(len(images.lost)),
                str(len(images.gained)),
                percent(images.changed),
                "–" if images.churn is None else percent(images.churn),
                ", ".join(f"{name} {count}" for name, count in counts) or "–",
            ]
        )
    return Table(columns, rows)


def potential_table(comparisons: list[Comparison], allowance: float = ALLOWANCE) -> Table:
    """Returns each pruner's prune potential by accuracy, as compressions.

    Args:
        comparisons: All compressions of one family.
        allowance: Loss of accuracy that is allowed, a share.
    """
    results = potentials(comparisons, allowance)
    columns: list[Column] = [
        ("pruner", False),
        *((f"{NAMES[metric]} ×", True) for metric in METRICS),
        ("measured ×", False),
    ]
    rows = []
    for pruner in dict.fromkeys(item.pruner for item in results):
        own = {item.metric: item for item in results if item.pruner == pruner}
        shown = [
            f"{_ratio(item.share)} ({_ratio(item.low)} to {_ratio(item.high)})" if item is not None else "–"
            for item in map(own.get, METRICS)
        ]
        rows.append([marked(pruner), *shown, ", ".join(map(_ratio, next(iter(own.values())).measured))])
    return Table(columns, rows)


def _ratio(share: float) -> str:
    return f"{1 / (1 - share):.3g}"


def methods_table(lines: Sequence[MethodLine]) -> Table:
    """Returns the methods of a family by what they keep."""
    columns: list[Column] = [
        ("pruner", False),
        ("×", True),
        ("seeds", True),
        ("clean %", True),
        ("verified %", True),
        ("under attack %", True),
    ]
    rows = [
        [
            marked(line.pruner),
            f"{line.compression:.3g}",
            str(line.seeds),
            percent(line.clean),
            "–" if line.verified is None else percent(line.verified),
            percent(line.attacked),
        ]
        for line in lines
    ]
    return Table(columns, rows)


def against_column(against: str) -> Column:
    """Returns the heading of differences from a method: LWM in capitals, as everywhere, others by their names."""
    return f"to {against.upper() if against == BASELINE else against} (95 %)", True


def tests_table(lines: Sequence[MethodLine], against: str) -> Table:
    """Returns the methods of a family against the dense control and another method, by paired differences.

    Args:
        lines: The methods.
        against: The other method; see `method_lines`.
    """
    columns: list[Column] = [
        ("pruner", False),
        ("×", True),
        ("to dense (95 %)", True),
        against_column(against),
        ("p", True),
    ]
    rows = [
        [
            marked(line.pruner),
            f"{line.compression:.3g}",
            of_change(line.to_dense),
            of_change(line.to_baseline),
            "–" if line.to_baseline is None else p_value(line.to_baseline.p),
        ]
        for line in lines
        if line.to_dense is not None or line.to_baseline is not None
    ]
    return Table(columns, rows)


def costs_table(lines: Sequence[MethodLine]) -> Table:
    """Returns the methods of a family by what they cost."""
    dense = next((line.macs for line in lines if line.compression == 1 and line.macs), None)
    columns: list[Column] = [
        ("pruner", False),
        ("×", True),
        ("train min", True),
        ("multiply-adds", True),
        ("% of dense", True),
        ("unstable", True),
        ("verify ms", True),
    ]
    rows = [
        [
            marked(line.pruner),
            f"{line.compression:.3g}",
            "–" if line.train_seconds is None else f"{'~' * line.estimated}{line.train_seconds / 60:.1f}",
            "–" if line.macs is None else f"{line.macs:,.0f}",
            "–" if line.macs is None or dense is None else percent(line.macs / dense),
            "–" if line.unstable is None else f"{line.unstable:,.0f}",
            "–" if line.seconds is None else _milliseconds(line.seconds),
        ]
        for line in lines
    ]
    return Table(columns, rows)


def structure_table(lines: Sequence[MethodLine]) -> Table:
    """Returns what structured methods leave of filters and neurons; without lines where nobody has compacted them."""
    columns: list[Column] = [
        ("pruner", False),
        ("×", True),
        ("filters left %", True),
        ("neurons left %", True),
        ("weights left %", True),
    ]
    rows = [
        [
            marked(line.pruner),
            f"{line.compression:.3g}",
            "–" if line.filters is None else percent(line.filters),
            "–" if line.neurons is None else percent(line.neurons),
            percent(1 / line.compression),
        ]
        for line in lines
        if (place := taxonomy_of(line.pruner)) is not None
        and place.structure is Structure.STRUCTURED
        and (line.filters is not None or line.neurons is not None)
    ]
    return Table(columns, rows)


def reconstruction_note(pruners: Iterable[str]) -> str:
    """Returns what the mark behind the names of reconstructions means, where one of them is among these."""
    shown = {name: RECONSTRUCTIONS[name] for name in sorted(set(pruners) & set(RECONSTRUCTIONS))}
    reasons = "; ".join(f"{name}, {reason}" for name, reason in shown.items())
    return f"{MARK}: a reconstruction ({reasons})." if reasons else ""


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.{max(0, 1 - math.floor(math.log10(max(1000 * seconds, 0.1))))}f}"


def gradients_table(lines: Sequence[tuple[str, Losses, Losses]], names: Sequence[str] = ()) -> Table:
    """Returns, for each pruned network, how its classes' excess loss goes with the dense network's gradients.

    Args:
        lines: Name, dense control (with gradients), and pruned network.
        names: The classes' names.
    """
    columns: list[Column] = [
        ("network", False),
        ("excess", True),
        ("most of", False),
        ("rank corr.", True),
        ("p", True),
    ]
    rows = []
    for name, dense, pruned in lines:
        excess = pruned.losses - dense.losses
        there = np.flatnonzero(~np.isnan(excess))
        most = int(there[np.argmax(excess[there])])
        correlation, p = rank_correlation(dense.gradients[there], excess[there]) if len(there) >= 3 else (math.nan, 1.0)
        rows.append(
            [
                name,
                f"{excess[there].mean():+.3f}",
                class_name(most, names),
                f"{correlation:+.2f}",
                p_value(p),
            ]
        )
    return Table(columns, rows)


def warning(images: int) -> str:
    """Returns what has to be said of so many images, or nothing."""
    return f"Only {images} images: most differences are within chance." if images < FEW else ""
