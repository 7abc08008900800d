"""One try of the attack on a batch of input sets: boxes as unit cubes, or balls; imported in the worker only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from prunecert.verifiers.adapters.attacking import loss_of
from prunecert.verifiers.adapters.pgd.engine import attack
from prunecert.verifiers.adapters.pgd.starts import start
from prunecert.verifiers.base import Instance
from prunecert.verifiers.formats.onnx_torch import OnnxModule

#: Of a radius: float32 rounding must not carry a point over a ball's surface.
_INSIDE = 1 - 1e-6


def batch(arrays: Sequence[npt.NDArray[Any]], module: OnnxModule, device: torch.device) -> torch.Tensor:
    """Stacks points as float32 inputs of a network, [n, *input_shape]."""
    stacked = torch.from_numpy(np.stack(arrays).astype(np.float32))
    return stacked.reshape(len(arrays), *module.input_shape).to(device)


def on_boxes(
    module: OnnxModule, instances: Sequence[Instance], restart: int, settings: Mapping[str, Any], device: torch.device
) -> torch.Tensor:
    """Attacks boxes once.

    Args:
        module: The network, on the device.
        instances: The questions.
        restart: 0: from the centres; else from random points, which this number tells apart.
        settings: The adapter's.
        device: Where to.

    Returns:
        The last points, [n, *input_shape].
    """
    lower, upper = (
        batch(corners, module, device)
        for corners in ([item.lower for item in instances], [item.upper for item in instances])
    )
    starts = [start(item, restart, "linf", settings["seed"]) for item in instances] if restart else None
    unit = attack(
        module,
        "linf",
        center=torch.full(lower.shape, 0.5, device=device),
        radius=0.5,
        starts=None if starts is None else batch(starts, module, device),
        origin=lower,
        scale=upper - lower,
        bounds=(0.0, 1.0),
        loss=loss_of(instances, device),
        steps=settings["steps"],
        step_size=settings["step_size"],
    )
    return lower + unit * (upper - lower)


def on_balls(
    module: OnnxModule, instances: Sequence[Instance], restart: int, settings: Mapping[str, Any], device: torch.device
) -> torch.Tensor:
    """Attacks l2 balls once, those of one radius together; see `on_boxes`."""
    points = batch([item.lower for item in instances], module, device)
    for eps in {item.eps for item in instances if item.eps is not None}:
        part = [i for i, item in enumerate(instances) if item.eps == eps]
        points[part] = _of_one_radius(module, [instances[i] for i in part], float(eps), restart, settings, device)
    return points


def _of_one_radius(
    module: OnnxModule,
    instances: Sequence[Instance],
    eps: float,
    restart: int,
    settings: Mapping[str, Any],
    device: torch.device,
) -> torch.Tensor:
    center = batch([item.center for item in instances if item.center is not None], module, device)
    starts = [start(item, restart, "l2", settings["seed"]) for item in instances] if restart else None
    return attack(
        module,
        "l2",
        center=center,
        radius=eps * _INSIDE,
        starts=None if starts is None else center + eps * _INSIDE * batch(starts, module, device),
        origin=torch.zeros(1, device=device),
        scale=torch.ones(1, device=device),
        bounds=(float(min(item.lower.min() for item in instances)), float(max(i.upper.max() for i in instances))),
        loss=loss_of(instances, device),
        steps=settings["steps"],
        step_size=settings["step_size"],
    )
