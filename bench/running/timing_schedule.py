"""In which order networks are timed: so that whatever drifts while it runs, drifts for all ratios alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.timing import ComparedGroup


@dataclass(frozen=True)
class Visit:
    """One network's turn: some of its images, one verifier.

    Args:
        repeat: Which repeat, from 1.
        cell: Number of the plan.
        stage: Number of the verifier in the plan.
        batches: Places of the images, by what is handed over together.
    """

    repeat: int
    cell: int
    stage: int
    batches: tuple[tuple[int, ...], ...]


def schedule(plans: Sequence[CellPlan], groups: Sequence[ComparedGroup]) -> list[Visit]:
    """Returns the visits in order: repeat, verifier, group, chunk of images, and then the networks of the group.

    The networks of a group follow each other on the same few images, in an order drawn anew each time from the
    suite's seed, so that neither drift nor a neighbour's heat or cache favours one ratio. The order depends on nothing
    else, so that a run that was stopped goes on as it would have.

    Args:
        plans: All networks, with the images of their group.
        groups: Which of them are compared.
    """
    names = dict.fromkeys(stage.verifier for plan in plans for stage in plan.stages)
    repeats = max((group.timing.dose(name).repeats for group in groups for name in names), default=0)
    visits = []
    for repeat in range(1, repeats + 1):
        for verifier in names:
            for group in groups:
                visits += _turns(plans, group, verifier, repeat)
    return visits


def _turns(plans: Sequence[CellPlan], group: ComparedGroup, verifier: str, repeat: int) -> list[Visit]:
    dose = group.timing.dose(verifier)
    if repeat > dose.repeats:
        return []
    questions = [
        (number, stage, step.batch)
        for number in group.members
        for stage, step in enumerate(plans[number].stages)
        if step.verifier == verifier
    ]
    visits = []
    # Whole batches, so that an image's place says which batch it is in.
    chunk, images = -(-group.timing.chunk // dose.batch) * dose.batch, min(dose.images, group.images)
    for start in range(0, images, chunk):
        rank = {item: group.timing.order(group.name, verifier, repeat, start, item[0]) for item in questions}
        turn = sorted(questions, key=lambda item: rank[item])
        places = range(start, min(start + chunk, images))
        for number, stage, size in turn:
            batches = tuple(tuple(places[i : i + size]) for i in range(0, len(places), size))
            visits.append(Visit(repeat, number, stage, batches))
    return visits
