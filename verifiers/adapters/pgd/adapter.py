"""Projected gradient descent (Madry et al. 2018) through foolbox: the attack whose failures bound accuracy from above.

The loss is the specification's own margin, min over disjuncts k of max over rows of (A_k y - b_k): for robustness the
logit of the label less the largest other one (Carlini and Wagner 2017). A box is mapped to the unit cube, so that
every box, and every image of a batch, has its own centre and radii.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from prunecert.verifiers.adapters.attacking import breaking, loss_of, verdicts_on
from prunecert.verifiers.adapters.hardware import packaged
from prunecert.verifiers.adapters.torch_adapter import TorchVerifier
from prunecert.verifiers.base import (
    Availability,
    Capabilities,
    FloatArray,
    Instance,
    Kind,
    Norm,
    Status,
    Times,
    Verdict,
)
from prunecert.verifiers.formats.support import OPERATORS
from prunecert.verifiers.settings import Setting


class Pgd(TorchVerifier):
    """PGD with restarts on the box or ball, many images in a batch."""

    name = "pgd"
    kind = Kind.ATTACK
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "steps": Setting(default=40, above=0, help="gradient steps of a restart"),
        "restarts": Setting(
            default=3,
            above=0,
            help="tries; the first starts at the centre, the others at random points; only images that have withstood "
            "all before are tried again",
        ),
        "step_size": Setting(default=0.1, above=0, help="length of a step relative to the radius"),
        "seed": Setting(
            default=0,
            at_least=0,
            help="of the random starts; an image's starts don't depend on the others of its batch",
        ),
    }
    batch_size = 100

    @classmethod
    def availability(cls) -> Availability:
        """Looks for foolbox and torch."""
        return packaged("foolbox", "torch", registry="")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """What the ONNX reader takes, boxes and balls, any linear property."""
        return Capabilities(operators=OPERATORS, norms=("linf", "l2"), specs="dnf")

    def start(self) -> None:
        """Imports torch and foolbox, and asks for the device."""
        super().start()
        from prunecert.verifiers.adapters.pgd import sets

        self._sets = sets

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Attacks all instances, restart by restart."""
        begin = time.perf_counter()
        limit = sum(instance.timeout for instance in instances)
        points: dict[int, FloatArray] = {}
        late = False
        self._try_starts(instances, points)
        for restart in range(self.settings["restarts"]):
            for norm in ("linf", "l2"):
                still = [i for i, item in enumerate(instances) if i not in points and item.norm == norm]
                late = late or time.perf_counter() - begin > limit
                if still and not late:
                    ends = self._attack([instances[i] for i in still], norm, restart)
                    points.update((i, point) for i, point in zip(still, ends, strict=True) if point is not None)
        times = Times(bound_s=(time.perf_counter() - begin) / len(instances))
        tries = f"{self.settings['restarts']} restarts of {self.settings['steps']} steps"
        missed = Verdict(
            Status.TIMEOUT if late else Status.UNKNOWN,
            "out of time before the last restart" if late else f"no counterexample in {tries}",
            times=times,
            device=self._label,
        )
        return verdicts_on(len(instances), points, missed, times)

    def _try_starts(self, instances: Sequence[Instance], points: dict[int, FloatArray]) -> None:
        """Adds the points among the instances' starts that are counterexamples already."""
        tried = [(i, np.asarray(p, np.float32)) for i, item in enumerate(instances) for p in item.starts.values()]
        tried = [(i, point) for i, point in tried if instances[i].contains(point)]
        if not tried:
            return
        chosen = [instances[i] for i, _ in tried]
        starts = self._sets.batch([point for _, point in tried], self._module, self._target)
        ends = breaking(self._module, starts, chosen, loss_of(chosen, self._target))
        for (i, _), end in zip(tried, ends, strict=True):
            if end is not None:
                points.setdefault(i, end)

    def _attack(self, instances: list[Instance], norm: Norm, restart: int) -> list[FloatArray | None]:
        """Returns a counterexample, or None, for each instance; all have the same norm."""
        arguments = (self._module, instances, restart, self.settings, self._target)
        points = self._sets.on_boxes(*arguments) if norm == "linf" else self._sets.on_balls(*arguments)
        return breaking(self._module, points, instances, loss_of(instances, self._target))
