"""A teacher's soft labels for a student at its worst points (Goldblum et al. 2020, AAAI, section 4, eq. 2).

The teacher sees the images as they are. What the student answers for is its form: attacked images as published, or, of
our own making, the worst logits by intervals, or both in the shares of an objective that mixes them (MTL-IBP).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError, did_you_mean
from prunecert.models.attack import frozen_statistics, pgd_linf
from prunecert.models.bounds import boundable, interval_margins, propagate
from prunecert.models.pruners.contract import Batch, Train

FORMS = ("auto", "attacked", "certified", "mixed")
#: Settings of an objective's attack that the attacked form takes over, and their published values.
_ATTACK = {"steps": 10, "step_size": 0.25}


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over images and classes.

    The published code takes the mean over classes, too, so that its weight is a tenth of the usual one.
    """
    target, logs = F.log_softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(logs, target, reduction="sum", log_target=True) / student.numel()


@dataclass(frozen=True)
class Form:
    """What a student answers for.

    Args:
        name: ``attacked``, ``certified`` or ``mixed``.
        train: Lends the objective's settings, and what it looks at.
    """

    name: str
    train: Train

    @property
    def bounds(self) -> bool:
        """Whether it bounds the network."""
        return self.name != "attacked"

    def ignored(self) -> list[str]:
        """Returns the settings of the objective that the recipe says, and the form has no use for."""
        useful = {"attacked": set(_ATTACK), "certified": set(), "mixed": set(self.train.settings)}[self.name]
        return sorted(set(self.train.settings) - useful)

    def worst(self, batch: Batch) -> Sequence[tuple[float, Tensor]]:
        """Returns weights, which sum up to 1, and the student's logits at its worst points, of the first images."""
        model, x, y, eps = batch.model, batch.x, batch.y, batch.eps
        if self.name == "mixed":
            assert self.train.views is not None
            alpha, attacked, bounded = self.train.views(model, x, y, eps)
            return (1 - alpha, attacked), (alpha, bounded)
        if self.name == "certified":
            # The label's own margin is 0, and softmax doesn't see a shift.
            return ((1.0, -interval_margins(propagate(model, x, eps), y)),)
        attack = {name: self.train.settings.get(name, value) for name, value in _ATTACK.items()}
        with frozen_statistics(model):
            point = pgd_linf(model, x, y, eps, steps=int(attack["steps"]), step_size=attack["step_size"] * eps)
        return ((1.0, model(point)),)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Returns a copy that is no longer trained, in evaluation mode."""
    teacher = copy.deepcopy(model).eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


def distil(batch: Batch, teacher: nn.Module, *, alpha: float, temperature: float, form: Form) -> Tensor:
    """Returns alpha T^2 KL(teacher at x || student at its worst point) + (1 - alpha) CE(student at x), eq. 2."""
    with torch.no_grad():
        soft = teacher(batch.x).float()
    parts = [
        weight * soft_loss(logits.float(), soft[: len(logits)], temperature) for weight, logits in form.worst(batch)
    ]
    loss = alpha * torch.stack(parts).sum()
    return loss + (1 - alpha) * F.cross_entropy(batch.model(batch.x), batch.y) if alpha < 1 else loss


def form_of(name: str, train: Train, model: nn.Module) -> Form:
    """Returns the form of a name; ``auto`` takes the one that is nearest to the objective.

    Raises:
        UserError: The form is unknown, or it bounds the network and that has no bounds, or it is ``mixed`` and the
            objective mixes nothing.
    """
    if name not in FORMS:
        raise UserError(did_you_mean("form", name, FORMS))
    if name == "auto":
        name = "mixed" if train.views is not None else "certified" if train.bounding else "attacked"
    if name == "mixed" and train.views is None:
        raise UserError(
            "Form 'mixed' is refused: the objective mixes no attacked and bounded loss; allowed are attacked, "
            "certified and auto, or the objective mtl-ibp."
        )
    form = Form(name, train)
    if form.bounds:
        boundable(model)
    return form
