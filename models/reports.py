"""What training tells of itself while it goes on: of every step, and of every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunecert.models.history import EpochRow, HeldOutAccuracy


@dataclass(frozen=True)
class EpochReport:
    """What is told of an epoch that has ended.

    Args:
        stage: The stage's name.
        epoch: The epoch's number in it, from 1.
        epochs: How many it has.
        loss: Mean loss of an image.
        rate: Training images per second.
        seconds: Of training.
        eps: Radius of training at its end, in pixels of [0, 1]; for training with noise the standard deviation.
        lr: Learning rate of the last step.
        held_out: Accuracies on held-out images, where they were measured.
        number: The epoch's number in the cell's history, from 1, over all stages; 0 where there is none.
    """

    stage: str
    epoch: int
    epochs: int
    loss: float
    rate: float
    seconds: float
    eps: float
    lr: float
    held_out: HeldOutAccuracy | None = None
    number: int = 0

    def row(self, key: str) -> EpochRow:
        """Returns the row that the history has of it.

        Args:
            key: What stands for recipe, data and cell.
        """
        return EpochRow(
            key=key,
            stage=self.stage,
            epoch=self.epoch,
            epochs=self.epochs,
            loss=self.loss,
            eps=self.eps,
            lr=self.lr,
            images_per_s=round(self.rate, 1),
            seconds=round(self.seconds, 3),
            held_out=self.held_out,
        )


@dataclass(frozen=True)
class StepReport:
    """What is told of a step that has ended, within an epoch.

    Args:
        stage: The stage's name.
        epoch: The number of the epoch that is under way, from 1.
        epochs: How many the stage has.
        step: The step's number in the epoch, from 1.
        steps: How many the epoch has.
        eps: Radius of training.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    eps: float


#: Called after every epoch.
Report = Callable[[EpochReport], None]
#: Called after every step; the device may be steps behind.
StepHearer = Callable[[StepReport], None]
