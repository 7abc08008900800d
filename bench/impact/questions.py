"""``bench.retention --about``: what networks keep and cost, who pays for pruning, how much can go, by which method."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console

from prunecert.bench.leaderboard.entry import as_rows, entry_files, load_entry
from prunecert.bench.leaderboard.entryschema import misshapen
from prunecert.bench.planning.exports import export_cell
from prunecert.bench.report import impact, impact_tables, networks_table
from prunecert.bench.report.medium import Table
from prunecert.bench.results.impact.images import ImageOutcomes, outcomes_of, outcomes_of_rows
from prunecert.bench.results.impact.methods import BASELINE, Costs, method_lines
from prunecert.bench.results.impact.pairs import Comparison, against_dense, by_family
from prunecert.bench.results.impact.potential import ALLOWANCE
from prunecert.bench.results.store import Log, is_run
from prunecert.bench.results.summary import read, summarise, summarise_cell
from prunecert.bench.results.summary_cells import SummaryCell
from prunecert.bench.results.summary_types import read_summary
from prunecert.bench.schema.cell import fitting
from prunecert.errors import UserError
from prunecert.models import DENSE
from prunecert.models.checkpoint_folders import checkpoint_files, locate, places
from prunecert.onnx.count import count_shapes
from prunecert.printable import shortened

if TYPE_CHECKING:
    from prunecert.models.checkpoint import Card
    from prunecert.models.groups import Groups

#: What a table may be about.
SUBJECTS = ("networks", "classes", "images", "potential", "methods", "gradients")


@dataclass(frozen=True)
class ImpactQuestion:
    """What is to be shown.

    Args:
        source: A run, or a folder of leaderboard entries; of networks, a run's summary, too; of gradients, a folder of
            checkpoints.
        subject: One of `SUBJECTS`.
        compressions: Only these, and the dense control; None for all.
        cells: Only cells whose name fits one of these comma-separated patterns, and the dense controls.
        allowance: Of prune potential: loss of accuracy that is allowed, a share.
        checkpoints: Folder with the networks' cards, for what training and evaluation cost.
        data_root: Folder of the data, for gradients.
    """

    source: Path
    subject: str
    compressions: frozenset[float] | None
    cells: str | None
    allowance: float
    checkpoints: Path
    data_root: Path | None


@dataclass(frozen=True)
class ImpactTable:
    """A table with what stands above and below it."""

    title: str
    table: Table
    note: str = ""


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
        notes.append(part.note)
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
    if question.subject == "gradients":
        yield from _gradients(question)
        return
    if question.subject == "networks":
        yield from _networks(question, whole=whole)
        return
    outcomes, names = _read(question.source)
    outcomes = _chosen(outcomes, question)
    if question.subject == "methods":
        costs = dict(_costs(outcomes, question.checkpoints))
        for lines in method_lines(outcomes, costs):
            title = f"{lines[0].title}, {min(line.images for line in lines)} images"
            yield ImpactTable(title, impact_tables.methods_table(lines))
            tests = impact_tables.tests_table(lines)
            if tests.rows:
                yield ImpactTable(f"{lines[0].title}: differences on the same images", tests, impact_tables.METHOD_NOTE)
            yield ImpactTable(
                f"{lines[0].title}: what they cost", impact_tables.costs_table(lines), impact_tables.COST_NOTE
            )
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
    outcomes, sources = [], set()
    for path in entry_files(source):
        entry = _load(path)
        part = outcomes_of(*as_rows(entry))
        sources.add(str(entry["data"]["source"]))
        if part is not None:
            outcomes.append(part)
    if not outcomes:
        raise UserError(f"{source} holds neither a run nor a leaderboard entry; give the folder of either.")
    return outcomes, impact.class_names(sources.pop() if len(sources) == 1 else "")


def _load(path: Path) -> Any:
    """Returns a leaderboard entry.

    Raises:
        UserError: A field is missing or of another type.
    """
    entry = load_entry(path)
    for field, problem in misshapen(entry):
        raise UserError(f"{shortened(path)}: {field}: {problem}; prunecert check names all that is wrong with it.")
    return entry


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
    chosen, kept = {part.family for part in outcomes}, set(map(id, outcomes))
    controls = {(family, DENSE, 1.0) for family in chosen}
    if question.subject == "methods":
        controls |= {(part.family, BASELINE, part.cell.compression) for part in outcomes}
    return [
        part
        for part in everyone
        if id(part) in kept or (part.family, part.cell.pruner, part.cell.compression) in controls
    ]


def _networks(question: ImpactQuestion, *, whole: bool) -> Iterator[ImpactTable]:
    """Yields what networks keep and what they cost: for each by itself, or for all."""
    cells = _kept_cells(_cells(question.source), question)
    sizes = dict(_sizes([(cell.name, cell.checkpoint_sha256) for cell in cells], question.checkpoints))
    lines = networks_table.lines_of(
        cells, {name: networks_table.NetworkSizes(card.kept, macs) for name, (card, macs) in sizes.items()}
    )
    if not lines:
        raise UserError(f"{question.source} holds no finished network of those asked for.")
    unfinished = ", ".join(cell.name for cell in cells if not cell.finished)
    left_out = f"Not finished, and left out: {unfinished}." if unfinished else ""
    groups = {"Accuracies": lines} if whole else networks_table.families(lines)
    for title, group in groups.items():
        accuracies = networks_table.accuracies_table(group, narrow=not whole)
        yield ImpactTable(title, accuracies, networks_table.ACCURACY_NOTE)
        costs = networks_table.costs_table(group, narrow=not whole)
        note = " ".join(filter(None, (networks_table.cost_note(lines, narrow=not whole), left_out)))
        yield ImpactTable("Costs" if whole else f"{title}: costs", costs, note)


def _cells(source: Path) -> list[SummaryCell]:
    """Returns the cells of a run, of its summary, or of leaderboard entries."""
    summary = source / "summary.json" if source.is_dir() else source
    if summary.is_file():
        return read_summary(summary).cells
    if is_run(source):
        return [msgspec.convert(cell, SummaryCell) for cell in summarise(source)["cells"]]
    return [
        msgspec.convert(summarise_cell(*as_rows(entry)), SummaryCell)
        for path in entry_files(source)
        for entry in [_load(path)]
    ]


def _kept_cells(cells: Sequence[SummaryCell], question: ImpactQuestion) -> list[SummaryCell]:
    """Returns the cells asked for, and their dense controls."""
    chosen = [cell for cell in cells if question.compressions is None or cell.compression in question.compressions]
    if question.cells is not None:
        names = set(fitting((cell.name for cell in chosen), question.cells, str(question.source)))
        chosen = [cell for cell in chosen if cell.name in names]
    kept = {cell.name for cell in chosen}
    trainings = {(cell.network, cell.objective, cell.eps, cell.seed) for cell in chosen}
    return [
        cell
        for cell in cells
        if cell.name in kept
        or (cell.pruner == DENSE and (cell.network, cell.objective, cell.eps, cell.seed) in trainings)
    ]


def _classes(group: list[Comparison], names: Sequence[str]) -> Iterator[ImpactTable]:
    for comparison in group:
        images = len(comparison.numbers)
        note = impact_tables.CLASS_NOTE + (f" {few}" if (few := impact_tables.warning(images)) else "")
        yield ImpactTable(f"{comparison.title}, {images} images", impact_tables.classes_table(comparison, names), note)


def _images(group: list[Comparison], names: Sequence[str]) -> Iterator[ImpactTable]:
    table = impact_tables.exemplars_table(group, names)
    if table.rows:
        images = min(len(comparison.numbers) for comparison in group)
        yield ImpactTable(f"{group[0].family_title}, {images} images", table, impact_tables.EXEMPLAR_NOTE)


def _potential(group: list[Comparison], allowance: float) -> Iterator[ImpactTable]:
    title = f"{group[0].family_title}: largest compression that loses at most {100 * allowance:g} points"
    yield ImpactTable(title, impact_tables.potential_table(group, allowance), "95 % bootstrap intervals over images.")


def _costs(outcomes: Sequence[ImageOutcomes], folder: Path) -> Iterator[tuple[str, Costs]]:
    """Yields what networks cost, of those whose checkpoint of the same hash is there."""
    networks = [(part.cell.name, part.cell.checkpoint_sha256) for part in outcomes]
    for name, (card, macs) in _sizes(networks, folder):
        yield name, Costs(card.train_seconds, macs)


def _sizes(networks: Iterable[tuple[str, str | None]], folder: Path) -> Iterator[tuple[str, tuple[Card, int]]]:
    """Yields cards and multiply-adds, counted in the export, of networks whose checkpoint of the same hash is there."""
    from prunecert.models.checkpoint import load_card

    with tempfile.TemporaryDirectory() as scratch:
        for name, sha256 in networks:
            file = locate(folder, name)
            if not file.is_file() or not file.with_suffix(".json").is_file():
                continue
            card = load_card(file)
            if card.sha256 == sha256:
                path = export_cell(file, Path(scratch)).masked_path
                yield name, (card, count_shapes(path).sparse_macs)
                path.unlink(missing_ok=True)


def _gradients(question: ImpactQuestion) -> Iterator[ImpactTable]:
    """Yields, for each pruned checkpoint, how its classes' excess loss goes with the dense network's gradients."""
    from prunecert.models.checkpoint import load_card, load_model
    from prunecert.models.data import load
    from prunecert.models.groups import measure

    if not any(place.is_dir() for place in places(question.source)):
        raise UserError(f"{question.source} is refused: --about gradients needs a folder of checkpoints.")
    cards = [load_card(path) for path in checkpoint_files(question.source)]
    cards = [card for card in cards if not card.data and not card.unfit]
    if question.cells is not None:
        names = set(fitting((card.name for card in cards), question.cells, str(question.source)))
        cards = [card for card in cards if card.pruner == DENSE or card.name in names]
    if question.compressions is not None:
        cards = [card for card in cards if card.pruner == DENSE or card.compression in question.compressions]
    dense = {(card.network, card.objective, card.eps, card.seed): card for card in cards if card.pruner == DENSE}
    pruned = [card for card in cards if card.pruner != DENSE]
    pruned = [card for card in pruned if (card.network, card.objective, card.eps, card.seed) in dense]
    if not pruned:
        raise UserError(f"{question.source} holds no pruned checkpoint with its dense control.")
    data = load("val", question.data_root, allow_sample=False)
    measured: dict[str, Groups] = {}
    lines = []
    for card in pruned:
        control = dense[card.network, card.objective, card.eps, card.seed]
        if control.name not in measured:
            model = load_model(locate(question.source, control.name))[0]
            measured[control.name] = measure(model, data.images, data.labels, data.classes)
        model = load_model(locate(question.source, card.name))[0]
        after = measure(model, data.images, data.labels, data.classes, gradients=False)
        lines.append((card.name, measured[control.name], after))
    yield ImpactTable(
        f"Excess loss by class on {len(data)} held-out images",
        impact_tables.gradients_table(lines, impact.class_names(data.source)),
        impact_tables.GRADIENT_NOTE,
    )


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
