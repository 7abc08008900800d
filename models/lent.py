"""Training that is lent to a pruner: it counts epochs, and finished stretches are not done again after a restart."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from prunecert.models.masks import Masks
from prunecert.models.pruners.contract import Revise
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer, read_state, seed_everything, write_state


def keywords_of(function: Callable[..., Any], lent: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of `lent` that the function has a keyword for."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in lent.items() if name in names}


class LentTraining:
    """Trains one cell's network within its epochs; see `models.pruners.contract.Train`.

    A pruner that is called again after an interruption asks for the same stretches in the same order: those that were
    finished are answered from their files, so that it ends with the same weights.

    Args:
        trainer: What trains.
        cell: The cell's name, for the files.
        work: Folder of the files.
        key: What the files must belong to.
        seed: The cell's seed; each stretch has random numbers of its own.
        eps: Radius of training.
        epochs: Epochs to spend.
    """

    def __init__(
        self, trainer: Trainer, cell: str, work: Path, key: str, *, seed: int, eps: float, epochs: int
    ) -> None:
        self._trainer, self._cell, self._work, self._key = trainer, cell, work, key
        self._seed, self._eps = seed, eps
        self._left = epochs
        self._files: list[Path] = []

    @property
    def left(self) -> int:
        """Epochs that are not spent yet."""
        return self._left

    @property
    def learning(self) -> int:
        """How many of them the recipe sets apart for learning what to keep."""
        return self._trainer.recipe.prune_epochs

    def __call__(
        self,
        model: nn.Module,
        epochs: int,
        *,
        name: str,
        scores: Sequence[nn.Parameter] | None = None,
        masks: Masks | None = None,
        revise: Revise | None = None,
        restart: bool = False,
        first: int = 0,
    ) -> Masks | None:
        """Trains `model`; see the contract.

        Raises:
            ValueError: There are fewer epochs left.
        """
        if epochs > self._left:
            raise ValueError(f"{epochs} epochs asked for, {self._left} left")
        self._left -= epochs
        recipe = self._trainer.recipe
        length = first + epochs
        stage = Stage(name, length, recipe.score_lr if scores is not None else recipe.finetune_lr, self._eps)
        if restart:
            share = min(1.0, length / recipe.pretrain_epochs)
            stage = Stage(name, length, recipe.lr, self._eps, recipe.warmup_epochs * share, recipe.ramp_epochs * share)
        stage.first = first
        stem = f"{self._cell}.{re.sub('[^a-z0-9]+', '-', name)}"
        done = self._work / f"{stem}.done.pt"
        key = f"{self._key} {name} {masks.sha256() if masks is not None else ''}"
        self._files.append(done)
        if done.exists():
            state = read_state(done)
            if state["key"] == key:
                model.load_state_dict(state["model"])
                return None if state["masks"] is None else Masks(state["masks"])
        seed_everything(self._seed, name)
        final = self._trainer.run(
            model, stage, masks=masks, parameters=scores, revise=revise, state_file=self._work / f"{stem}.pt", key=key
        )
        state = {"key": key, "model": model.state_dict(), "masks": None if final is None else dict(final)}
        write_state(state, done)
        return final

    def clean(self) -> None:
        """Removes the files of finished stretches."""
        for file in self._files:
            file.unlink(missing_ok=True)
