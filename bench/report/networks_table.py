"""A run's networks by what they keep and what they cost: one line a network, in two tables.

A terminal of 80 columns has both tables for each network, objective and radius by itself; in Markdown there is one of
each for all, which README and docs/zoo.md take as they are printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunecert.bench.report.kept_accuracies import Line, kept_of_control, of_cell, place
from prunecert.bench.report.medium import Column, Table
from prunecert.bench.report.table import seconds
from prunecert.bench.results.summary_cells import ShareRecord, SummaryCell
from prunecert.models import DENSE

#: The columns that a table for one network leaves to its title.
_SHARED: tuple[Column, ...] = (("network, objective, ε", False), ("seed", True), ("images", True))
_NAMED: tuple[Column, ...] = (("pruner", False), ("×", True))
_ACCURACIES: tuple[Column, ...] = (
    ("clean %", True),
    ("[verified, attacked] %", False),
    ("95 %", False),
    ("kept %", False),
    ("open", True),
)
_COSTS: tuple[Column, ...] = (
    ("kept weights", True),
    ("multiply-adds", True),
    ("% of dense", True),
    ("unstable", True),
    ("median s", True),
    ("total min", True),
)
#: The same where 80 columns must do: a heading is never wider than what stands under it may be.
_NARROW_COSTS: tuple[Column, ...] = (
    ("weights", True),
    ("M m-adds", True),
    ("% dense", True),
    ("unstable", True),
    ("median s", True),
    ("min", True),
)
ACCURACY_NOTE = (
    "verified ≤ true robust accuracy ≤ attacked, with the 95 % Wilson interval of the former; kept %: of the dense "
    "network's clean/attacked/verified accuracy, of the same seed on as many images; open: images that nobody decided."
)
_COST_NOTE = (
    "{weights}: those kept, of convolutions and linear layers; {macs}: of one image, with a weight that is not zero, "
    "before compaction; unstable: ReLUs, median over images{by}; median s: of a correctly classified image, {minutes}: "
    "of all of them, by all verifiers up to the deciding one, without start-up."
)


@dataclass(frozen=True)
class NetworkSizes:
    """What a network's checkpoint says of its size.

    Args:
        kept: Prunable weights that its mask keeps.
        macs: Multiply-adds with a weight that is not zero, of one image.
    """

    kept: int
    macs: int


@dataclass(frozen=True)
class NetworkLine:
    """A network of the tables.

    Args:
        cell: Its numbers.
        line: The same, as it is compared with its dense control.
        sizes: None where its checkpoint isn't there.
    """

    cell: SummaryCell
    line: Line
    sizes: NetworkSizes | None

    @property
    def shared(self) -> tuple[str, str, str]:
        """What stands in the title of a table for one network."""
        cell = self.cell
        return f"{cell.network}, {cell.objective}, {cell.eps}", str(cell.seed), f"{cell.images:,}"


def lines_of(cells: Sequence[SummaryCell], sizes: Mapping[str, NetworkSizes]) -> list[NetworkLine]:
    """Returns the finished networks, by network, objective, radius, seed and compression.

    Args:
        cells: Cells of a run.
        sizes: By the cell's name.
    """
    lines = [(cell, of_cell(cell)) for cell in cells]
    finished = [NetworkLine(cell, line, sizes.get(cell.name)) for cell, line in lines if line is not None]
    return sorted(finished, key=lambda one: place(one.line))


def families(lines: Sequence[NetworkLine]) -> dict[str, list[NetworkLine]]:
    """Returns the lines of each network, objective, radius, seed and number of images, by title."""
    grouped: dict[str, list[NetworkLine]] = {}
    for line in lines:
        what, seed, images = line.shared
        grouped.setdefault(f"{what}, seed {seed}, {images} images", []).append(line)
    return grouped


def accuracies_table(lines: Sequence[NetworkLine], *, narrow: bool = False) -> Table:
    """Returns what the networks keep.

    Args:
        lines: The networks, with their dense controls.
        narrow: Whether 80 columns must do; what networks share is left to the title.
    """
    controls = _controls(lines)
    rows = []
    for one in lines:
        cell = one.cell
        proved = "verified % (95 %)" in one.line.shares
        lower = _percent(cell.verified) if proved else "–"
        interval = f"{100 * cell.verified.low:.1f}–{100 * cell.verified.high:.1f}" if proved else "–"
        control = controls.get(one.line.group)
        kept = kept_of_control(one.line, None if control is None else control.line).replace(" / ", "/") or "–"
        accuracies = [_percent(cell.clean), f"[{lower}, {_percent(cell.attacked)}]", interval, kept]
        rows.append([*one.shared, *_named(cell), *accuracies, str(cell.undecided.total)])
    return _table(_ACCURACIES, rows, narrow)


def costs_table(lines: Sequence[NetworkLine], *, narrow: bool = False) -> Table:
    """Returns what the networks cost; see `accuracies_table`."""
    controls = _controls(lines)
    rows = []
    for one in lines:
        cell, sizes = one.cell, one.sizes
        control = controls.get(one.line.group)
        whole = None if control is None or control.sizes is None else control.sizes.macs
        unstable = _unstable(cell)[1]
        costs = [
            "–" if sizes is None else f"{sizes.kept:,}",
            "–" if sizes is None else f"{sizes.macs / 1e6:.3g}" if narrow else f"{sizes.macs:,}",
            "–" if sizes is None or not whole else f"{100 * sizes.macs / whole:.1f}",
            "–" if unstable is None else f"{unstable:,.0f}",
            seconds(cell.time.median_s),
            f"{cell.time.total_s / 60:.3g}" if cell.time.images else "–",
        ]
        rows.append([*one.shared, *_named(cell), *costs])
    return _table(_NARROW_COSTS if narrow else _COSTS, rows, narrow)


def cost_note(lines: Sequence[NetworkLine], *, narrow: bool = False) -> str:
    """Returns what the columns of `costs_table` stand for, and which networks' checkpoints are not there."""
    counted = list(dict.fromkeys(name for one in lines if (name := _unstable(one.cell)[0])))
    by = f", by the bounds of {' or '.join(counted)}" if counted else ""
    lacking = [one.cell.name for one in lines if one.sizes is None]
    missing = f" No checkpoint of that hash is here of {', '.join(lacking)}." if lacking else ""
    weights, macs, minutes = (
        ("weights", "M m-adds (millions of multiply-adds)", "min")
        if narrow
        else ("kept weights", "multiply-adds", "total min")
    )
    return _COST_NOTE.format(by=by, weights=weights, macs=macs, minutes=minutes) + missing


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], narrow: bool) -> Table:
    whole = Table((*_SHARED, *_NAMED, *columns), rows)
    return whole.only(range(len(_SHARED), len(whole.columns))) if narrow else whole


def _named(cell: SummaryCell) -> list[str]:
    return [cell.pruner, f"{cell.compression:g}"]


def _controls(lines: Sequence[NetworkLine]) -> dict[tuple[str, str, str, int], NetworkLine]:
    return {one.line.group: one for one in lines if one.cell.pruner == DENSE}


def _percent(share: ShareRecord) -> str:
    return "–" if share.value is None else f"{100 * share.value:.1f}"


def _unstable(cell: SummaryCell) -> tuple[str, float | None]:
    """Returns the first verifier that counts unstable ReLUs, and their median; it was asked about the most images."""
    for name, counts in cell.by_verifier.items():
        if counts.median_unstable is not None:
            return name, counts.median_unstable
    return "", None
