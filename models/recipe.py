"""Training recipes: validated, plain data; the same for every pruner."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal

from prunecert.errors import UserError, did_you_mean
from prunecert.models import ADDONS, OBJECTIVES, PRUNERS
from prunecert.models.pruners.allocation import ALLOCATIONS, BOTH, SEMISTRUCTURED, share_of_both
from prunecert.models.pruners.contract import method_of

#: Keywords of a loss that the trainer gives, not the recipe; and those of a pruner that the pipeline gives.
_RESERVED = frozenset({"model", "x", "y", "eps", "progress"})
LENT = frozenset({"model", "compression", "allocation", "seed", "train"})
#: Keys that a pre-trained network doesn't depend on.
_AFTER_PRETRAINING = frozenset(
    {
        "prune_epochs",
        "finetune_epochs",
        "finetune_lr",
        "finetune_objective",
        "score_lr",
        "allocation",
        "pruners",
        "storage",
    }
)
#: Keys that a card written before they existed lacks. At their defaults they are left out, so that such a card, and
#: what was pre-trained for it, is still recognised as made by the same recipe.
_LATER = frozenset(
    {
        "addons",
        "pruners",
        "optimizer",
        "momentum",
        "ramp",
        "lr_schedule",
        "lr_milestones",
        "lr_gamma",
        "memory_format",
        "crop",
        "crop_padding",
        "storage",
        "parent",
        "finetune_objective",
    }
)
_CHOICES = {
    "init": ("default", "ibp", "ibp-hidden"),
    "precision": ("float32", "bfloat16"),
    "optimizer": ("adamw", "radam", "sgd"),
    "ramp": ("linear", "smoothed"),
    "lr_schedule": ("cosine", "step"),
    "memory_format": ("contiguous", "channels-last"),
    "crop_padding": ("zero", "edge"),
    "storage": ("float32", "float16"),
    "allocation": (*ALLOCATIONS, BOTH, SEMISTRUCTURED),
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, pruned and fine-tuned.

    After pre-training every cell gets `prune_epochs + finetune_epochs` more epochs. A pruner that learns its mask
    spends `prune_epochs` on that; the others, and the dense control, fine-tune for all of them. So all cells have
    seen the training set equally often.

    Args:
        init: Initial weights: ``default`` (PyTorch's), ``ibp`` (Shi et al. 2021, section 4.1), or ``ibp-hidden``: the
            same, but for the last layer, which keeps PyTorch's, as the authors' code has it.
        pretrain_epochs: Epochs of pre-training, warm-up and ramp included.
        warmup_epochs: Epochs at eps = 0.
        ramp_epochs: Epochs in which eps grows from 0 to its target.
        ramp: How it grows: ``linear``, or ``smoothed``: with the fourth power of time for a quarter of the ramp, then
            linearly with the slope reached (the smoothed schedule of auto_LiRPA and Shi et al. 2021).
        parent: Name of a dense checkpoint that stands in for the pre-trained network, such as an imported one; nothing
            is pre-trained then. Looked for beside the checkpoints that are trained, then among those that ship.
        prune_epochs: Epochs for learning scores.
        finetune_epochs: Epochs of fine-tuning at full eps.
        batch_size: Images a step.
        optimizer: ``adamw``; ``radam``, which rectifies the first steps' variance (Liu et al. 2020), with decoupled
            weight decay; or ``sgd`` with `momentum` and coupled weight decay.
        momentum: Of ``sgd``; the others have their own.
        lr: Peak learning rate in pre-training.
        finetune_lr: Peak learning rate in fine-tuning.
        score_lr: Peak learning rate of the scores.
        lr_schedule: ``cosine``: constant, then falling in the last `decay` of each stage to 1/100 of the peak; or
            ``step``: times `lr_gamma` at each of `lr_milestones`.
        decay: Share of each stage's end in which the learning rate falls, and weights are averaged.
        lr_milestones: Where the learning rate steps down, as shares of a stage, rising within (0, 1).
        lr_gamma: What it is multiplied by there.
        weight_decay: Weight decay; coupled with ``sgd`` alone.
        l1: Factor of the L1 norm of the prunable weights in the loss.
        grad_clip: Largest L2 norm of the gradient; 0 for none.
        average: Decay of the exponential moving average of the weights that is kept in the end; 0 for none. The
            average starts where the learning rate begins to fall.
        train_eps_factor: Training radius over the radius of the cell.
        augment: Random flips and crops.
        crop: Pixels of padding that crops are taken from; 0: flips alone.
        crop_padding: What these pixels are: ``zero``, or ``edge``, the nearest pixel of the image.
        precision: Of the products in training (autocast); weights and measurements are float32 always.
        memory_format: Of images and convolutions in training; ``channels-last`` is faster with bfloat16 and sums in
            another order.
        storage: How checkpoints keep prunable weights. With ``float16`` the finished network is rounded to it before it
            is measured: the rounded network is the network, in half the bytes.
        allocation: How many weights each layer keeps, for the pruners that allocate by layer; see
            `models.pruners.allocation`.
        objective: Settings of the objective's loss.
        finetune_objective: Those that are others after pre-training. A number may depend on the compression:
            ``{alpha: {1: 0.005, 100: 0.025}}`` is 0.005 below 100x and 0.025 from there on. Pruners that begin at the
            initial weights, which nothing is pre-trained for, have `objective` throughout.
        addons: Terms added to the objective's loss, by name in `models.ADDONS`, each with its settings.
        pruners: Settings of pruners, by name in `models.PRUNERS`.
    """

    init: Literal["default", "ibp", "ibp-hidden"] = "default"
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
    optimizer: Literal["adamw", "radam", "sgd"] = "adamw"
    momentum: float = 0.9
    ramp: Literal["linear", "smoothed"] = "linear"
    lr_schedule: Literal["cosine", "step"] = "cosine"
    lr_milestones: Sequence[float] = (0.75, 0.875)
    lr_gamma: float = 0.2
    memory_format: Literal["contiguous", "channels-last"] = "contiguous"
    crop: int = 4
    crop_padding: Literal["zero", "edge"] = "zero"
    storage: Literal["float32", "float16"] = "float32"
    parent: str = ""
    finetune_objective: Mapping[str, Any] = field(default_factory=dict)
    addons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pruners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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
        keys = {item.name: item for item in fields(cls)}
        for key, value in data.items():
            if key not in keys:
                raise UserError(f"{where}: " + did_you_mean("key", key, keys))
            default = keys[key].default
            if key == "objective":
                _check_settings(
                    value, f"objective {objective!r}", OBJECTIVES.get(objective), _RESERVED, f"{where}: {key}"
                )
            elif key == "finetune_objective":
                _check_by_compression(value, objective, f"{where}: {key}")
            elif key in ("addons", "pruners"):
                _check_named(value, key, where)
            elif key == "lr_milestones":
                _check_milestones(value, where)
            elif isinstance(default, bool) or isinstance(value, bool):
                if not (isinstance(default, bool) and isinstance(value, bool)):
                    raise UserError(f"{where}: {key} is {value!r}; allowed is {type(default).__name__}.")
            elif isinstance(default, float) and isinstance(value, int | float):
                continue
            elif not isinstance(value, type(default)) and key in _CHOICES:
                raise UserError(f"{where}: " + did_you_mean(key, str(value), _CHOICES[key]))
            elif not isinstance(value, type(default)):
                raise UserError(f"{where}: {key} is {value!r}; allowed is a value of type {type(default).__name__}.")
        values: dict[str, Any] = {
            key: float(value)
            if isinstance(keys[key].default, float)
            else tuple(map(float, value))
            if key == "lr_milestones"
            else {name: dict(settings or {}) for name, settings in value.items()}
            if key in ("addons", "pruners")
            else value
            for key, value in data.items()
        }
        recipe = cls(**values)
        recipe._check_ranges(where)
        return recipe

    def _check_ranges(self, where: str) -> None:
        _check_share(self.allocation, where)
        for name, choices in _CHOICES.items():
            if name == "allocation" and self.allocation.startswith(f"{BOTH}:"):
                continue
            if getattr(self, name) not in choices:
                raise UserError(f"{where}: " + did_you_mean(name, getattr(self, name), choices))
        for name in ("lr", "finetune_lr", "score_lr", "batch_size", "train_eps_factor", "pretrain_epochs", "lr_gamma"):
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
            "momentum",
            "crop",
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
        data = asdict(self)
        data["lr_milestones"] = list(self.lr_milestones)
        plain = asdict(Recipe())
        plain["lr_milestones"] = list(plain["lr_milestones"])
        return {key: value for key, value in data.items() if key not in _LATER or value != plain[key]}

    def pretraining(self) -> dict[str, Any]:
        """Returns what a pre-trained network depends on, as plain data."""
        return {key: value for key, value in self.to_dict().items() if key not in _AFTER_PRETRAINING}

    def finetuning(self) -> Recipe:
        """Returns the recipe after pre-training: with the objective's settings of fine-tuning."""
        return replace(self, objective={**self.objective, **self.finetune_objective}, finetune_objective={})

    def at_compression(self, compression: float) -> Recipe:
        """Returns the recipe with the numbers of one compression.

        >>> recipe = Recipe(finetune_objective={"alpha": {1: 0.005, 100: 0.025}})
        >>> recipe.at_compression(10.0).finetune_objective, recipe.at_compression(100.0).finetune_objective
        ({'alpha': 0.005}, {'alpha': 0.025})
        """
        settings = {}
        for key, value in self.finetune_objective.items():
            if not isinstance(value, Mapping):
                settings[key] = value
            elif reached := [least for least in value if least <= compression]:
                settings[key] = value[max(reached)]
        return replace(self, finetune_objective=settings)

    def of_pruner(self, pruner: str) -> Recipe:
        """Returns the recipe without what concerns other pruners, so that it doesn't depend on them."""
        mine = {name: value for name, value in self.pruners.items() if name == pruner}
        scored = pruner in PRUNERS and method_of(PRUNERS.get(pruner)).learns_scores
        return replace(self, pruners=mine, score_lr=self.score_lr if scored else Recipe.score_lr)


def _check_share(allocation: str, where: str) -> None:
    """Refuses what is no share behind ``both:``."""
    try:
        share_of_both(allocation)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_named(value: Any, key: str, where: str) -> None:
    """Checks ``addons`` or ``pruners``: a mapping of names to settings."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: {key} is {value!r}; it must be a mapping of names to their settings.")
    registry, reserved = (ADDONS, _RESERVED) if key == "addons" else (PRUNERS, LENT)
    for name, settings in value.items():
        try:
            registry.check(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        target: Callable[..., Any] = registry.get(name)
        _check_settings(settings or {}, f"{registry.kind} {name!r}", target, reserved, f"{where}: {key}.{name}")


def _check_by_compression(settings: Any, objective: str, where: str) -> None:
    """Checks settings of the objective's loss, each of which may be a mapping from compressions."""
    check = partial(_check_settings, what=f"objective {objective!r}", function=OBJECTIVES.get(objective))
    if not isinstance(settings, Mapping):
        check(settings, reserved=_RESERVED, where=where)
        return
    for key, value in settings.items():
        values = value if isinstance(value, Mapping) else {1: value}
        if not values or not all(map(_is_compression, values)):
            raise UserError(
                f"{where}.{key} is {value!r}; it must be a value, or a mapping from compressions, numbers from 1 on, "
                "to values, e.g. {1: 0.005, 100: 0.025}."
            )
        for each in values.values():
            check({key: each}, reserved=_RESERVED, where=where)


def _is_compression(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1


def _check_settings(
    settings: Any, what: str, function: Callable[..., Any], reserved: frozenset[str], where: str
) -> None:
    """Checks settings against the keywords of the function that they go to: each exists, and is of its type."""
    if not isinstance(settings, Mapping):
        raise UserError(f"{where} is {settings!r}; it must be a mapping of settings.")
    allowed = {n: p for n, p in inspect.signature(function).parameters.items() if n not in reserved}
    for key, value in settings.items():
        if key not in allowed:
            raise UserError(f"{where}: " + did_you_mean(f"setting of {what}", key, allowed))
        if isinstance(allowed[key].default, str):
            if not isinstance(value, str):
                raise UserError(f"{where}.{key} is {value!r}; it must be text.")
        elif not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{where}.{key} is {value!r}; it must be a number.")


def _check_milestones(value: Any, where: str) -> None:
    numbers = list(value) if isinstance(value, list | tuple) else []
    fine = all(isinstance(n, int | float) and not isinstance(n, bool) and 0 < n < 1 for n in numbers)
    if not numbers or not fine or numbers != sorted(set(numbers)):
        raise UserError(
            f"{where}: lr_milestones is {value!r}; it must be a list of rising shares of a stage, each above 0 and "
            "below 1, e.g. [0.75, 0.875]."
        )
