"""A network's images: which it classifies, which no verifier breaks, which are proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prunecert.bench.results.outcome import settle
from prunecert.bench.results.session_types import SessionCell, present
from prunecert.bench.results.summary import Rows
from prunecert.verifiers.base import Kind, Status

#: Accuracies, each at most the one before: correct, broken by nobody, proved.
Metric = Literal["clean", "attacked", "verified"]
METRICS: tuple[Metric, ...] = ("clean", "attacked", "verified")
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_COLUMNS = ("numbers", "labels", "clean", "attacked", "verified", "seconds", "unstable")


@dataclass(frozen=True, eq=False)
class ImageOutcomes:
    """What became of each image of a network.

    Args:
        cell: The network's cell.
        numbers: The images' numbers in the split, ascending.
        labels: Their classes.
        clean: Classified correctly.
        attacked: Correct, and broken by no verifier.
        verified: Correct, proved by some verifier and broken by none.
        seconds: What all verifiers up to the deciding one took; 0 for misclassified images.
        unstable: ReLUs that the first verifier which counts them leaves unstable; NaN where it was not asked.
    """

    cell: SessionCell
    numbers: IntArray
    labels: IntArray
    clean: BoolArray
    attacked: BoolArray
    verified: BoolArray
    seconds: FloatArray
    unstable: FloatArray

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def family(self) -> tuple[str, str, str, str]:
        """What networks must share to be compared: architecture, objective, radius, data."""
        return self.cell.network, self.cell.objective, self.cell.eps, self.cell.data_fingerprint

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is known of it: nothing of `verified` where it was only attacked."""
        proves = any(stage.kind != Kind.ATTACK for stage in self.cell.stages)
        return METRICS if proves else METRICS[:2]

    def flags(self, metric: Metric) -> BoolArray:
        """Returns, for each image, whether it counts for an accuracy."""
        flags: BoolArray = getattr(self, metric)
        return flags

    def only(self, numbers: IntArray) -> ImageOutcomes:
        """Returns the part on these images, all of which it has."""
        places = np.searchsorted(self.numbers, numbers)
        parts: dict[str, Any] = {name: getattr(self, name)[places] for name in _COLUMNS}
        return ImageOutcomes(self.cell, **parts)


def outcomes_of(cell: SessionCell, rows: Rows) -> ImageOutcomes | None:
    """Returns a cell's images, by the rule that the summary counts them by, or None if it isn't finished.

    Args:
        cell: Its entry in a session row.
        rows: Image and verdict rows.
    """
    correct, labels = rows.correct.get(cell.image_key, {}), rows.labels.get(cell.image_key, {})
    numbers = sorted(present(cell.numbers, correct))
    if not numbers or len(numbers) < cell.images or not cell.stages:
        return None
    answers = [rows.answers.get(stage.key, {}) for stage in cell.stages]
    clean, attacked, verified = (np.zeros(len(numbers), dtype=bool) for _ in range(3))
    seconds, unstable = np.zeros(len(numbers)), np.full(len(numbers), np.nan)
    # Later verifiers see only what earlier ones leave open, so that their counts are those of the hard images.
    counts = next((by for by in answers if any(answer.unstable is not None for answer in by.values())), {})
    for place, image in enumerate(numbers):
        if not correct[image]:
            continue
        outcome = settle(cell.stages, [by_image.get(image) for by_image in answers])
        if not outcome.complete:
            return None
        clean[place] = True
        attacked[place] = outcome.status != Status.SAT
        verified[place] = outcome.status == Status.UNSAT
        seconds[place] = outcome.seconds
        if image in counts and (count := counts[image].unstable) is not None:
            unstable[place] = count
    classes = np.array([labels[image] for image in numbers], dtype=np.int64)
    return ImageOutcomes(cell, np.array(numbers, dtype=np.int64), classes, clean, attacked, verified, seconds, unstable)


def outcomes_of_rows(rows: Rows) -> list[ImageOutcomes]:
    """Returns the images of all finished cells of a run, in the order of its cells."""
    parts = [outcomes_of(cell, rows) for cell in rows.cells().values() if not cell.certified_only]
    return [part for part in parts if part is not None]
