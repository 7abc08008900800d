"""Of a run's networks: does the excess loss of classes go with the dense network's gradients on them? For its report.

The networks are those of the checkpoints that the run verified, by their hash, and the images those that it asked
about: so a run says it of itself, without other data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunecert.bench.report import impact_tables
from prunecert.bench.report.medium import Table
from prunecert.bench.results.impact.images import ImageOutcomes
from prunecert.bench.results.session_types import SessionCell
from prunecert.errors import UserError
from prunecert.models import DENSE
from prunecert.models.checkpoint_folders import locate

if TYPE_CHECKING:
    from torch import nn

    from prunecert.models.data import Dataset
    from prunecert.models.groups import Groups

#: Fewer images have too few of each class.
LEAST = 200
#: More take long, and say no more.
_IMAGES = 1_000
#: What a page may take at a run's end: networks, and weights of each.
_NETWORKS, _WEIGHTS = 60, 1_000_000


@dataclass(frozen=True)
class Gradients:
    """The table.

    Args:
        table: See `impact_tables.gradients_table`.
        images: How many images it is of.
        left_out: How many pruned networks are too large or too many, or have no checkpoint here.
    """

    table: Table
    images: int
    left_out: int


def gradients(
    outcomes: Iterable[ImageOutcomes], names: Sequence[str], data: Sequence[Dataset], folder: Path
) -> Gradients | None:
    """Returns the table of a run's pruned networks that have their dense control beside them.

    Args:
        outcomes: The run's networks.
        names: The classes' names.
        data: The splits in use.
        folder: Folder of the checkpoints.

    Returns:
        None where there is none to be measured, or of too few images.
    """
    from prunecert.models.groups import measure

    parts = list(outcomes)
    dense = {(part.family, part.cell.seed): part for part in parts if part.cell.pruner == DENSE}
    pruned = [part for part in parts if part.cell.pruner != DENSE and (part.family, part.cell.seed) in dense]
    measured: dict[str, Groups] = {}
    lines = []
    images = 0
    for part in pruned[:_NETWORKS]:
        control = dense[part.family, part.cell.seed]
        split = next((one for one in data if one.fingerprint == part.cell.data_fingerprint), None)
        numbers = np.intersect1d(part.numbers, control.numbers)[:_IMAGES]
        models = [_model(one.cell, folder) for one in (control, part)]
        if split is None or len(numbers) < LEAST or models[0] is None or models[1] is None:
            continue
        x, y = _taken(split, numbers)
        if control.cell.name not in measured:
            measured[control.cell.name] = measure(models[0], x, y, split.classes)
        after = measure(models[1], x, y, split.classes, gradients=False)
        lines.append((part.cell.name, measured[control.cell.name], after))
        images = len(y)
    if not lines:
        return None
    return Gradients(impact_tables.gradients_table(lines, names), images, len(pruned) - len(lines))


def _taken(split: Dataset, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Returns the images and labels of some numbers."""
    places = np.flatnonzero(np.isin(split.indices, numbers))
    return split.images[places], split.labels[places]


def _model(cell: SessionCell, folder: Path) -> nn.Module | None:
    """Returns the network of a cell's checkpoint, or None where it isn't there, is another one, or too large."""
    from prunecert.models.checkpoint import load_card, load_model

    file = locate(folder, cell.name)
    if not file.is_file() or not file.with_suffix(".json").is_file():
        return None
    try:
        card = load_card(file)
        if card.sha256 != cell.checkpoint_sha256 or card.weights > _WEIGHTS:
            return None
        return load_model(file)[0]
    except UserError:
        # The run has its verdicts: a checkpoint that went bad since is no reason to have no report.
        return None
