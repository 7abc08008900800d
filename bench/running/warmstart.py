"""Attacks that begin at the adversarial examples of the neighbouring ratio.

The cells of one network, objective, radius and seed form a chain by rising compression. An attack that sees every image
first tries, on each image, the counterexamples that the same attack has found on the networks before it in the chain,
the nearest first; one that breaks this network too saves the attack, and one that doesn't costs a forward pass. What
counts is the replay, here as everywhere.

An attack with starts of its own may find what it would not have found without. So that answers still depend on nothing
but what is in their ids, the networks before it in the chain are part of them; an attack waits until those before it
have answered; and all cells must be in one process, so that shards cannot tear a chain apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from prunecert.bench.planning.plan import CellPlan, instance_id
from prunecert.bench.planning.stages import Stage
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.schema.cell import show_eps
from prunecert.verifiers.base import FloatArray, Instance, Kind, Status

#: Starts tried for an image; more would rarely help, and each is one more forward pass.
_MOST = 2
_Place = tuple[int, int]


def _warm(stage: Stage) -> bool:
    return stage.kind is Kind.ATTACK and stage.everyone


def _chains(plans: Sequence[CellPlan]) -> dict[_Place, list[_Place]]:
    """Returns, for each attack of each cell, those before it in its chain, nearest first, as numbers."""
    order = sorted(range(len(plans)), key=lambda n: (plans[n].cell.compression, plans[n].cell.pruner, n))
    chains_of: dict[tuple[object, ...], list[_Place]] = {}
    before: dict[_Place, list[_Place]] = {}
    for number in order:
        plan = plans[number]
        cell = plan.cell
        for place, stage in enumerate(plan.stages):
            if _warm(stage):
                group = (cell.network, cell.objective, show_eps(cell.eps), cell.seed, plan.data.split)
                chain = chains_of.setdefault((*group, stage.verifier, stage.settings_hash), [])
                before[number, place] = chain[::-1]
                chain.append((number, place))
    return before


def warm_plans(plans: Sequence[CellPlan]) -> tuple[CellPlan, ...]:
    """Returns the plans with the networks before them in the ids of their attacks.

    Args:
        plans: All cells of the run.
    """
    before = _chains(plans)
    warmed = []
    for number, plan in enumerate(plans):
        stages = [
            replace(stage, after=tuple(plans[cell].export.sha256 for cell, _ in before.get((number, place), ())))
            for place, stage in enumerate(plan.stages)
        ]
        warmed.append(replace(plan, stages=tuple(stages)))
    return tuple(warmed)


class WarmStart:
    """Hands out starts, and says when an attack may begin.

    Args:
        plans: What `warm_plans` returned.
        run: The run directory; counterexamples lie in it by the ids of their instances.
    """

    def __init__(self, plans: Sequence[CellPlan], run: Path) -> None:
        self._plans = plans
        self._run = run
        self._before = _chains(plans)
        #: The cells' states, in the same order; set before anything is asked.
        self.cascades: Sequence[CellCascade] = ()

    def ready(self, cell: int, stage: int) -> bool:
        """Whether all attacks before one in its chain have answered."""
        return all(self.cascades[other].passed(place) for other, place in self._before.get((cell, stage), ()))

    def add_starts(self, batch: Batch, instances: Sequence[Instance]) -> list[Instance]:
        """Returns a batch's instances with the starts that there are for them."""
        before = self._before.get((batch.cell, batch.stage), ())
        return [
            replace(instance, starts=starts) if (starts := self._starts(before, position)) else instance
            for position, instance in zip(batch.positions, instances, strict=True)
        ]

    def _starts(self, before: Sequence[_Place], position: int) -> dict[str, FloatArray]:
        points: dict[str, FloatArray] = {}
        for cell, place in before:
            if len(points) < _MOST and self.cascades[cell].status(place, position) is Status.SAT:
                plan = self._plans[cell]
                identity = instance_id(plan.instance(position, place), plan.stages[place])
                path = self._run / "witnesses" / f"{identity}.npy"
                if path.is_file():
                    points[identity] = np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        return points
