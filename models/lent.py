"""Training that is lent to a pruner: it counts epochs, and finished stretches are not done again after a restart."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunecert.models import BOUNDING, NOISE_OBJECTIVES, OBJECTIVES, VIEWS
from prunecert.models.feedback import IMAGES, STEPS, attack
from prunecert.models.masks import Masks
from prunecert.models.pruners.contract import Epoch, Feedback, Group, Hook, Hooks
from prunecert.models.running import recall
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer, read_state, seed_everything, write_state


def keywords_of(function: Callable[..., Any], lent: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of `lent` that the function has a keyword for."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in lent.items() if name in names}


def _hash_of(model: nn.Module) -> str:
    """Returns a hash of a network's parameters and buffers, by name."""
    state = hashlib.sha256()
    for name, value in model.state_dict().items():
        state.update(f"{name}{tuple(value.shape)}".encode())
        state.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return state.hexdigest()


def offers(objective: str, *, holdout: bool = True) -> frozenset[Hook]:
    """Returns the hooks that training with an objective has.

    Args:
        objective: Its name; with noise in place of a radius, nothing is attacked.
        holdout: Whether images are held out, by which a network is judged while it is trained.
    """
    noisy = {Hook.STEP, Hook.SCORES, Hook.REGULARISER, Hook.SURGERY, Hook.HELD_OUT}
    hooks = frozenset(noisy) if objective in NOISE_OBJECTIVES else frozenset(Hook)
    return hooks if holdout else hooks - {Hook.HELD_OUT, Hook.EVALUATOR}


class Rehearsal:
    """Stands in for training, to ask a pruner for its refusals: ends it where it first would train or look at data.

    Args:
        epochs: Epochs to spend.
        learning: How many of them are for learning what to keep.
        radius: Radius of training.
        objective: Name of the objective.
        settings: The objective's settings, those that the recipe says.
    """

    class BeganError(Exception):
        """The pruner has refused nothing and would begin."""

    def __init__(
        self, epochs: int, learning: int, radius: float, *, objective: str, settings: Mapping[str, Any]
    ) -> None:
        self.left, self.learning, self.radius = epochs, learning, radius
        self.bounding, self.settings = objective in BOUNDING, settings
        self.views = views_of(objective, settings)

    def __call__(self, *_: object, **__: object) -> Masks | None:
        """Ends the rehearsal."""
        raise self.BeganError

    batches = loss = attack = feedback = __call__

    def note(self, **_: Any) -> None:
        """Notes nothing."""


def views_of(
    objective: str, settings: Mapping[str, Any]
) -> Callable[[nn.Module, Tensor, Tensor, float], tuple[float, Tensor, Tensor]] | None:
    """Returns what an objective looks at, with all of its settings; None of one that doesn't mix two losses."""
    if objective not in VIEWS:
        return None
    names = inspect.signature(VIEWS.get(objective)).parameters
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(OBJECTIVES.get(objective)).parameters.items()
        if name in names and parameter.default is not parameter.empty
    }
    return partial(VIEWS.get(objective), **{**defaults, **settings})


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
        objective: Name of the objective.
    """

    def __init__(
        self,
        trainer: Trainer,
        cell: str,
        work: Path,
        key: str,
        *,
        seed: int,
        eps: float,
        epochs: int,
        objective: str,
    ) -> None:
        self._trainer, self._cell, self._work, self._key = trainer, cell, work, key
        self._seed, self._eps, self._objective = seed, eps, objective
        self._left = epochs
        self._files: list[Path] = []
        self._last = ""
        self.notes: dict[str, Any] = {}

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
        groups: Sequence[Group] | None = None,
        masks: Masks | None = None,
        hooks: Hooks | None = None,
        restart: bool = False,
        ramp: bool = False,
        first: int = 0,
    ) -> Masks | None:
        """Trains `model`; see the contract.

        Raises:
            ValueError: There are fewer epochs left.
        """
        if epochs > self._left:
            raise ValueError(f"{epochs} epochs asked for, {self._left} left")
        hooks = hooks or Hooks()
        recipe = self._trainer.recipe
        length = first + epochs
        stage = Stage(name, length, recipe.score_lr if scores is not None else recipe.finetune_lr, self._eps)
        if restart:
            stage.lr = recipe.lr
        if restart or ramp:
            share = min(1.0, length / recipe.pretrain_epochs)
            stage.warmup, stage.ramp = recipe.warmup_epochs * share, recipe.ramp_epochs * share
        stage.first = first
        stem = f"{self._cell}.{re.sub('[^a-z0-9]+', '-', name)}"
        result = self._work / f"{stem}.done.pt"
        key = f"{self._key} {name} {masks.sha256() if masks is not None else ''}"
        self._files.append(result)
        if result.exists():
            state = read_state(result)
            if state["key"] == key:
                model.load_state_dict(state["model"])
                recall(hooks, state)
                self._left -= state.get("epochs", epochs)
                self._last = _hash_of(model)
                return None if state["masks"] is None else Masks(state["masks"])
        seed_everything(self._seed, name)
        counted = _Counted(hooks, epochs)
        final = self._trainer.run(
            model,
            stage,
            masks=masks,
            parameters=scores,
            groups=groups,
            hooks=counted.hooks,
            state_file=self._work / f"{stem}.pt",
            key=key,
        )
        self._left -= counted.epochs
        state = {
            "key": key,
            "model": model.state_dict(),
            "masks": None if final is None else dict(final),
            "memory": hooks.memory,
            "epochs": counted.epochs,
        }
        write_state(state, result)
        self._last = _hash_of(model)
        return final

    def altered(self, model: nn.Module) -> bool:
        """Says whether a network is another one than the last stretch left, or there was none.

        Batch norm's running statistics are of the network as it was trained: they are to be estimated anew where it was
        pruned after that, and stay where it was trained as it is, as the dense control's do.
        """
        return self._last != _hash_of(model)

    @property
    def radius(self) -> float:
        """The full radius of training."""
        return self._eps

    @property
    def bounding(self) -> bool:
        """Whether the objective bounds the network."""
        return self._objective in BOUNDING

    @property
    def settings(self) -> Mapping[str, Any]:
        """The objective's settings, those that the recipe says."""
        return self._trainer.recipe.objective

    @property
    def views(self) -> Callable[[nn.Module, Tensor, Tensor, float], tuple[float, Tensor, Tensor]] | None:
        """What an objective that mixes two losses looks at; see the contract."""
        return views_of(self._objective, self.settings)

    def batches(self, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the first so many training images, as they are, in the recipe's batches.

        A pass has random numbers of its own, whether what went before it was trained now or found: what attacks draw
        on the way is the same.
        """
        seed_everything(self._seed, f"pass with {self._left} epochs left")
        size = self._trainer.recipe.batch_size
        parts = (torch.split(part[:images], size) for part in (self._trainer.images, self._trainer.labels))
        yield from zip(*parts, strict=True)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Returns the objective's loss at the full radius; see the contract."""
        loss: Tensor = self._trainer.objective(model, x, y, self._eps, progress=1.0)
        return loss

    def attack(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Returns attacked images; see the contract."""
        return attack(model, x, y, self._eps)

    def feedback(self, model: nn.Module, *, images: int = IMAGES, steps: int = STEPS) -> Feedback:
        """Measures a network at the full radius; see the contract."""
        return self._trainer.feedback(model, self._eps, images=images, steps=steps)

    def note(self, **values: Any) -> None:
        """Notes how it went, for the card."""
        self.notes.update(values)

    def clean(self) -> None:
        """Removes the files of finished stretches."""
        for file in self._files:
            file.unlink(missing_ok=True)


class _Counted:
    """Counts the epochs of a stretch that a hook may end early.

    Args:
        hooks: The stretch's hooks.
        epochs: Its epochs.
    """

    def __init__(self, hooks: Hooks, epochs: int) -> None:
        self.epochs, self._ends = epochs, hooks.epoch
        self.hooks = hooks if hooks.epoch is None else replace(hooks, epoch=self._ask)

    def _ask(self, epoch: Epoch) -> bool:
        assert self._ends is not None
        over = self._ends(epoch)
        if over:
            self.epochs = epoch.number
        return over
