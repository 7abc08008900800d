"""Schedules of the radius and of the learning rate, shared by all objectives and pruners."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunecert.models.recipe import Recipe

#: The smoothed ramp's share with a rising slope, and its power.
_SMOOTH, _POWER = 0.25, 4


def ramp(share: float, shape: str) -> float:
    """Returns how much of its target eps has reached, in [0, 1].

    Args:
        share: Share of the ramp's time that has passed; anything below 0 and above 1 is cut off.
        shape: ``linear``, or ``smoothed``: a * share^4 for the first quarter, then the tangent, which reaches 1 at the
            end (the smoothed schedule of auto_LiRPA; Xu et al. 2020, Shi et al. 2021).
    """
    share = min(max(share, 0.0), 1.0)
    if shape == "linear":
        return share
    # Value and slope are continuous at the joint: a (m^4 + 4 m^3 (1 - m)) = 1.
    factor = 1 / (_SMOOTH**_POWER + _POWER * _SMOOTH ** (_POWER - 1) * (1 - _SMOOTH))
    if share <= _SMOOTH:
        return factor * share**_POWER
    return factor * (_SMOOTH**_POWER + _POWER * _SMOOTH ** (_POWER - 1) * (share - _SMOOTH))


@dataclass
class Stage:
    """One stretch of training under one schedule.

    Args:
        name: What reports call it: ``pretrain``, ``scores``, ``finetune``, ...
        epochs: Length of the schedule.
        lr: Peak learning rate.
        eps: Radius when the ramp is over.
        warmup: Epochs at radius 0.
        ramp: Epochs of growth to `eps`.
        first: Epoch of the schedule at which the stretch begins.
        last: Epoch before which it ends; that of the schedule by default.
    """

    name: str
    epochs: int
    lr: float
    eps: float
    warmup: float = 0
    ramp: float = 0
    first: int = 0
    last: int | None = None

    @property
    def end(self) -> int:
        """The epoch before which the stretch ends."""
        return self.epochs if self.last is None else self.last

    def progress(self, epoch: float, shape: str = "linear") -> float:
        """Returns how far eps has come at a fractional epoch, in [0, 1]."""
        if epoch < self.warmup:
            return 0.0
        return ramp((epoch - self.warmup) / self.ramp, shape) if self.ramp else 1.0

    def rate(self, epoch: float, recipe: Recipe) -> float:
        """Returns the learning rate at a fractional epoch; see `models.recipe.Recipe`."""
        if recipe.lr_schedule == "step":
            return self.lr * recipe.lr_gamma ** sum(epoch >= share * self.epochs for share in recipe.lr_milestones)
        start = self.epochs * (1 - recipe.decay)
        if epoch <= start or recipe.decay == 0:
            return self.lr
        phase = (epoch - start) / (self.epochs - start)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * phase)))
