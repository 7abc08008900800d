"""AutoAttack (Croce and Hein 2020, arXiv 2003.01690) through `pyautoattack`: four attacks without parameters.

The standard version: APGD on the cross-entropy, targeted APGD on the DLR loss and targeted FAB against nine classes,
and 5,000 queries of Square. A box that is an l-infinity ball clipped to [0, 1] is attacked as the authors do it, many
images in a batch; any other box is mapped to the unit cube and attacked alone. Attacks that a network is too small for
are left out, and the answer names those that ran: Square needs images, targeted DLR four classes, DLR three.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from prunecert.verifiers.adapters.attacking import breaking, loss_of, verdicts_on
from prunecert.verifiers.adapters.autoattack.boxes import VERSIONS, ball, fitting, mapped, reshaped
from prunecert.verifiers.adapters.hardware import packaged
from prunecert.verifiers.adapters.torch_adapter import TorchVerifier
from prunecert.verifiers.base import Availability, Capabilities, FloatArray, Instance, Kind, Status, Times, Verdict
from prunecert.verifiers.formats.support import OPERATORS
from prunecert.verifiers.settings import Setting

if TYPE_CHECKING:
    import torch
    from torch import nn

_TARGETS = 9
#: Least height and width for which Square's windows make sense.
_SMALLEST_IMAGE = 4


class AutoAttack(TorchVerifier):
    """AutoAttack on boxes, many images in a batch."""

    name = "autoattack"
    kind = Kind.ATTACK
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "version": Setting(
            default="standard",
            choices=tuple(VERSIONS),
            help="plus: with five restarts, and the untargeted attacks as well",
        ),
        "seed": Setting(
            default=0,
            at_least=0,
            help="of all random choices; an image's also depend on the others of its batch",
        ),
    }
    batch_size = 100

    @classmethod
    def availability(cls) -> Availability:
        """Looks for pyautoattack and torch."""
        return packaged("pyautoattack", "torch", install="'prunecert[autoattack]'", registry="")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """What the ONNX reader takes, boxes, a label against all others."""
        return Capabilities(operators=OPERATORS)

    def start(self) -> None:
        """Imports torch and pyautoattack, and asks for the device."""
        super().start()
        import pyautoattack

        self._library = pyautoattack

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Attacks clipped balls of one radius together, and every other box by itself."""
        begin = time.perf_counter()
        balls = [ball(item) for item in instances]
        groups: dict[tuple[float, int], list[int]] = {}
        for i, item in enumerate(balls):
            # A box that is no ball is a group of one: its number tells it from the others.
            groups.setdefault((-1.0, i) if item is None else (item[1], -1), []).append(i)
        points: dict[int, FloatArray | None] = {}
        attacks: tuple[str, ...] = ()
        for (eps, _), members in groups.items():
            part = [instances[i] for i in members]
            centers = [item[0] for i in members if (item := balls[i]) is not None]
            answers, attacks = self._alone(part[0]) if eps < 0 else self._together(part, np.stack(centers), eps)
            points.update(zip(members, answers, strict=True))
        times = Times(bound_s=(time.perf_counter() - begin) / len(instances))
        missed = Verdict(Status.UNKNOWN, f"no counterexample by {', '.join(attacks)}", times=times, device=self._label)
        return verdicts_on(len(instances), points, missed, times)

    def _together(
        self, instances: Sequence[Instance], centers: FloatArray, eps: float
    ) -> tuple[list[FloatArray | None], tuple[str, ...]]:
        shape = (len(instances), *self._module.input_shape)
        start = self._torch.from_numpy(centers).reshape(shape)
        points, attacks = self._run(self._module, start, instances, eps)
        return self._judge(points, instances), attacks

    def _alone(self, instance: Instance) -> tuple[list[FloatArray | None], tuple[str, ...]]:
        shape = (1, *self._module.input_shape)
        corners = (instance.lower, instance.upper)
        lower, upper = (self._torch.from_numpy(corner).reshape(shape).to(self._target) for corner in corners)
        module = mapped(self._module, lower, upper)
        points, attacks = self._run(module, self._torch.full(shape, 0.5), [instance], 0.5)
        inside = lower + points.to(self._target) * (upper - lower)
        return self._judge(inside, [instance]), attacks

    def _run(
        self, module: nn.Module, start: torch.Tensor, instances: Sequence[Instance], eps: float
    ) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Returns the points that AutoAttack ends at, and the names of its attacks."""
        shape = start.shape
        image = len(shape) == 4 and min(shape[2:]) >= _SMALLEST_IMAGE
        classes = instances[0].classes
        attacks = tuple(fitting(VERSIONS[self.settings["version"]], image, classes))
        # All its attacks take four axes.
        flat = start if len(shape) == 4 else start.reshape(len(start), 1, 1, -1)
        network = module if len(shape) == 4 else reshaped(module, tuple(shape[1:]))
        version = self.settings["version"] if attacks == VERSIONS[self.settings["version"]] else "custom"
        attack = self._library.AutoAttack(
            network,
            norm="Linf",
            eps=eps,
            version=version,
            attacks=list(attacks) if version == "custom" else None,
            seed=self.settings["seed"],
            device=self._target,
        )
        targets = min(_TARGETS, classes - 1)
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
        if version == "custom" and self.settings["version"] == "standard":
            attack.apgd.n_restarts = attack.fab.n_restarts = 1
        labels = self._torch.tensor([item.label for item in instances])
        points, _ = attack.run_standard_evaluation(flat.to(self._target), labels.to(self._target), batch_size=len(flat))
        return points.detach().reshape(shape), attacks

    def _judge(self, points: torch.Tensor, instances: Sequence[Instance]) -> list[FloatArray | None]:
        return breaking(self._module, points.to(self._target), instances, loss_of(instances, self._target))
