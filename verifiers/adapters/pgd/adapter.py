"""Projected gradient descent (Madry et al. 2018) through foolbox: the attack whose failures bound accuracy from above.

The loss is the specification's own margin, min over disjuncts k of max over rows of (A_k y - b_k): for robustness the
logit of the label less the largest other one (Carlini and Wagner 2017). A box is mapped to the unit cube, so that
every box, and every image of a batch, has its own centre and radii.
"""

from __future__ import annotations

import importlib.metadata
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.adapters.hardware import first_missing, visible_devices
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

if TYPE_CHECKING:
    import torch

    from prunecert.verifiers.adapters.pgd.engine import Loss

#: A point counts only if its margin, in the float32 of torch, is below 0 by so much of the outputs' scale: the replay
#: in onnxruntime, with no tolerance, rounds otherwise.
MARGIN = 1e-6


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
        missing = first_missing("torch", "foolbox")
        if missing is not None:
            return Availability(False, hint=f"{missing} is missing: python -m pip install {missing}")
        version = importlib.metadata.version("foolbox")
        return Availability(True, version, devices=visible_devices(), source=f"foolbox {version}")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """What the ONNX reader takes, boxes and balls, any linear property."""
        return Capabilities(operators=OPERATORS, norms=("linf", "l2"), specs="dnf")

    def start(self) -> None:
        """Imports torch and foolbox, and asks for the device."""
        super().start()
        from prunecert.verifiers.adapters.pgd import engine

        self._engine = engine

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Attacks all instances, restart by restart."""
        begin = time.perf_counter()
        limit = sum(instance.timeout for instance in instances)
        found: dict[int, FloatArray] = {}
        late = False
        self._try_starts(instances, found)
        for restart in range(self.settings["restarts"]):
            for norm in ("linf", "l2"):
                still = [i for i, item in enumerate(instances) if i not in found and item.norm == norm]
                late = late or time.perf_counter() - begin > limit
                if still and not late:
                    points = self._attack([instances[i] for i in still], norm, restart)
                    found.update((i, point) for i, point in zip(still, points, strict=True) if point is not None)
        times = Times(bound_s=(time.perf_counter() - begin) / len(instances))
        tries = f"{self.settings['restarts']} restarts of {self.settings['steps']} steps"
        missed = Verdict(
            Status.TIMEOUT if late else Status.UNKNOWN,
            "out of time before the last restart" if late else f"no counterexample in {tries}",
            times=times,
            device=self._label,
        )
        return [
            Verdict(Status.SAT, witness=found[i], times=times, stage="attack", device=self._label)
            if i in found
            else missed
            for i in range(len(instances))
        ]

    def _try_starts(self, instances: Sequence[Instance], found: dict[int, FloatArray]) -> None:
        """Adds the points among the instances' starts that are counterexamples already."""
        tried = [(i, np.asarray(p, np.float32)) for i, item in enumerate(instances) for p in item.starts.values()]
        tried = [(i, point) for i, point in tried if instances[i].contains(point)]
        if not tried:
            return
        points = self._tensor([point for _, point in tried], (len(tried), *self._module.input_shape))
        with self._torch.no_grad():
            margins, scale = self._loss([instances[i] for i, _ in tried])(self._module(points))
        good = (margins < -MARGIN * scale).cpu().numpy()
        for (i, point), breaks in zip(tried, good, strict=True):
            if breaks:
                found.setdefault(i, point)

    def _attack(self, instances: list[Instance], norm: Norm, restart: int) -> list[FloatArray | None]:
        """Returns a counterexample, or None, for each instance; all have the same norm."""
        shape = (len(instances), *self._module.input_shape)
        lower = self._tensor([item.lower for item in instances], shape)
        upper = self._tensor([item.upper for item in instances], shape)
        loss = self._loss(instances)
        steps, size = self.settings["steps"], self.settings["step_size"]
        if norm == "linf":
            starts = [self._start(item, restart, norm) for item in instances] if restart else None
            unit = self._engine.attack(
                self._module,
                norm,
                center=self._torch.full(shape, 0.5, device=self._target),
                radius=0.5,
                starts=None if starts is None else self._tensor(starts, shape),
                origin=lower,
                scale=upper - lower,
                bounds=(0.0, 1.0),
                loss=loss,
                steps=steps,
                step_size=size,
            )
            points = lower + unit * (upper - lower)
        else:
            points = lower.clone()
            for eps in {item.eps for item in instances if item.eps is not None}:
                part = [i for i, item in enumerate(instances) if item.eps == eps]
                points[part] = self._ball([instances[i] for i in part], float(eps), restart)
        points = self._torch.clamp(points, lower, upper)
        with self._torch.no_grad():
            margins, scale = loss(self._module(points))
        good = (margins < -MARGIN * scale).cpu().numpy()
        arrays: FloatArray = points.cpu().numpy()
        answers: list[FloatArray | None] = [
            arrays[i].reshape(item.lower.shape)
            if good[i] and item.contains(arrays[i].reshape(item.lower.shape))
            else None
            for i, item in enumerate(instances)
        ]
        return answers

    def _ball(self, instances: list[Instance], eps: float, restart: int) -> torch.Tensor:
        shape = (len(instances), *self._module.input_shape)
        center = self._tensor([item.center for item in instances if item.center is not None], shape)
        starts = [self._start(item, restart, "l2") for item in instances] if restart else None
        loss = self._loss(instances)
        points: torch.Tensor = self._engine.attack(
            self._module,
            "l2",
            center=center,
            # Float32 rounding must not carry a point over the ball's surface.
            radius=eps * (1 - 1e-6),
            starts=None if starts is None else center + eps * (1 - 1e-6) * self._tensor(starts, shape),
            origin=self._torch.zeros(1, device=self._target),
            scale=self._torch.ones(1, device=self._target),
            bounds=(float(min(item.lower.min() for item in instances)), float(max(i.upper.max() for i in instances))),
            loss=loss,
            steps=self.settings["steps"],
            step_size=self.settings["step_size"],
        )
        return points

    def _start(self, instance: Instance, restart: int, norm: Norm) -> FloatArray:
        """Draws a point of the unit cube, or of the unit ball, that depends on nothing but this image."""
        image = zlib.crc32(instance.lower.tobytes() + instance.upper.tobytes())
        rng = np.random.default_rng((self.settings["seed"], restart, image))
        if norm == "linf":
            return rng.random(instance.lower.shape, dtype=np.float32)
        direction = rng.standard_normal(instance.lower.shape)
        radius = rng.random() ** (1 / direction.size)
        point: FloatArray = (direction * (radius / np.linalg.norm(direction))).astype(np.float32)
        return point

    def _tensor(self, arrays: Sequence[npt.NDArray[Any]], shape: tuple[int, ...]) -> torch.Tensor:
        stacked = np.stack(arrays).astype(np.float32)
        tensor: torch.Tensor = self._torch.from_numpy(stacked).reshape(shape).to(self._target)
        return tensor

    def _loss(self, instances: list[Instance]) -> Loss:
        """Returns outputs [n, classes] -> margins [n], below 0 if unsafe, and the scale [n] of what is compared."""
        disjuncts = max(len(item.spec.disjuncts) for item in instances)
        height = max((len(b) for item in instances for _, b in item.spec.disjuncts), default=1)
        # What is not filled holds 0 y + inf <= 0, which no output satisfies, or repeats a disjunct's last row.
        matrix = np.zeros((len(instances), max(disjuncts, 1), max(height, 1), instances[0].classes))
        offset = np.full(matrix.shape[:3], -np.inf)
        for i, item in enumerate(instances):
            for k, (a, b) in enumerate(item.spec.disjuncts):
                if len(b):
                    rows = np.minimum(np.arange(matrix.shape[2]), len(b) - 1)
                    matrix[i, k], offset[i, k] = a[rows], b[rows]
                else:
                    offset[i, k] = 0.0
        weights = self._torch.from_numpy(matrix.astype(np.float32)).to(self._target)
        limits = self._torch.from_numpy(offset.astype(np.float32)).to(self._target)
        shifts = self._torch.where(limits.isinf(), 0.0, limits.abs())

        def margins(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            values = self._torch.einsum("nkrc,nc->nkr", weights, outputs) - limits
            sizes = self._torch.einsum("nkrc,nc->nkr", weights.abs(), outputs.detach().abs()) + shifts
            return values.amax(dim=2).amin(dim=1), sizes.amax(dim=(1, 2)).clamp(min=1.0)

        return margins
