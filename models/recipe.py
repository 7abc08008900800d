"""Training recipes: validated, plain data; the same for every pruner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from prunecert.errors import UserError, did_you_mean
from prunecert.models import ADDONS, OBJECTIVES, PRUNERS
from prunecert.models.pruners.allocation import ALLOCATIONS, BOTH, SEMISTRUCTURED, share_of_both
from prunecert.models.pruners.contract import LENT, method_of
from prunecert.models.settings import (
    Choices,
    Count,
    CountFromZero,
    Positive,
    RecipeSetting,
    Share,
    Weight,
    check_settings,
    setting,
    show_value,
)
from prunecert.ranges import NumberRange

#: Keywords of a loss that the trainer gives, not the recipe.
RESERVED = frozenset({"model", "x", "y", "eps", "progress"})
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
        "holdout",
        "finetune_objective",
    }
)
_BelowOne = Annotated[float, NumberRange(at_least=0, below=1)]


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
            is pre-trained then. ``{seed}`` in it stands for the cell's seed. Looked for beside the checkpoints that are
            trained, then where checkpoints go by default, then among those that ship; see `models.parents`.
        holdout: Whether the held-out images stay out of training. Off, all training images are trained on, as those of
            published networks are, and nothing is measured while training nor at its end: it is for the last training
            by a recipe that was chosen with it on.
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
    pretrain_epochs: Count = 40
    warmup_epochs: CountFromZero = 1
    ramp_epochs: CountFromZero = 20
    prune_epochs: CountFromZero = 5
    finetune_epochs: CountFromZero = 15
    batch_size: Count = 128
    lr: Positive = 1e-3
    finetune_lr: Positive = 1e-3
    score_lr: Positive = 1e-2
    decay: Share = 0.5
    weight_decay: Weight = 0.0
    l1: Weight = 0.0
    grad_clip: Weight = 10.0
    average: _BelowOne = 0.0
    train_eps_factor: Positive = 1.0
    augment: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    allocation: Annotated[str, Choices(*ALLOCATIONS, BOTH, SEMISTRUCTURED)] = "uniform"
    objective: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Literal["adamw", "radam", "sgd"] = "adamw"
    momentum: _BelowOne = 0.9
    ramp: Literal["linear", "smoothed"] = "linear"
    lr_schedule: Literal["cosine", "step"] = "cosine"
    lr_milestones: Sequence[float] = (0.75, 0.875)
    lr_gamma: Positive = 0.2
    memory_format: Literal["contiguous", "channels-last"] = "contiguous"
    crop: CountFromZero = 4
    crop_padding: Literal["zero", "edge"] = "zero"
    storage: Literal["float32", "float16"] = "float32"
    parent: str = ""
    holdout: bool = True
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
        cls.check(data, objective, where=where)
        defaults = {item.name: item.default for item in fields(cls)}
        values: dict[str, Any] = {
            key: float(value)
            if isinstance(defaults[key], float)
            else tuple(map(float, value))
            if key == "lr_milestones"
            else {name: dict(settings or {}) for name, settings in value.items()}
            if key in ("addons", "pruners")
            else value
            for key, value in data.items()
        }
        recipe = cls(**values)
        # With a parent there is no pre-training.
        if not recipe.parent and recipe.warmup_epochs + recipe.ramp_epochs > recipe.pretrain_epochs:
            raise UserError(
                f"{where}: warmup_epochs + ramp_epochs is {recipe.warmup_epochs + recipe.ramp_epochs}, more than "
                f"pretrain_epochs = {recipe.pretrain_epochs}; the ramp must end within pre-training."
            )
        return recipe

    @classmethod
    def check(cls, data: Mapping[str, Any], objective: str, *, where: str = "recipe") -> None:
        """Checks each key and value by itself, without what one says of another; the arguments are `from_dict`'s.

        Raises:
            UserError: A key is unknown, or a value has the wrong type or range.
        """
        keys = _keys()
        for key, value in data.items():
            if key not in keys:
                raise UserError(f"{where}: " + did_you_mean("key", str(key), keys))
            if key == "objective":
                target = OBJECTIVES.get(objective)
                check_settings(value, target, RESERVED, f"objective {objective!r}", f"{where}: {key}")
            elif key == "finetune_objective":
                _check_by_compression(value, objective, f"{where}: {key}")
            elif key in ("addons", "pruners"):
                _check_named(value, key, where)
            elif key == "lr_milestones":
                _check_milestones(value, where)
            elif key == "allocation" and isinstance(value, str) and value.startswith(f"{BOTH}:"):
                _check_share(value, where)
            else:
                keys[key].refuse(value, where, "")

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

    def of_seed(self, seed: int) -> Recipe:
        """Returns the recipe whose parent is that of one seed.

        >>> Recipe(parent="cnn5_mtl-ibp_eps2_dense_x1_s{seed}").of_seed(1).parent
        'cnn5_mtl-ibp_eps2_dense_x1_s1'
        """
        return replace(self, parent=self.parent.replace("{seed}", str(seed)))

    def of_pruner(self, pruner: str) -> Recipe:
        """Returns the recipe without what concerns other pruners, so that it doesn't depend on them."""
        mine = {name: value for name, value in self.pruners.items() if name == pruner}
        scored = pruner in PRUNERS and method_of(PRUNERS.get(pruner)).learns_scores
        return replace(self, pruners=mine, score_lr=self.score_lr if scored else Recipe.score_lr)


@cache
def _keys() -> Mapping[str, RecipeSetting]:
    """Returns what each key of a recipe may be; mappings and milestones are checked apart."""
    hints = get_type_hints(Recipe, include_extras=True)
    return {item.name: setting(item.name, hints[item.name], item.default) for item in fields(Recipe)}


def _check_share(allocation: str, where: str) -> None:
    """Refuses what is no share behind ``both:``."""
    try:
        share_of_both(allocation)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_named(value: Any, key: str, where: str) -> None:
    """Checks ``addons`` or ``pruners``: a mapping of names to settings."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: {key} is {show_value(value)}; it must be a mapping of names to their settings.")
    registry, reserved = (ADDONS, RESERVED) if key == "addons" else (PRUNERS, LENT)
    for name, settings in value.items():
        try:
            registry.check(str(name))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        target: Callable[..., Any] = registry.get(name)
        mapping = {} if settings is None else settings
        check_settings(mapping, target, reserved, f"{registry.kind} {name!r}", f"{where}: {key}.{name}")


def _check_by_compression(settings: Any, objective: str, where: str) -> None:
    """Checks settings of the objective's loss, each of which may be a mapping from compressions."""
    what, target = f"objective {objective!r}", OBJECTIVES.get(objective)
    if not isinstance(settings, Mapping):
        check_settings(settings, target, RESERVED, what, where)
        return
    for key, value in settings.items():
        values = value if isinstance(value, Mapping) else {1: value}
        if not values or not all(map(_is_compression, values)):
            raise UserError(
                f"{where}.{key} is {show_value(value)}; it must be a value, or a mapping from compressions, numbers "
                "from 1 on, to values, e.g. {1: 0.005, 100: 0.025}."
            )
        for each in values.values():
            check_settings({key: each}, target, RESERVED, what, where)


def _is_compression(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1


def _check_milestones(value: Any, where: str) -> None:
    numbers = list(value) if isinstance(value, list | tuple) else []
    fine = all(isinstance(n, int | float) and not isinstance(n, bool) and 0 < n < 1 for n in numbers)
    if not numbers or not fine or numbers != sorted(set(numbers)):
        raise UserError(
            f"{where}: lr_milestones is {show_value(value)}; it must be a list of rising shares of a stage, each above "
            "0 and below 1, e.g. [0.75, 0.875]."
        )
