"""Trains the cells of a suite, one after another: what `bench.train` is for people, this is for programs.

TrainingRequest ─ plan ─ forecast (dry run) ─ refusals ─ data ─┬─ cell: Pipeline.run ── checkpoint, card
                                                               │    each epoch ── history, screen, trackers
                                                               └─ figure of the history ── next cell
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.bench.machine import cores
from prunecert.bench.planning import select
from prunecert.bench.running.cell_archives import Archiver, archive_file
from prunecert.bench.running.training import (
    Deadline,
    Throughput,
    by_value,
    is_done,
    parents_first,
    plan,
    prepare_torch,
    refuse,
)
from prunecert.bench.running.training_logs import TRACKERS, Tracker, values_of
from prunecert.bench.running.training_progress import TrainingProgress
from prunecert.bench.running.training_time import crowd_hint, forecast, known_rates, trainings_at_work
from prunecert.bench.schema.suite import Suite
from prunecert.errors import UserError
from prunecert.models.checkpoint_folders import ZOO

if TYPE_CHECKING:
    from prunecert.models.checkpoint import Card
    from prunecert.models.pipeline import Job
    from prunecert.models.reports import EpochReport

#: Training images of CIFAR-10, without the held-out ones, and those.
_CIFAR10_IMAGES = (45_000, 5_000)


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What is asked of a training.

    Args:
        suite: The suite.
        named: How it was named by who asks: for the command on cards.
        cells: Shell patterns of cell names, comma-separated; None: all.
        out: Folder of checkpoints.
        data_root: Folder of the data; None: it is looked for.
        device: Torch device.
        threads: CPU threads; 0 for torch's number.
        deadline: When to stop.
        subset: So many training and held-out images only, or so many of both together where a recipe holds none out;
            None: all.
        force: Whether what has a checkpoint is trained again.
        dry_run: Whether it is only said what would be trained.
        trackers: Names of `TRACKERS` that are told.
        archives: Folder into which each finished cell is written as one archive as well, or None.
    """

    suite: Suite
    named: str
    cells: str | None = None
    out: Path = select.CHECKPOINTS
    data_root: Path | None = None
    device: str = "cpu"
    threads: int = 0
    deadline: Deadline = field(default_factory=Deadline)
    subset: int | None = None
    force: bool = False
    dry_run: bool = False
    trackers: tuple[str, ...] = ()
    archives: Path | None = None

    @property
    def unfit(self) -> str:
        """Why nothing of it may be published, or nothing."""
        return f"trained on {self.subset:,} images only (--subset)" if self.subset is not None else ""


def train_cells(request: TrainingRequest, tell: Callable[[str], None] = print) -> None:
    """Trains what is not trained yet.

    Args:
        request: What is asked for.
        tell: Takes a line for people.

    Raises:
        UserError: Anything about the input, a loss that is no number any more, or too little memory; what is finished
            stays, and the same request goes on after the last whole epoch.
    """
    if request.subset is not None and request.out.resolve() == ZOO.resolve():
        raise UserError("--subset is refused without --out: networks trained on a few images are not for the zoo.")
    jobs = plan(request.suite, request.cells, request.named)
    if request.deadline.text is not None:
        jobs = by_value(jobs)
    todo = parents_first([job for job in jobs if request.force or not is_done(request.out, job, request.unfit)])
    unarchived = [job for job in jobs if job not in todo and _lacks_archive(request, job)]
    tell(f"{len(jobs)} cells, {len(jobs) - len(todo)} trained already, {len(todo)} to train.")
    planned = {job.name: job for job in todo}
    parents = [refuse(job, request.out, planned) for job in todo]
    for parent in dict.fromkeys(file for file in parents if file is not None):
        tell(f"The parent is {parent}.")
    for name in dict.fromkeys(job.recipe.parent for job in todo if job.recipe.parent in planned):
        tell(f"The parent is {name}, which is trained first.")
    if request.dry_run:
        rates = known_rates([request.out, ZOO])
        for line in forecast(todo, _epoch_images(request), rates):
            tell(f"  {line}")
    elif todo or unarchived:
        _Training(request, todo, tell).run(unarchived)


def _lacks_archive(request: TrainingRequest, job: Job) -> bool:
    """Whether a finished cell should have an archive and has none; shipped ones need none."""
    folder = request.archives
    is_own = (request.out / f"{job.name}.json").is_file()
    return folder is not None and is_own and not archive_file(folder, job.name).exists()


def _epoch_images(request: TrainingRequest) -> Callable[[Job], int]:
    """Returns how many images an epoch of a job has; 0 where the data would have to be fetched to know."""
    from prunecert.models.datasets.source import CIFAR10, load_split

    if request.suite.data.name == CIFAR10:
        train, held_out = _CIFAR10_IMAGES
    else:
        data = request.suite.data
        try:
            train, held_out = (len(load_split(data, s, request.data_root, download=False)) for s in ("train", "val"))
        except UserError:
            train = held_out = 0

    def images(job: Job) -> int:
        whole = train if job.recipe.holdout else train + held_out
        return min(whole, request.subset or whole)

    return images


class _Training:
    """A training under way."""

    def __init__(self, request: TrainingRequest, todo: Sequence[Job], tell: Callable[[str], None]) -> None:
        from prunecert.models.data import first_images
        from prunecert.models.datasets.source import load_split
        from prunecert.models.pipeline import Pipeline

        prepare_torch(request.device, request.threads)
        self.request, self.todo, self.tell = request, todo, tell
        self.work = request.out / ".work"
        data = request.suite.data
        train, val = (first_images(load_split(data, s, request.data_root), request.subset) for s in ("train", "val"))
        self.progress = TrainingProgress(todo)
        self.trackers: list[Tracker] = []
        self.pipeline = Pipeline(
            request.out,
            self.work,
            train,
            val,
            request.device,
            self._epoch,
            hear_step=self.progress.step,
            stop=request.deadline.late,
            unfit=request.unfit,
            subset=request.subset,
        )
        self.archiver = None if request.archives is None else Archiver(request.archives, self.pipeline)

    def run(self, unarchived: Sequence[Job] = ()) -> None:
        """Trains cell by cell.

        Args:
            unarchived: Cells whose training was finished before, but not their archives.
        """
        from prunecert.models.faults import OutOfTimeError
        from prunecert.models.pipeline import exclusive

        request, throughput = self.request, Throughput()
        self._hint()
        for job in unarchived:
            if self.archiver is not None:
                self.archiver.finish(job, self.todo)
        left: set[str] = set()
        for number, job in enumerate(self.todo, 1):
            with exclusive(self.work / f"{job.name}.lock", wait=False) as mine:
                if not mine:
                    left.add(job.name)
                    self.tell(f"{job.name}: another process is training it; left to it.")
                    continue
                if job.recipe.parent in left:
                    # A file of that name would be an older one, or one that ships.
                    left.add(job.name)
                    self.tell(f"{job.name}: another process is training its parent; left to it.")
                    continue
                if not request.force and is_done(request.out, job, request.unfit):
                    continue
                try:
                    card = self._cell(number, job)
                except OutOfTimeError:
                    if self.archiver is not None:
                        self.archiver.interrupt(job)
                    self.tell(
                        f"The budget of {request.deadline.text} is spent: {number - 1} of {len(self.todo)} cells are "
                        f"trained; the same command goes on with {job.name}."
                    )
                    break
                if self.archiver is not None:
                    self.archiver.finish(job, self.todo[number:])
                throughput.add(card)
                self.tell(_line(card))
        for line in throughput.lines():
            self.tell(line)
        self.tell(_next_step(request))

    def _cell(self, number: int, job: Job) -> Card:
        from prunecert.models.faults import OutOfTimeError, memory_errors

        self.progress.begin(number, job)
        if self.request.deadline.late():
            raise OutOfTimeError
        card: Card | None = None
        self.trackers = [TRACKERS[name](job, self.work / "logs" / name) for name in self.request.trackers]
        try:
            with memory_errors(f"Training {job.name} on {self.request.device}"):
                card = self.pipeline.run(job)
        finally:
            self.progress.end()
            self._draw(job)
            shares = {} if card is None else {k: v for k, v in card.accuracy.items() if k != "images"}
            for tracker in self.trackers:
                tracker.end(shares, finished=card is not None)
        return card

    def _epoch(self, report: EpochReport) -> None:
        self.progress.epoch(report)
        for tracker in self.trackers:
            tracker.epoch(report.number, values_of(report))

    def _draw(self, job: Job) -> None:
        """Draws what there is of a cell's history, also of one that is stopped on the way."""
        from prunecert.bench.report.training_figure import write_history_figure
        from prunecert.models.history import history_file

        write_history_figure(
            self.pipeline.rows, job.name, history_file(self.request.out / job.name).with_suffix(".svg")
        )

    def _hint(self) -> None:
        if self.request.device == "cpu":
            import torch

            hint = crowd_hint(torch.get_num_threads(), trainings_at_work(self.work), cores())
            if hint:
                self.tell(hint)


def _next_step(request: TrainingRequest) -> str:
    """Returns where the checkpoints are, and the command that verifies them or takes them back."""
    if request.archives is not None:
        where = " --out FOLDER" if request.unfit else ""
        return (
            f"archives of what is trained, and of what has begun (….work.tar), are in {request.archives}; fetch them, "
            f"and where the pack was made: prunecert unpack --pack PACK ARCHIVES{where}"
        )
    command = ["prunecert", "run", "--suite", request.named]
    if request.out.resolve() != select.CHECKPOINTS.resolve():
        command += ["--checkpoints", str(request.out)]
    return f"checkpoints are in {request.out}; to verify them: {shlex.join(command)}"


def _line(card: Card) -> str:
    return (
        f"{card.name}: kept {card.kept:,} of {card.weights:,} weights, {card.train_seconds:,.0f} s\n"
        f"  held-out images: {card.told()}"
    )
