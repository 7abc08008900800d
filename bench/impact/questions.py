"""``bench.retention --about``: who pays for pruning, which images, how much can go, and which method keeps most."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from prunecert.bench.impact import board, checkpoints, claims, networks
from prunecert.bench.leaderboard.entry import as_rows, entry_files
from prunecert.bench.leaderboard.recorded import load_whole_entry
from prunecert.bench.leaderboard.standing import one_for_each_cell
from prunecert.bench.report import impact, impact_tables
from prunecert.bench.report.impact_tables import ImpactTable
from prunecert.bench.results.impact.classes import class_changes
from prunecert.bench.results.impact.images import ImageOutcomes, outcomes_of, outcomes_of_rows
from prunecert.bench.results.impact.methods import BASELINE
from prunecert.bench.results.impact.pairs import Comparison, against_dense, by_family
from prunecert.bench.results.impact.potential import ALLOWANCE
from prunecert.bench.results.store import Log, is_run
from prunecert.bench.results.summary import read
from prunecert.bench.schema.cell import fitting
from prunecert.errors import UserError, did_you_mean
from prunecert.models import DENSE
from prunecert.models.checkpoint_folders import places

#: What a table may be about.
SUBJECTS = (
    "networks",
    "classes",
    "images",
    "potential",
    "methods",
    "contrasts",
    "trainings",
    "claims",
    "rates",
    "gradients",
)
#: Those that ask of checkpoints, not of images.
OF_CHECKPOINTS = ("gradients", "rates")

#: Those that hold methods against one that may be named.
_AGAINST = ("methods", "contrasts", "trainings")


@dataclass(frozen=True)
class ImpactQuestion:
    """What is to be shown.

    Args:
        source: A run, or a folder of leaderboard entries; of networks, a run's summary, too; of gradients and rates, a
            folder of checkpoints.
        subject: One of `SUBJECTS`.
        compressions: Only these, and the dense control; None for all.
        cells: Only cells whose name fits one of these comma-separated patterns, and the dense controls.
        allowance: Of prune potential: loss of accuracy that is allowed, a share.
        checkpoints: Folder with the networks' cards, for what training and evaluation cost.
        data_root: Folder of the data, for gradients.
        against: Of methods, contrasts and trainings: the pruner that they are held against.
        only: Only cells of these names; None for all.
    """

    source: Path
    subject: str
    compressions: frozenset[float] | None
    cells: str | None
    allowance: float
    checkpoints: Path
    data_root: Path | None
    against: str | None = None
    only: frozenset[str] | None = None


def tell(question: ImpactQuestion) -> None:
    """Prints the tables: for people on a terminal, as Markdown elsewhere.

    Raises:
        UserError: The source is neither, or holds nothing to compare.
    """
    console = Console() if sys.stdout.isatty() else None
    notes = []
    for part in parts_of(question, whole=console is None):
        if console is None:
            print("\n".join([f"**{part.title}**", "", *part.table.markdown(), ""]))
        else:
            console.print(part.table.terminal(part.title))
        notes += part.note.split("\n")
    for note in filter(None, dict.fromkeys(notes)):
        if console is None:
            print(note)
        else:
            console.print(note, markup=False, highlight=False)


def parts_of(question: ImpactQuestion, *, whole: bool = True) -> Iterator[ImpactTable]:
    """Yields the tables.

    Args:
        question: What is to be shown.
        whole: Whether tables may be wider than a terminal of 80 columns.

    Raises:
        UserError: See `tell`.
    """
    if not any(place.exists() for place in places(question.source)):
        raise UserError(f"{question.source} does not exist; give a run's folder, or that of the leaderboard's entries.")
    if question.subject in OF_CHECKPOINTS:
        _check_against(question, ())
        cards = checkpoints.cards_of(question.source, question.cells, question.compressions, question.only)
        if question.subject == "rates":
            yield from checkpoints.rates(cards, question.source)
        else:
            yield from checkpoints.gradients(cards, question.source, question.data_root)
        return
    if question.subject == "networks":
        _check_against(question, ())
        yield from networks.networks(
            question.source,
            question.checkpoints,
            compressions=question.compressions,
            patterns=question.cells,
            only=question.only,
            whole=whole,
        )
        return
    outcomes, names = _read(question.source)
    outcomes = [part for part in outcomes if question.only is None or part.cell.name in question.only]
    _check_against(question, outcomes)
    if question.subject != "claims" or question.cells or question.compressions:
        # Of claims, what isn't there yet is named: a run without a finished network is fine.
        outcomes = _chosen(outcomes, question)
    if question.subject in ("methods", "contrasts"):
        build_board = board.methods if question.subject == "methods" else board.contrasts
        yield from build_board(outcomes, question.checkpoints, question.against)
        return
    if question.subject == "trainings":
        yield from board.trainings(outcomes, question.against)
        return
    if question.subject == "claims":
        yield from claims.claims(outcomes, question.checkpoints)
        return
    groups = by_family(against_dense(outcomes))
    if not groups:
        raise UserError(
            f"{question.source} holds no pruned network with a dense control of its seed on the same images; verify "
            "the dense one, too."
        )
    build: Callable[[list[Comparison]], Iterator[ImpactTable]] = {
        "classes": lambda group: _classes(group, names),
        "images": lambda group: _images(group, names),
        "potential": lambda group: _potential(group, question.allowance),
    }[question.subject]
    for group in groups:
        yield from build(group)


def _read(source: Path) -> tuple[list[ImageOutcomes], tuple[str, ...]]:
    """Returns the finished networks of a run or of entries, and the classes' names."""
    if source.is_dir() and is_run(source):
        rows = read(Log(source))
        data = rows.latest().data if rows.sessions else []
        return outcomes_of_rows(rows), impact.class_names(data[0].source if data else "")
    if not source.is_dir():
        raise UserError(
            f"{source} is refused: --about needs the answers image by image; give a run's folder, or the folder of the "
            "leaderboard's entries (results)."
        )
    entries = [load_whole_entry(path) for path in entry_files(source)]
    sources = {str(entry["data"]["source"]) for entry in entries}
    read_ones = ((entry, part) for entry in entries if (part := outcomes_of(*as_rows(entry))) is not None)
    outcomes = [part for _, part in one_for_each_cell(read_ones)]
    if not outcomes:
        raise UserError(f"{source} holds neither a run nor a leaderboard entry; give the folder of either.")
    return outcomes, impact.class_names(sources.pop() if len(sources) == 1 else "")


def _check_against(question: ImpactQuestion, outcomes: Sequence[ImageOutcomes]) -> None:
    """Refuses a pruner to hold others against that isn't there, or that the subject has no use for."""
    if question.against is None:
        return
    if question.subject not in _AGAINST:
        raise UserError(
            f"--against is refused with --about {question.subject}; allowed are {', '.join(_AGAINST)}, which hold "
            "methods against one."
        )
    pruners = sorted({part.cell.pruner for part in outcomes} - {DENSE})
    if question.against not in pruners:
        raise UserError(did_you_mean(f"pruner of {question.source}", question.against, pruners))


def _chosen(outcomes: list[ImageOutcomes], question: ImpactQuestion) -> list[ImageOutcomes]:
    """Returns the networks asked for, and what they are held against."""
    everyone = outcomes
    if question.compressions is not None:
        outcomes = [part for part in outcomes if part.cell.compression in question.compressions]
    if question.cells is not None:
        names = set(fitting((part.cell.name for part in outcomes), question.cells, str(question.source)))
        outcomes = [part for part in outcomes if part.cell.name in names]
    if not outcomes:
        raise UserError(f"{question.source} holds no finished network of those asked for.")
    kept = set(map(id, outcomes))
    # Of the seeds asked for: the mean of a control's other seeds is no control.
    controls = {(part.family, part.cell.seed, DENSE, 1.0) for part in outcomes}
    if question.subject in ("methods", "trainings"):
        baseline = question.against or BASELINE
        controls |= {(part.family, part.cell.seed, baseline, part.cell.compression) for part in outcomes}

    def control(part: ImageOutcomes) -> bool:
        return (part.family, part.cell.seed, part.cell.pruner, part.cell.compression) in controls

    return [part for part in everyone if id(part) in kept or control(part)]


def _classes(group: list[Comparison], names: Sequence[str]) -> Iterator[ImpactTable]:
    for comparison in group:
        images = len(comparison.numbers)
        note = impact_tables.CLASS_NOTE + (f" {few}" if (few := impact_tables.warning(images)) else "")
        changes = class_changes(comparison)
        table = impact_tables.classes_table(comparison, names, changes=changes)
        lines = filter(None, [note, impact_tables.excess_note(comparison, changes, names)])
        yield ImpactTable(f"{comparison.title}, {images} images", table, "\n".join(lines))


def _images(group: list[Comparison], names: Sequence[str]) -> Iterator[ImpactTable]:
    table = impact_tables.exemplars_table(group, names)
    if table.rows:
        images = min(len(comparison.numbers) for comparison in group)
        yield ImpactTable(f"{group[0].family_title}, {images} images", table, impact_tables.EXEMPLAR_NOTE)


def _potential(group: list[Comparison], allowance: float) -> Iterator[ImpactTable]:
    title = f"{group[0].family_title}: largest compression that loses at most {100 * allowance:g} points"
    yield ImpactTable(title, impact_tables.potential_table(group, allowance), "95 % bootstrap intervals over images.")


def allowance_of(points: float) -> float:
    """Returns an allowance in points as a share.

    Raises:
        UserError: It is outside of 0 to 100.
    """
    if not 0 <= points <= 100:
        raise UserError(f"Allowance {points:g} is refused; it is in points of accuracy, 0 to 100, e.g. 0.5.")
    return points / 100


#: What the published figures allow, in points.
DEFAULT_ALLOWANCE = 100 * ALLOWANCE
