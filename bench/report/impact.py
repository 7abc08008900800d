"""The report's section on what pruning takes from whom, with pictures of what loses or gains its guarantee."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from prunecert.bench.report import contrast_tables, training_tables
from prunecert.bench.report import impact_tables as tables
from prunecert.bench.report.gradients import Gradients
from prunecert.bench.report.medium import Table, templates
from prunecert.bench.results.impact.contrasts import contrast_lines
from prunecert.bench.results.impact.costs import costs_of_cards, counted_macs
from prunecert.bench.results.impact.exemplars import exemplars
from prunecert.bench.results.impact.images import ImageOutcomes, Metric
from prunecert.bench.results.impact.methods import BASELINE, method_lines
from prunecert.bench.results.impact.pairs import Comparison, against_dense, by_family
from prunecert.bench.results.impact.potential import ALLOWANCE
from prunecert.bench.results.impact.trainings import trained_boards

#: Pictures of each side; more only make the page heavy.
_PICTURES = 12
#: Permutations for each class; a page of fifty networks shouldn't take longer than its run.
_REPEATS = 1_999
#: More classes than this have too few images each, and would take a page and minutes.
_CLASSES = 100
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Pictures(Protocol):
    """A split, as far as pictures need it; see `models.data.Dataset`."""

    @property
    def images(self) -> npt.NDArray[np.float32]:
        """Pixels [N, C, H, W] in [0, 1]."""

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """The images' numbers."""

    @property
    def fingerprint(self) -> str:
        """Hash of the split."""


@dataclass(frozen=True)
class Picture:
    """An image for the page.

    Args:
        number: Its number in the split.
        name: Its class.
        uri: The PNG as a data URI.
    """

    number: int
    name: str
    uri: str


def class_names(source: str) -> tuple[str, ...]:
    """Returns the classes' names of a data set that is known by where it comes from, else nothing."""
    return _CIFAR10 if source in ("CIFAR-10", "CIFAR-10 (unofficial copy)") else ()


def section(
    outcomes: Iterable[ImageOutcomes],
    names: Sequence[str],
    data: Sequence[Pictures] = (),
    gradients: Gradients | None = None,
) -> str:
    """Returns the section as HTML, or nothing where no pruned network has a dense control.

    Args:
        outcomes: The run's networks.
        names: The classes' names.
        data: Splits in which the images are looked up; without them there are no pictures.
        gradients: What is known of excess losses and gradients.
    """
    outcomes = list(outcomes)
    groups = by_family(against_dense(outcomes))
    if not groups:
        return ""
    boards = _boards(outcomes)
    families = [
        {
            "title": f"{group[0].family_title}, {min(len(one.numbers) for one in group)} images",
            "warning": tables.warning(min(len(one.numbers) for one in group)),
            "boards": boards.get(group[0].family_title, ()),
            "exemplars": tables.exemplars_table(group, names),
            "potential": tables.potential_table(group),
            "comparisons": _opened([_shown(comparison, names, data) for comparison in group]),
        }
        for group in groups
    ]
    template = templates("prunecert.bench.report").get_template("impact.html.j2")
    return template.render(
        families=families,
        allowance=f"{100 * ALLOWANCE:g}",
        exemplar_note=tables.EXEMPLAR_NOTE,
        class_note=tables.CLASS_NOTE,
        gradients=gradients,
        gradient_note=tables.GRADIENT_NOTE,
    )


def _boards(outcomes: Sequence[ImageOutcomes]) -> dict[str, list[tuple[str, Table, str]]]:
    """Returns, by family, the methods side by side: heading, table, and what has to be said of it."""
    cards = {part.cell.name: part.cell.card for part in outcomes if part.cell.card is not UNSET}
    costs = costs_of_cards(cards, macs=counted_macs(outcomes))
    macs = {name: float(cost.macs) for name, cost in costs.items() if cost.macs is not None}
    boards: dict[str, list[tuple[str, Table, str]]] = {}
    for lines in method_lines(outcomes, costs):
        mark = tables.reconstruction_note(line.pruner for line in lines)
        boards[lines[0].title] = [
            ("Methods", tables.methods_table(lines), mark),
            ("Differences on the same images", tables.tests_table(lines, BASELINE), tables.METHOD_NOTE),
            ("What they cost", tables.costs_table(lines), tables.COST_NOTE),
            ("What is left of units", tables.structure_table(lines), tables.STRUCTURE_NOTE),
        ]
    for contrasts in contrast_lines(outcomes, macs):
        note = f"{contrast_tables.CONTRAST_NOTE} {contrast_tables.unmatched_note(contrasts)}".strip()
        boards[contrasts[0].family].append(("Groups of methods", contrast_tables.contrasts_table(contrasts), note))
    for trained in trained_boards(outcomes):
        boards[trained[0].family] += training_tables.trained_tables(trained)
    return {family: [one for one in board if one[1].rows] for family, board in boards.items()}


def _shown(comparison: Comparison, names: Sequence[str], data: Sequence[Pictures]) -> dict[str, Any]:
    metric: Metric = comparison.metrics[-1]
    images, few = exemplars(comparison, metric), len(np.unique(comparison.labels)) <= _CLASSES
    sides = (
        (f"{len(images.lost)} lost", images.lost, images.lost_classes),
        (f"{len(images.gained)} gained", images.gained, images.gained_classes),
    )
    fingerprint = comparison.pruned[0].cell.data_fingerprint
    split = next((part for part in data if part.fingerprint == fingerprint), None)
    return {
        "title": comparison.title,
        "lost": len(images.lost),
        "classes": tables.classes_table(comparison, names, repeats=_REPEATS) if few else None,
        "pictures": [
            (text if len(numbers) <= _PICTURES else f"{text}, the first {_PICTURES}", pictures)
            for text, numbers, labels in sides
            if split is not None and (pictures := _pictures(numbers, labels, names, split))
        ],
    }


def _opened(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Marks the comparison that loses most, which the page shows unfolded."""
    most = max(comparisons, key=lambda comparison: int(comparison["lost"]))
    return [{**comparison, "open": comparison is most} for comparison in comparisons]


def _pictures(numbers: Sequence[int], labels: Sequence[int], names: Sequence[str], split: Pictures) -> list[Picture]:
    pictures = []
    for number, label in zip(numbers[:_PICTURES], labels, strict=False):
        places = np.flatnonzero(split.indices == number)
        if len(places):
            uri = "data:image/png;base64," + base64.b64encode(png(split.images[places[0]])).decode()
            pictures.append(Picture(number, tables.class_name(label, names), uri))
    return pictures


def png(image: npt.NDArray[np.float32]) -> bytes:
    """Returns an image as a PNG file (ISO 15948), 8 bits a channel.

    Args:
        image: Pixels [C, H, W] in [0, 1], of one channel (grey) or three.
    """
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    height, width, channels = pixels.shape
    if channels not in (1, 3):
        raise ValueError(f"an image of {channels} channels has no picture")
    # Before each line its filter: none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
