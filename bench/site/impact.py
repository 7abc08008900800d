"""What pruning takes from whom, as the site shows it: by class on an entry's page, by method on the board.

All of it is counted on the entries' own images, whose answers are known one by one; see `bench.results.impact`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunecert.bench.leaderboard.entry import as_rows
from prunecert.bench.leaderboard.standing import one_for_each_cell
from prunecert.bench.report import contrast_tables, training_tables
from prunecert.bench.report import impact_tables as tables
from prunecert.bench.report.medium import Table
from prunecert.bench.results.impact.contrasts import contrast_lines
from prunecert.bench.results.impact.costs import Costs, train_seconds, trained
from prunecert.bench.results.impact.images import ImageOutcomes, outcomes_of
from prunecert.bench.results.impact.methods import BASELINE, MethodLine, method_lines
from prunecert.bench.results.impact.pairs import Comparison, against_dense, compare
from prunecert.bench.results.impact.trainings import trained_boards
from prunecert.bench.site.view import Row

#: Permutations for a page's classes: the smallest p value is a two hundredth, before it is corrected.
_REPEATS = 999
#: Rows of which a board of thousands shows tables; more are in the downloads.
_MOST = 400


@dataclass(frozen=True)
class Impact:
    """What pruning takes from the networks of a family.

    Args:
        network: The network.
        objective: Its objective.
        eps: The radius.
        by: Who submitted, or an empty text where all are one's.
        images: How many images have answers.
        tests: Methods against the dense control and against LWM.
        exemplars: Images whose guarantee is lost and gained.
        more: Further tables: heading, table, and what has to be said of it; those without lines are left out.
    """

    network: str
    objective: str
    eps: str
    by: str
    images: int
    tests: Table
    exemplars: Table
    more: tuple[tuple[str, Table, str], ...] = ()

    @property
    def title(self) -> str:
        """All that tells it from others."""
        return f"{self.network}, {self.objective}, ε = {self.eps}" + (f", by {self.by}" if self.by else "")


def outcomes(row: Row) -> ImageOutcomes | None:
    """Returns what became of each of an entry's own images."""
    return outcomes_of(*as_rows(row.entry))


def by_class(row: Row) -> Table | None:
    """Returns an entry's classes beside those of its dense control, or None where it has none."""
    if row.dense is None or row.dense.entry["data"]["images_sha256"] != row.entry["data"]["images_sha256"]:
        return None
    dense, pruned = outcomes(row.dense), outcomes(row)
    comparison = compare([dense], [pruned]) if dense is not None and pruned is not None else None
    return None if comparison is None else tables.classes_table(comparison, row.class_names, repeats=_REPEATS)


def impacts(rows: Sequence[Row]) -> list[Impact]:
    """Returns what pruning takes, family by family, of those that have a pruned network with a dense control."""
    submitters: dict[tuple[tuple[str, str, str], str, str], list[tuple[Row, ImageOutcomes]]] = defaultdict(list)
    for row in rows[:_MOST]:
        if (part := outcomes(row)) is not None:
            submitters[row.family, row.entry["by"], row.data_fingerprint].append((row, part))
    several = len({by for _, by, _ in submitters}) > 1
    shown = []
    names = rows[0].class_names if rows else ()
    for (family, by, _), everyone in sorted(submitters.items(), key=lambda item: item[0]):
        members = [member for _, member in one_for_each_cell((member[0].entry, member) for member in everyone)]
        parts = [part for _, part in members]
        comparisons = sorted(against_dense(parts), key=lambda one: (one.compression, one.pruner))
        if comparisons:
            costs = costs_of(members)
            (lines,) = method_lines(parts, costs)
            images = min(len(comparison.numbers) for comparison in comparisons)
            who = (by or "anonymous") if several else ""
            changes, lost = tables.tests_table(lines, BASELINE), tables.exemplars_table(comparisons, names)
            more = _more(parts, comparisons, lines, costs)
            shown.append(Impact(*family, who, images, changes, lost, more))
    return shown


def costs_of(members: Sequence[tuple[Row, ImageOutcomes]]) -> dict[str, Costs]:
    """Returns what networks cost, by the cell's name, as far as their entries tell."""
    seconds = train_seconds(
        {
            part.cell.name: trained(row.cell, row.entry["training"])
            for row, part in members
            if row.entry["training"] is not None
        }
    )
    costs = {}
    for _, part in members:
        total, estimated = seconds.get(part.cell.name, (None, False))
        costs[part.cell.name] = Costs(total, part.cell.multiply_adds, estimated)
    return costs


def _more(
    parts: Sequence[ImageOutcomes],
    comparisons: list[Comparison],
    lines: Sequence[MethodLine],
    costs: Mapping[str, Costs],
) -> tuple[tuple[str, Table, str], ...]:
    macs = {name: float(cost.macs) for name, cost in costs.items() if cost.macs is not None}
    tried = [line for board in contrast_lines(parts, macs) for line in board]
    unmatched = contrast_tables.unmatched_note(tried)
    several = (
        (
            "Groups of methods",
            contrast_tables.contrasts_table(tried),
            f"{contrast_tables.CONTRAST_NOTE} {unmatched}".strip(),
        ),
        *(one for boards in trained_boards(parts) for one in training_tables.trained_tables(boards)),
        ("Prune potential", tables.potential_table(comparisons), ""),
        ("What they cost", tables.costs_table(lines), ""),
        ("What is left of units", tables.structure_table(lines), tables.STRUCTURE_NOTE),
    )
    return tuple(item for item in several if item[1].rows)
