"""Runs over more images than their entries: the counts of a summary, held against what the entry's answers allow.

An entry has every answer on its images. A run over all 1,000 images is kept as its summary (``results/zoo``), which has
counts alone. They can't be counted again, but they can't contradict the entry either: its images are among the run's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunecert.bench.leaderboard.entry import RESULT, Entry
from prunecert.bench.leaderboard.imagesets import RANKED_IMAGES
from prunecert.bench.results.decode import plain
from prunecert.bench.results.stats import wilson
from prunecert.bench.results.summary_cells import ShareRecord, SummaryCell
from prunecert.bench.results.summary_types import Summary, read_summary
from prunecert.errors import UserError
from prunecert.printable import shortened

#: Folder of the summaries in a results tree.
FOLDER = "zoo"


@dataclass(frozen=True, eq=False)
class LargerRun:
    """What a run counted for an entry's network on more images than the entry has.

    Args:
        file: Name of the summary's file, with its folder.
        cell: The network's numbers.
        run: The run's summary.
    """

    file: str
    cell: SummaryCell
    run: Summary

    @property
    def images(self) -> int:
        """How many images."""
        return self.cell.images

    @property
    def result(self) -> Mapping[str, Any]:
        """The counts, in the form of an entry's ``result``."""
        counts = plain(self.cell)
        return {key: counts[key] for key in RESULT}


@dataclass(frozen=True)
class RunProblem:
    """What is wrong with a run's summary.

    Args:
        file: The file's name, with its folder.
        field: The field.
        what: What is wrong, in a few words.
    """

    file: str
    field: str
    what: str

    def __str__(self) -> str:
        """Returns one printable line."""
        return f"{self.file}: {shortened(self.field)}: {self.what}"


def larger_runs(root: Path, entries: Mapping[str, Entry]) -> tuple[dict[str, LargerRun], list[RunProblem]]:
    """Returns the runs over more images, by the entry's name: of several the one over most images.

    An entry on as many images as are ranked stands for itself: on others it would be ranked with nobody.

    Args:
        root: A results tree; without a folder ``zoo`` there are none.
        entries: Valid entries by name.

    Returns:
        The runs, and what is wrong with summaries; a network with a problem has no run.
    """
    folder = root / FOLDER
    by_network: dict[tuple[str, str, str], list[str]] = {}
    for name, entry in entries.items():
        by_network.setdefault(_network(entry), []).append(name)
    runs: dict[str, LargerRun] = {}
    problems: list[RunProblem] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        file = f"{FOLDER}/{shortened(path.name)}"
        try:
            run = read_summary(path)
        except UserError as error:
            problems.append(RunProblem(file, "file", str(error)))
            continue
        if not run.publishable or run.contradictions:
            reasons = "; ".join(run.unpublishable) or "verifiers contradict each other"
            problems.append(RunProblem(file, "publishable", f"the run is not publishable: {shortened(reasons)}"))
            continue
        for cell in run.cells:
            for name in by_network.get((cell.onnx_sha256, cell.eps, cell.data_fingerprint), ()):
                larger = LargerRun(file, cell, run)
                faults = [
                    RunProblem(file, f"cells.{cell.name}.{field}", what) for field, what in judge(larger, entries[name])
                ]
                problems += faults
                own = entries[name]["data"]["images"]
                if not faults and own != RANKED_IMAGES and cell.images > max(own, _images(runs.get(name))):
                    runs[name] = larger
    return runs, problems


def _network(entry: Entry) -> tuple[str, str, str]:
    return entry["files"]["onnx_sha256"], entry["cell"]["eps"], entry["data"]["fingerprint"]


def _images(run: LargerRun | None) -> int:
    return 0 if run is None else run.images


def judge(larger: LargerRun, entry: Entry) -> Iterator[tuple[str, str]]:
    """Yields (field, what is wrong) of a network's counts: by themselves, and beside the entry's answers.

    Args:
        larger: The counts.
        entry: A valid entry of the same network, radius and split.
    """
    cell = larger.cell
    for field in ("clean", "verified", "attacked"):
        yield from _judge_share(getattr(cell, field), cell.images, field)
    if not cell.verified.k <= cell.attacked.k <= cell.clean.k:
        yield "attacked", f"{cell.attacked.k} must lie between {cell.verified.k} verified and {cell.clean.k} correct"
    if cell.attacked.k - cell.verified.k != cell.undecided.total:
        yield "undecided.total", f"{cell.undecided.total} must be the {cell.attacked.k - cell.verified.k} in between"
    if not cell.finished or cell.images != cell.images_asked:
        yield "finished", "answers are missing: a truncated run"
    count = entry["data"]["images"]
    if cell.images < count or cell.split != entry["data"]["split"] or entry["data"]["indices"] is not None:
        return
    # The entry's images are the first ones of the run's, so that both must agree on them.
    result, more = entry["result"], cell.images - count
    clean, verified, attacked = (result[key]["k"] for key in ("clean", "verified", "attacked"))
    for field, k, least, most in (
        ("clean", cell.clean.k, clean, clean + more),
        ("verified", cell.verified.k, 0, attacked + more),
        ("attacked", cell.attacked.k, verified, clean + more),
    ):
        if not least <= k <= most:
            yield f"{field}.k", f"{k} can't be: by {shortened(entry['name'])} it is from {least} to {most}"


def _judge_share(share: ShareRecord, images: int, field: str) -> Iterator[tuple[str, str]]:
    if share.n != images or not 0 <= share.k <= share.n or share.n == 0:
        yield field, f"{share.k} of {share.n} can't be counted on {images} images"
        return
    low, high = wilson(share.k, share.n)
    expected = {"value": share.k / share.n, "low": low, "high": high}
    for key, number in expected.items():
        if not math.isclose(getattr(share, key) or 0.0, number, rel_tol=1e-9, abs_tol=1e-12):
            yield f"{field}.{key}", f"{getattr(share, key)!r} is written, but {number!r} follows from k and n"
