"""One cell to train: what it is, and what it is refused for before data is loaded or anything is trained."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prunecert.errors import UserError
from prunecert.models import BOUNDING, DENSE, PRUNERS
from prunecert.models.bounds import boundable
from prunecert.models.building import SHAPE, build_for
from prunecert.models.lent import Rehearsal, keywords_of, offers
from prunecert.models.masks import prunable
from prunecert.models.pruners.allocation import Allocation, allocate_in_pattern, reachable, refuse_pattern
from prunecert.models.pruners.both_budgets import for_network
from prunecert.models.pruners.contract import method_of, refuse_lacking
from prunecert.models.recipe import Recipe

#: What lends a pruner the hooks that it needs.
_WITH_RADIUS = "an objective with an l-infinity radius"
_WITH_HOLDOUT = "holdout: true, which keeps images out of training"


@dataclass(frozen=True)
class Job:
    """One cell to train.

    Args:
        name: The cell's name; the stem of its files.
        network: Name in `models.NETWORKS`.
        objective: Name in `models.OBJECTIVES`.
        eps: Radius in pixels of [0, 1]; for `models.NOISE_OBJECTIVES` sigma.
        eps_text: The same as an exact fraction, e.g. ``"2/255"``.
        pruner: Name in `models.PRUNERS`, or ``dense``.
        compression: All prunable weights over kept ones.
        seed: Seed of everything.
        recipe: How.
        command: What to write on the card.
        data: What the card says of the data set: name, shape and classes; nothing for CIFAR-10.

    Raises:
        UserError: It is its own parent.
    """

    name: str
    network: str
    objective: str
    eps: float
    eps_text: str
    pruner: str
    compression: float
    seed: int
    recipe: Recipe
    command: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == self.recipe.parent:
            raise UserError(
                f"{self.name} is refused: its recipe's parent has its own name, so that training would replace the "
                "network that it and others begin with; allowed are a parent of another name (prunecert adopt gives "
                "imports one that no cell has), cells of another seed, or --cells without this one."
            )

    def pretraining(self) -> dict[str, Any]:
        """Returns what the pre-trained network depends on."""
        own = {"network": self.network, "objective": self.objective, "eps": self.eps_text, "seed": self.seed}
        return {**own, **self.recipe.pretraining()}

    @property
    def epochs(self) -> int:
        """Epochs after pre-training."""
        return self.recipe.prune_epochs + self.recipe.finetune_epochs

    @property
    def from_scratch(self) -> bool:
        """Whether the pruner begins at the initial weights, with the epochs of pre-training for its own."""
        return self.pruner != DENSE and method_of(PRUNERS.get(self.pruner)).from_scratch

    @property
    def pretrains(self) -> bool:
        """Whether it begins with a network that is pre-trained for it, and perhaps for others."""
        return not self.from_scratch and not self.recipe.parent

    def refuse_unreachable(self) -> None:
        """Refuses what this network cannot be, before data is loaded or anything is trained for it.

        Raises:
            UserError: The objective or an add-on bounds the network, and it has a layer without bounds; or the
                compression cannot be reached: too few weights, or the pruner says so from the network's shape; or the
                pruner keeps no pattern, lacks a hook under the objective, or refuses a setting, or too few epochs; or
                crops would miss the images.
        """
        model = build_for(self.network, self.data)
        _, height, width = self.data.get("shape", SHAPE)
        if self.recipe.augment and self.recipe.crop >= min(height, width):
            raise UserError(
                f"{self.name}: crop is {self.recipe.crop}; for images of {height}x{width} pixels it must be below "
                f"{min(height, width)}, or a crop has nothing of the image."
            )
        bounding = sorted(BOUNDING & {self.objective, *self.recipe.addons})
        if bounding:
            try:
                boundable(model, self.data.get("shape", SHAPE))
            except UserError as error:
                raise UserError(
                    f"{self.name}: {', '.join(bounding)} needs bounds of {self.network}. {error}"
                ) from error
        shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
        try:
            kept = reachable({name: math.prod(shape) for name, shape in shapes.items()}, self.compression)
            if self.pruner == DENSE:
                return
            prune = PRUNERS.get(self.pruner)
            if not method_of(prune).keeps_patterns:
                refuse_pattern(self.recipe.allocation)
            if "allocation" in keywords_of(prune, {"allocation": ""}):
                allocate_in_pattern(shapes, kept, self.allocation(model))
            training = f"training by {self.objective}"
            refuse_lacking(self.pruner, prune, offers(self.objective), training, _WITH_RADIUS)
            hooks = offers(self.objective, holdout=self.recipe.holdout)
            refuse_lacking(self.pruner, prune, hooks, f"{training} on all images", _WITH_HOLDOUT)
            self._rehearse(prune, model)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from error

    def allocation(self, model: nn.Module) -> Allocation:
        """Returns what the pruner is lent: the recipe's, or layers' parts where that takes the network's shape."""
        return for_network(self.recipe.allocation, model, self.data.get("shape", SHAPE), self.compression)

    def _rehearse(self, prune: Callable[..., Any], model: nn.Module) -> None:
        """Asks a pruner that trains, or that refuses by shape, what it would refuse."""
        recipe, radius = self.recipe, self.eps * self.recipe.train_eps_factor
        epochs = self.epochs + (recipe.pretrain_epochs if self.from_scratch else 0)
        settings = (recipe if self.from_scratch else recipe.finetuning()).objective
        train = Rehearsal(epochs, recipe.prune_epochs, radius, objective=self.objective, settings=settings)
        lent = keywords_of(prune, {"allocation": self.allocation(model), "seed": self.seed, "train": train})
        if "train" not in lent and not method_of(prune).refuses_by_shape:
            return
        with contextlib.suppress(Rehearsal.BeganError):
            prune(model, self.compression, **lent, **recipe.pruners.get(self.pruner, {}))
