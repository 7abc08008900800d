"""``bench.retention --about claims``: what the board's networks say to what their papers claim."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.bench.report.impact_tables import ImpactTable
from prunecert.bench.report.medium import Column, Table
from prunecert.bench.results.impact.claims import (
    Evidence,
    Judgement,
    PaperClaim,
    Place,
    TrainingTrace,
    missing,
)
from prunecert.bench.results.impact.images import ImageOutcomes
from prunecert.bench.results.impact.paper_claims import CLAIMS, UNASKED
from prunecert.bench.results.impact.trainings import spreads_of
from prunecert.bench.schema.suite import load_suite
from prunecert.models.checkpoint_folders import locate
from prunecert.models.pruners.taxonomy import marked

if TYPE_CHECKING:
    from prunecert.models.checkpoint import Card
    from prunecert.models.history import EpochRow

#: The suite whose cells the claims are about.
SUITE = "cifar10-methods"
_Family = tuple[str, str, str]
NOTE = (
    "holds: the 95 % interval, paired by image and seed, is beyond what is claimed; does not hold: on the other side. "
    "Intervals are over images and of one claim each, not corrected for their number: every claim was made before, by "
    "its paper. over trainings: the interval over other images and other trainings, where methods have two seeds "
    "(--about trainings). What is counted and not tested is said of networks. The papers' networks, radius and data "
    "are others; a claim that fails here has failed here."
)


def claims(outcomes: Sequence[ImageOutcomes], checkpoints: Path) -> Iterator[ImpactTable]:
    """Yields the claims of each family of the suite.

    Args:
        outcomes: Verified networks.
        checkpoints: Folder with cards and histories.
    """
    planned: dict[_Family, dict[Place, list[str]]] = defaultdict(lambda: defaultdict(list))
    for cell, _ in load_suite(SUITE).cells:
        data = cell.to_json()
        family = data["network"], data["objective"], data["eps"]
        planned[family][cell.pruner, cell.compression].append(cell.name)
    verified: dict[_Family, dict[Place, list[ImageOutcomes]]] = defaultdict(lambda: defaultdict(list))
    for part in outcomes:
        verified[part.cell.network, part.cell.objective, part.cell.eps][part.cell.pruner, part.cell.compression].append(
            part
        )
    for family, cells in planned.items():
        needed = {place for claim in CLAIMS for place in claim.needs}
        records = {place: list(_records(checkpoints, names)) for place, names in cells.items() if place in needed}
        evidence = Evidence(verified[family], records, spreads_of(verified[family]))
        rows = [_row(claim, evidence) for claim in CLAIMS if all(place in cells for place in claim.needs)]
        if rows:
            yield ImpactTable(f"{', '.join(family)}: claims of the papers", _table(rows), _note())


def _note() -> str:
    return "\n".join([NOTE, *(f"{method}: {reason}." for method, reason in UNASKED.items())])


def _table(rows: list[list[str]]) -> Table:
    columns: list[Column] = [
        ("method", False),
        ("claim", False),
        ("cells", False),
        ("number", False),
        ("result", False),
    ]
    return Table(columns, rows)


def _row(claim: PaperClaim, evidence: Evidence) -> list[str]:
    judgement = claim.judge(evidence)
    if judgement is None:
        untrained = missing(claim, evidence.records)
        unverified = missing(claim, evidence.outcomes) if claim.verified else []
        if untrained and not (claim.verified and not unverified):
            judgement = Judgement("–", f"not trained yet: {', '.join(untrained)}")
        elif unverified:
            judgement = Judgement("–", f"not verified yet: {', '.join(unverified)}")
        else:
            what = "no images in common, or no proofs" if claim.verified else "no history of it, or too little measured"
            judgement = Judgement("–", f"can't be said: {what}")
    patterns = " ".join(f"*_{pruner}_x{compression:g}_*" for pruner, compression in claim.needs)
    return [marked(claim.method), claim.text, patterns, judgement.number, judgement.finding]


def _records(folder: Path, names: Sequence[str]) -> Iterator[TrainingTrace]:
    """Yields what is there of some cells' trainings."""
    from prunecert.models.checkpoint import load_card
    from prunecert.models.history import history_file, read_history

    for name in names:
        file = locate(folder, name)
        if not file.with_suffix(".json").is_file():
            continue
        card = load_card(file)
        if card.unfit:
            # Nothing may be published of it.
            continue
        history = history_file(file)
        yield record_of(card, read_history(history) if history.is_file() else [])


def record_of(card: Card, rows: Sequence[EpochRow]) -> TrainingTrace:
    """Returns what a card and a history tell of a training.

    Args:
        card: The card.
        rows: The history; may be empty.
    """
    epochs: dict[str, int] = {}
    seconds: dict[str, float] = defaultdict(float)
    robust = []
    images = 0
    for row in rows:
        epochs[row.stage] = row.epoch
        seconds[row.stage] += row.seconds
        if row.held_out is not None and row.held_out.pgd is not None:
            robust.append((row.stage, row.epoch, row.held_out.pgd))
            images = row.held_out.images
    rates = {name: 1 - share for name, share in card.sparsity_by_layer.items()}
    return TrainingTrace(card.seed, robust, images, epochs, dict(seconds), rates)
