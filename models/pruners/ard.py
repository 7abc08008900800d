"""Adversarially Robust Distillation (Goldblum et al. 2020, AAAI, section 4): a pruned network learns from its parent.

The student is the pruned network, the teacher the dense one that it comes from. The teacher sees the images as they
are; the student answers for their worst points: attacked ones, or, in the certified form, which is our own, the worst
logits by intervals.
"""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.attack import frozen_statistics, pgd_linf
from prunecert.models.bounds import boundable, interval_margins, propagate
from prunecert.models.masks import Masks
from prunecert.models.pruners.allocation import Allocation
from prunecert.models.pruners.contract import Batch, Hook, Hooks, Train, declares
from prunecert.models.pruners.lwm import prune as lwm
from prunecert.models.settings import Choices, Share
from prunecert.ranges import NumberRange

Form = Annotated[str, Choices("auto", "attacked", "certified")]
Temperature = Annotated[float, NumberRange(at_least=1e-3, at_most=1_000_000)]
_STEPS, _STEP_SIZE = 10, 0.25


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over images and classes.

    The published code takes the mean over classes, too, so that its weight is a tenth of the usual one.
    """
    target, logs = F.log_softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(logs, target, reduction="sum", log_target=True) / student.numel()


def worst_logits(batch: Batch, *, certified: bool) -> tuple[Tensor, Tensor]:
    """Returns the student's logits at its worst points and, where there were any, on the clean images."""
    model, x, y, eps = batch.model, batch.x, batch.y, batch.eps
    if certified:
        bounds = propagate(model, x, eps)
        # The label's own margin is 0, and softmax doesn't see a shift.
        return -interval_margins(bounds, y), bounds.logits
    with frozen_statistics(model):
        point = pgd_linf(model, x, y, eps, steps=_STEPS, step_size=_STEP_SIZE * eps)
    return model(point), model(x)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Returns a copy that is no longer trained, in evaluation mode."""
    teacher = copy.deepcopy(model).eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


def distil(batch: Batch, teacher: nn.Module, *, alpha: float, temperature: float, certified: bool) -> Tensor:
    """Returns alpha T^2 KL(teacher at x || student at its worst point) + (1 - alpha) CE(student at x), eq. 2."""
    worst, clean = worst_logits(batch, certified=certified)
    with torch.no_grad():
        soft = teacher(batch.x)
    loss = alpha * soft_loss(worst.float(), soft.float(), temperature)
    return loss + (1 - alpha) * F.cross_entropy(clean, batch.y) if alpha < 1 else loss


def certifies(form: str, train: Train, model: nn.Module) -> bool:
    """Returns whether the certified form is used; ``auto`` takes it where the objective bounds the network.

    Raises:
        UserError: It is certified and the network has no bounds.
    """
    certified = form == "certified" or (form == "auto" and train.bounding)
    if certified:
        boundable(model)
    return certified


@declares(Hook.TEACHER, keeps_patterns=True)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    allocation: Allocation = "uniform",
    alpha: Share = 1.0,
    temperature: Temperature = 30.0,
    form: Form = "auto",
) -> Masks:
    """Prunes by magnitude, and fine-tunes against the dense network's soft labels.

    Args:
        model: The pre-trained network, which is the teacher as it is; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.
        alpha: Weight of the soft labels; the rest is that of the clean cross-entropy.
        temperature: T, above 0.
        form: ``attacked``, ``certified``, or ``auto``: certified where the objective bounds the network.

    Raises:
        UserError: The compression cannot be reached, a setting is out of range, or the network has no bounds.
    """
    certified = certifies(form, train, model)
    masks = lwm(model, compression, allocation=allocation)
    teacher = frozen_copy(model)

    def loss(batch: Batch) -> Tensor:
        return distil(batch, teacher, alpha=alpha, temperature=temperature, certified=certified)

    masks.apply_(model)
    train(model, train.left, name="distil", masks=masks, hooks=Hooks(loss=loss))
    return masks
