"""Training recipes: validated, plain data; the same for every pruner."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from models import OBJECTIVES
from models.pruners.allocation import ALLOCATIONS
from prunecert.errors import UserError, did_you_mean

#: Keywords of a loss that the trainer gives, not the recipe.
_GIVEN = frozenset({"model", "x", "y", "eps", "progress"})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, pruned and fine-tuned.

    After pre-training every cell gets `prune_epochs + finetune_epochs` more epochs. A pruner that learns its mask
    spends `prune_epochs` on that; the others, and the dense control, fine-tune for all of them. So all cells have
    seen the training set equally often.

    Args:
        init: Initial weights: ``default`` (PyTorch's) or ``ibp`` (Shi et al. 2021, section 4.1).
        pretrain_epochs: Epochs of pre-training, warm-up and ramp included.
        warmup_epochs: Epochs at eps = 0.
        ramp_epochs: Epochs in which eps grows from 0 to its target.
        prune_epochs: Epochs for learning scores.
        finetune_epochs: Epochs of fine-tuning at full eps.
        batch_size: Images a step.
        lr: Peak learning rate of Adam in pre-training.
        finetune_lr: Peak learning rate in fine-tuning.
        score_lr: Peak learning rate of the scores.
        decay: Share of each stage's end in which the learning rate falls (cosine) to 1/100 of its peak.
        weight_decay: Decoupled weight decay (AdamW).
        l1: Factor of the L1 norm of the prunable weights in the loss.
        grad_clip: Largest L2 norm of the gradient; 0 for none.
        average: Decay of the exponential moving average of the weights that is kept in the end; 0 for none. The
            average starts where the learning rate begins to fall.
        train_eps_factor: Training radius over the radius of the cell.
        augment: Random flips and crops with 4 pixels of padding.
        precision: Of the products in training (autocast); weights and measurements are float32 always.
        allocation: How many weights each layer keeps, for the pruners that allocate by layer.
        objective: Settings of the objective's loss.
    """

    init: Literal["default", "ibp"] = "default"
    pretrain_epochs: int = 40
    warmup_epochs: int = 1
    ramp_epochs: int = 20
    prune_epochs: int = 5
    finetune_epochs: int = 15
    batch_size: int = 128
    lr: float = 1e-3
    finetune_lr: float = 1e-3
    score_lr: float = 1e-2
    decay: float = 0.5
    weight_decay: float = 0.0
    l1: float = 0.0
    grad_clip: float = 10.0
    average: float = 0.0
    train_eps_factor: float = 1.0
    augment: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    allocation: str = "uniform"
    objective: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], objective: str, *, where: str = "recipe") -> Recipe:
        """Builds a recipe from a suite's section.

        Args:
            data: Keys and values; what is left out has its default.
            objective: The objective that it is for; its loss decides which settings exist.
            where: How messages call the section.

        Raises:
            UserError: A key is unknown, or a value has the wrong type or range.
        """
        known = {item.name: item for item in fields(cls)}
        for key, value in data.items():
            if key not in known:
                raise UserError(f"{where}: " + did_you_mean("key", key, known))
            default = cls.__dataclass_fields__[key].default
            if key == "objective":
                _check_settings(value, objective, where)
            elif isinstance(default, bool) or isinstance(value, bool):
                if not (isinstance(default, bool) and isinstance(value, bool)):
                    raise UserError(f"{where}: {key} is {value!r}; allowed is {type(default).__name__}.")
            elif isinstance(default, float) and isinstance(value, int | float):
                continue
            elif not isinstance(value, type(default)):
                raise UserError(f"{where}: {key} is {value!r}; allowed is a value of type {type(default).__name__}.")
        values: dict[str, Any] = {
            key: float(value) if isinstance(known[key].default, float) else value for key, value in data.items()
        }
        recipe = cls(**values)
        recipe._check_ranges(where)
        return recipe

    def _check_ranges(self, where: str) -> None:
        if self.init not in ("default", "ibp"):
            raise UserError(f"{where}: " + did_you_mean("init", self.init, ("default", "ibp")))
        if self.precision not in ("float32", "bfloat16"):
            raise UserError(f"{where}: " + did_you_mean("precision", self.precision, ("float32", "bfloat16")))
        if self.allocation not in ALLOCATIONS:
            raise UserError(f"{where}: " + did_you_mean("allocation", self.allocation, ALLOCATIONS))
        for name in ("lr", "finetune_lr", "score_lr", "batch_size", "train_eps_factor", "pretrain_epochs"):
            if not getattr(self, name) > 0:
                raise UserError(f"{where}: {name} is {getattr(self, name)}; it must be above 0.")
        for name in (
            "warmup_epochs",
            "ramp_epochs",
            "prune_epochs",
            "finetune_epochs",
            "weight_decay",
            "l1",
            "grad_clip",
        ):
            if not getattr(self, name) >= 0:
                raise UserError(f"{where}: {name} is {getattr(self, name)}; it must be at least 0.")
        for name in ("decay", "average"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{where}: {name} is {getattr(self, name)}; it must lie in [0, 1].")
        if self.warmup_epochs + self.ramp_epochs > self.pretrain_epochs:
            raise UserError(
                f"{where}: warmup_epochs + ramp_epochs is {self.warmup_epochs + self.ramp_epochs}, more than "
                f"pretrain_epochs = {self.pretrain_epochs}; the ramp must end within pre-training."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data that `from_dict` takes back."""
        return asdict(self)


def _check_settings(settings: Any, objective: str, where: str) -> None:
    if not isinstance(settings, Mapping):
        raise UserError(f"{where}: objective is {settings!r}; it must be a mapping of the loss's settings.")
    parameters = inspect.signature(OBJECTIVES.get(objective)).parameters
    allowed = {name: parameter for name, parameter in parameters.items() if name not in _GIVEN}
    for key, value in settings.items():
        if key not in allowed:
            raise UserError(f"{where}: " + did_you_mean(f"setting of objective {objective!r}", key, allowed))
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{where}: objective.{key} is {value!r}; it must be a number.")
