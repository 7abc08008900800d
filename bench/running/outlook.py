"""How much of a run is left, how many array tasks that is, and how long they may take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.words import duration
from prunecert.bench.running.cascade import CellCascade
from prunecert.bench.running.slurm import Resources
from prunecert.verifiers.base import Status

#: By image key and image, whether it is classified correctly; by stage key and image, the answers.
KnownAnswers = tuple[Mapping[tuple[str, int], bool], Mapping[tuple[str, int], Status]]


def left(plans: Sequence[CellPlan], known_answers: KnownAnswers) -> list[int]:
    """Returns, for each cell, how many images still have something to be asked.

    Images of which nobody knows yet whether they are classified correctly count.

    Args:
        plans: The cells.
        known_answers: By image key and image, whether it is classified correctly; by stage key and image, the answers.
    """
    correct, verdicts = known_answers
    counts = []
    for number, plan in enumerate(plans):
        indices = [int(plan.data.indices[p]) for p in range(plan.images)]
        if plan.asks_all:
            # Certificates and pairs are asked about whatever the network makes of the image.
            fresh, right = [], list(range(plan.images))
        else:
            fresh = [p for p in range(plan.images) if (plan.image_key, indices[p]) not in correct]
            right = [p for p in range(plan.images) if correct.get((plan.image_key, indices[p]))]
        answers = plan.answers_among(verdicts, right)
        cascade = CellCascade(number, plan.stages, right, answers)
        open_images = {p for s in range(len(plan.stages)) for p in cascade.eligible(s) if (s, p) not in answers}
        counts.append(len(fresh) + len(open_images))
    return counts


def arrays(tasks: int, most: int) -> list[int]:
    """Splits tasks into arrays of nearly one size, none above Slurm's limit."""
    count = math.ceil(tasks / most)
    return [tasks // count + (number < tasks % count) for number in range(count)]


def worst_case_s(plans: Sequence[CellPlan], images: Sequence[int], tasks: int, workers: int) -> float:
    """Returns the seconds of a task in which every verifier reaches its limit on every image."""
    total = sum(n * sum(stage.timeout for stage in plan.stages) for plan, n in zip(plans, images, strict=True))
    return total / max(1, tasks) / workers


def measured_s(out: Path, plans: Sequence[CellPlan], images: Sequence[int], tasks: int, workers: int) -> float | None:
    """Returns the seconds of a task if the rest costs what the images of the same networks have cost so far.

    None if some network has no answers yet.
    """
    from prunecert.bench.results.outcome import seconds
    from prunecert.bench.results.row_types import VerdictRow
    from prunecert.bench.results.store import Log, collector_off, is_run

    spent: dict[str, float] = {}
    images_of: dict[str, set[tuple[str, int]]] = {}
    if is_run(out):
        network = {plan.name: plan.cell.network for plan in plans}
        with collector_off():
            for row in Log(out).rows():
                if isinstance(row, VerdictRow) and row.cell in network:
                    name = network[row.cell]
                    spent[name] = spent.get(name, 0.0) + seconds(row.times, including=("load", "start"))
                    images_of.setdefault(name, set()).add((row.cell, row.image))
    total = 0.0
    for plan, count in zip(plans, images, strict=True):
        if count and plan.cell.network not in images_of:
            return None
        total += count * spent[plan.cell.network] / len(images_of[plan.cell.network]) if count else 0.0
    return total / max(1, tasks) / workers


def workers_of(resources: Resources, workers: int | None) -> int:
    """Returns how many verifier processes a task is expected to have."""
    return workers or resources.cpus or 1


def describe(
    out: Path, plans: Sequence[CellPlan], images: Sequence[int], resources: Resources, workers: int | None, most: int
) -> list[str]:
    """Returns what a submission would be: tasks, arrays, time, sbatch's options.

    Args:
        out: The run directory.
        plans: The cells.
        images: What `left` returned.
        resources: What each task gets.
        workers: Verifier processes of a task, or None for its processors.
        most: Slurm's limit on an array.
    """
    total = sum(images)
    if not total:
        return ["Slurm: nothing is left to be asked; no task would be sent."]
    tasks = math.ceil(total / resources.chunk)
    side = workers_of(resources, workers)
    sizes = arrays(tasks, most)
    worst, measured = (
        worst_case_s(plans, images, tasks, side),
        measured_s(out, plans, images, tasks, side),
    )
    guess = "" if measured is None else f", about {duration(measured)} by what is measured so far"
    lines = [
        f"Slurm: {total} images have something left to be asked: {tasks} tasks of about {math.ceil(total / tasks)} "
        f"images, in {len(sizes)} array{'s' if len(sizes) > 1 else ''} of {max(sizes)} (MaxArraySize {most}), "
        f"at most {resources.parallel} of each side by side",
        f"time per task with {side} verifier process{'es' if side > 1 else ''}: at most {duration(worst)} (every "
        f"limit reached){guess}; the limit is {resources.minutes} min, after which a task is requeued and goes on",
        f"sbatch {resources.describe()}",
    ]
    if measured is not None and measured > resources.minutes * 60:
        lines.append("that is more than the limit: tasks would be requeued on the way; give a smaller --chunk")
    return lines
