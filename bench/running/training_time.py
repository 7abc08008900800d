"""What training will take, by the throughput of checkpoints of the same kind; and threads that fight."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.bench.running.training_progress import shown_seconds
from prunecert.errors import UserError
from prunecert.printable import plural

if TYPE_CHECKING:
    from prunecert.models.pipeline import Job

#: Training images per second: by network and objective, and by stage.
Rates = dict[tuple[str, str], dict[str, float]]


def known_rates(folders: Sequence[Path]) -> Rates:
    """Returns the median throughput of the checkpoints in some folders; later folders only add what is lacking."""
    from prunecert.models.checkpoint import load_card

    rates: Rates = {}
    for folder in folders:
        samples: dict[tuple[str, str], dict[str, list[float]]] = {}
        for file in sorted(folder.glob("*.json")):
            try:
                card = load_card(file)
            except UserError:
                continue
            for stage, rate in card.throughput.items():
                samples.setdefault((card.network, card.objective), {}).setdefault(stage, []).append(rate)
        for kind, stages in samples.items():
            for stage, values in stages.items():
                rates.setdefault(kind, {}).setdefault(stage, statistics.median(values))
    return rates


def expected_seconds(job: Job, images: int, rates: Rates, *, pretrain: bool) -> float | None:
    """Returns what a cell will take on a machine like the one that the rates are of; None where nothing is known.

    Args:
        job: The cell.
        images: Training images.
        rates: See `known_rates`.
        pretrain: Whether the network that it begins with is yet to be trained.
    """
    stages = rates.get((job.network, job.objective), {})
    if not stages or not images:
        return None
    usual = statistics.median(stages.values())
    before = job.recipe.pretrain_epochs if pretrain or job.from_scratch else 0
    learning = job.recipe.prune_epochs if "scores" in stages and job.recipe.prune_epochs else 0
    epochs = {"pretrain": before, "scores": learning, "finetune": job.epochs - learning}
    return sum(count * images / (stages.get(stage) or usual) for stage, count in epochs.items())


def forecast(jobs: Sequence[Job], images: Callable[[Job], int], rates: Rates) -> list[str]:
    """Returns a line a cell, with its epochs and what they will take, and one for all.

    Args:
        jobs: What is to be trained, in order.
        images: Returns how many images an epoch of a job has; 0 where it isn't known.
        rates: See `known_rates`.
    """
    lines: list[str] = []
    pretrained: set[str] = set()
    total, unknown = 0.0, 0
    for job in jobs:
        shared = str(job.pretraining())
        first = job.pretrains and shared not in pretrained
        pretrained.add(shared)
        seconds = expected_seconds(job, images(job), rates, pretrain=first)
        total, unknown = total + (seconds or 0.0), unknown + (seconds is None)
        before = job.recipe.pretrain_epochs if job.pretrains or job.from_scratch else 0
        epochs = f"{before} + {job.epochs} epochs"
        note = ", pre-training shared with a cell above" if job.pretrains and not first else ""
        lines.append(f"{job.name}: {epochs}, {_about(seconds)}{note}")
    if total:
        lacking = f", without {unknown} of which nothing is known" if unknown else ""
        lines.append(
            f"All: {_about(total)}{lacking}, by the throughput of checkpoints that are there, on their machines."
        )
    return lines


def _about(seconds: float | None) -> str:
    return "no checkpoint of its kind says how long" if seconds is None else f"about {shown_seconds(seconds)}"


def crowd_hint(threads: int, others: int, cores: int) -> str:
    """Returns what to do where training has more threads than there are processors; nothing where it hasn't.

    Example:
        >>> crowd_hint(2, 1, 2)
        'hint: 2 trainings of 2 threads each share 2 cores, and slow each other down; --threads 1 ends that.'
        >>> crowd_hint(2, 0, 2)
        ''

    Args:
        threads: Torch's, of this process.
        others: Other processes that train into the same folder.
        cores: Processors that this process may use.
    """
    if threads * (others + 1) <= cores:
        return ""
    trainings = f"{others + 1} trainings of {threads} threads each share" if others else f"{threads} threads share"
    own = max(1, cores // (others + 1))
    remedy = f"--threads {own} ends that" if own < threads else "let one of them wait"
    return f"hint: {trainings} {plural(cores, 'core')}, and slow each other down; {remedy}."


def trainings_at_work(work: Path, locks: Path = Path("/proc/locks")) -> int:
    """Returns how many other processes train into a folder on processors of this one's, by the locks that they hold.

    The system's list is read, and no lock tried: trying would make another process believe that a cell is taken. Who is
    bound to other processors (``taskset``) is in nobody's way.

    Args:
        work: The folder of the locks.
        locks: Linux's list of all locks; where there is none, nobody is seen.
    """
    files = {(status.st_dev, status.st_ino) for status in (file.stat() for file in work.glob("*.lock"))}
    try:
        lines = locks.read_text().splitlines()
    except OSError:
        return 0
    holders: set[int] = set()
    for line in lines:
        match = re.search(r"FLOCK\s+\S+\s+WRITE\s+(\d+)\s+([0-9a-f]+):([0-9a-f]+):(\d+)\s", line)
        # One that waits for a lock has an arrow before it, and holds none by that.
        if match is None or "->" in line:
            continue
        device = os.makedev(int(match[2], 16), int(match[3], 16))
        if (device, int(match[4])) in files:
            holders.add(int(match[1]))
    return sum(_shares_processors(holder) for holder in holders - {os.getpid()})


def _shares_processors(process: int) -> bool:
    """Says whether another process may run where this one may; yes where the system can't say."""
    try:
        return not os.sched_getaffinity(process).isdisjoint(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return True
