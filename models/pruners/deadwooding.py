"""Deadwooding (Kaur, Fioretto, Salekin 2022, arXiv 2202.05226): a reconstruction from its abstract.

The budget of weights is a constraint whose Lagrange multiplier is raised while the network is trained robustly; then
the largest weights of the network stay, and are fine-tuned half by the objective and half by distillation from the
dense network. The smooth count of weights, the steps of the dual and all numbers are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import reachable
from prunecert.models.pruners.ard import Form, Temperature
from prunecert.models.pruners.contract import Batch, Epoch, Hook, Hooks, Train, declares
from prunecert.models.pruners.distillation import distil, form_of, frozen_copy
from prunecert.models.pruners.lwm import global_masks
from prunecert.models.settings import Share, Weight
from prunecert.ranges import NumberRange

#: Violation at which the dual phase is over.
_SATISFIED = 1e-3


def violation(weights: Iterable[Tensor], scale: float, share: float) -> Tensor:
    """Returns max(0, mean of 1 - exp(-|w| / scale) - share): how much too dense weights are, smoothly counted.

    Args:
        weights: All prunable weights.
        scale: Size of a weight that counts for most of one, above 0.
        share: Share of the weights that may be kept.
    """
    parts = [(1 - (-weight.abs() / scale).exp()).flatten() for weight in weights]
    return (torch.cat(parts).mean() - share).clamp_min(0)


def ascend(multiplier: float, rate: float, violated: float) -> float:
    """Returns the multiplier after a step of the dual; it never falls, and stands still where nothing is violated."""
    return max(0.0, multiplier + rate * max(0.0, violated))


@declares(Hook.REGULARISER, Hook.TEACHER, Hook.EPOCH)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    dual: Share = 0.5,
    rate: Weight = 1.0,
    scale: Annotated[float, NumberRange(at_least=1e-6, at_most=1000)] = 0.1,
    soft: Share = 0.5,
    temperature: Temperature = 30.0,
    form: Form = "auto",
) -> Masks:
    """Trains towards the budget, cuts, and fine-tunes with the dense network as teacher.

    Args:
        model: The pre-trained network, which is the teacher as it is; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        dual: Share of the epochs for training towards the budget; fewer, if it is met before.
        rate: What the multiplier rises by for a violation of 1, after every epoch.
        scale: Size of a weight that counts for most of one, over the weights' root mean square at first.
        soft: Weight of the distillation in fine-tuning; the rest is that of the objective.
        temperature: Of the distillation.
        form: Of the distillation; see `models.pruners.ard`.

    Raises:
        UserError: The compression cannot be reached, a setting is out of range, or the network has no bounds.
    """
    chosen = form_of(form, train, model)
    weights = prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    kept = reachable({name: weight.numel() for name, weight in weights.items()}, compression)
    teacher = frozen_copy(model)
    square = sum(float(weight.detach().square().sum()) for weight in weights.values()) / total
    size = scale * max(square, 1e-12) ** 0.5
    hooks = Hooks(memory={"multiplier": 0.0})

    def excess() -> Tensor:
        return violation(prunable(model).values(), size, kept / total)

    def over(epoch: Epoch) -> bool:
        violated = excess().item()
        hooks.memory["multiplier"] = ascend(hooks.memory["multiplier"], rate, violated)
        return violated < _SATISFIED

    hooks.regulariser = lambda: hooks.memory["multiplier"] * excess()
    hooks.epoch = over
    if round(dual * train.left):
        train(model, round(dual * train.left), name="dual", hooks=hooks)
    masks = global_masks({name: weight.abs() for name, weight in prunable(model).items()}, kept)
    masks.apply_(model)

    def loss(batch: Batch) -> Tensor:
        hard = (1 - soft) * batch.own()
        return hard + soft * distil(batch, teacher, alpha=1.0, temperature=temperature, form=chosen)

    if train.left:
        train(model, train.left, name="distil", masks=masks, hooks=Hooks(loss=loss))
    return masks
