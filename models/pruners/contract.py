"""What a pruner declares about itself, and what a training loop lends to one that trains.

A pruner is asked once, ``prune(model, compression, ...) -> Masks``, and drives its own training: it asks `Train` for
stretches, and within a stretch it is asked back through `Hooks`:

    train(model, epochs, ...)                      one stretch
      ├─ every batch    hooks.loss                 the objective's loss, or another (teacher, features)
      │                 hooks.regulariser          plus a term of weights, scores or rates
      │                 hooks.before               masks may change between gradient and optimiser ...
      │                 hooks.after                ... or after it
      └─ every epoch    hooks.epoch                with robust accuracy and loss on held-out images; may end it
    train.batches, train.loss, train.attack        data passes: scores, activations, curvature
    train.feedback                                 how good a masked network is
    train.note                                     what is to stand on the card

A pruner that makes other layers returns `Altered` in place of masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks
from prunecert.models.settings import checked

_Prune = TypeVar("_Prune", bound=Callable[..., Any])
#: Keywords of a pruner that whoever calls it gives; all others are settings.
LENT = frozenset({"model", "compression", "allocation", "seed", "train"})


class Hook(StrEnum):
    """What a pruner may need of a training loop.

    The loop itself lends steps, epochs, scores, regularisers, gradients and the evaluator, as the chart above has them.
    Whose choices follow from an epoch's feedback, or from the evaluator's, needs held-out images.
    The others, activation, teacher, features, curvature and surgery, are labels of what a method makes for itself of
    losses, data passes and other layers that it is free to use: they say why a loop without a radius refuses it, and
    nothing is lent by their names.
    """

    STEP = "step"
    EPOCH = "epoch with validation feedback"
    SCORES = "scores"
    REGULARISER = "regulariser"
    ACTIVATION = "activation"
    TEACHER = "teacher"
    FEATURES = "features"
    GRADIENTS = "gradients of attacked images"
    CURVATURE = "curvature"
    EVALUATOR = "evaluator"
    HELD_OUT = "held-out images"
    SURGERY = "surgery"


@dataclass(frozen=True)
class Step:
    """A step of training.

    Args:
        number: Steps done before it.
        steps: Steps of the stretch.
        masks: What is held at zero now; empty in a stretch without masks, which a hook can't begin with.
        gradients: Returns the loss's gradient at this batch for each prunable weight, masked ones too.
        lr: The step's learning rate.
    """

    number: int
    steps: int
    masks: Masks
    gradients: Callable[[], dict[str, Tensor]]
    lr: float = 0.0


@dataclass(frozen=True)
class Feedback:
    """How a network does under attack at the full radius, by shares in [0, 1] and mean cross-entropy.

    Args:
        train: Attacked accuracy on training images.
        accuracy: Attacked accuracy on held-out images.
        loss: Cross-entropy of the attacked held-out images.
        clean: Accuracy on the held-out images as they are.
    """

    train: float
    accuracy: float
    loss: float
    clean: float


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch of training.

    Args:
        number: Epochs done of the stretch, from 1.
        epochs: Epochs of the stretch.
        feedback: Measures the network as it is.
    """

    number: int
    epochs: int
    feedback: Callable[[], Feedback]


@dataclass(frozen=True)
class Batch:
    """A batch that a loss is taken of.

    Args:
        model: The network.
        x: Images [N, C, H, W] in [0, 1].
        y: Labels [N].
        eps: The step's radius in pixels of [0, 1].
        progress: How far the ramp of eps has come, in [0, 1].
        own: Returns the cell's objective's loss of the batch, additions of the recipe included.
        extra: Returns the additions alone.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    progress: float
    own: Callable[[], Tensor]
    extra: Callable[[], Tensor] = lambda: torch.zeros(())


#: Returns other masks, or None to keep those there are.
StepHook = Callable[[Step], Masks | None]
#: Returns whether the stretch is over before its time.
EpochHook = Callable[[Epoch], bool]


@dataclass
class Hooks:
    """What a stretch of training asks back.

    All must follow from their arguments, the network, torch's random numbers and `memory` alone, or training would not
    resume to the same weights.

    Args:
        before: Asked between a step's gradient and the optimiser, which it may give other masks.
        after: Likewise after the optimiser's step, with the weights that it made.
        epoch: Asked after every epoch.
        regulariser: Returns a term that is added to every loss.
        loss: Returns the loss of a batch, in place of the objective's.
        memory: What hooks remember: numbers, texts, tensors, and lists and mappings of them; kept with the states.
    """

    before: StepHook | None = None
    after: StepHook | None = None
    epoch: EpochHook | None = None
    regulariser: Callable[[], Tensor] | None = None
    loss: Callable[[Batch], Tensor] | None = None
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Parameters that are trained at a rate of their own.

    Args:
        parameters: Which.
        factor: Their learning rate over the stretch's.
        decay: Their weight decay; None for the recipe's.
    """

    parameters: Sequence[nn.Parameter]
    factor: float = 1.0
    decay: float | None = None


@dataclass(frozen=True)
class Altered:
    """A network with other layers than its architecture has.

    Args:
        model: The network.
        masks: What is kept of its prunable weights.
        surgery: What was done, as plain data; see `models.surgery`.
    """

    model: nn.Module
    masks: Masks
    surgery: Mapping[str, Any]


class Train(Protocol):
    """Trains a network with the cell's objective, on the cell's epochs."""

    @property
    def left(self) -> int:
        """Epochs that are not spent yet."""

    @property
    def learning(self) -> int:
        """How many of them the recipe sets apart for learning what to keep."""

    @property
    def radius(self) -> float:
        """The full radius of training, in pixels of [0, 1]."""

    @property
    def bounding(self) -> bool:
        """Whether the objective bounds the network, so that a certified form of a method is the fitting one."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The objective's settings, those that the recipe says."""

    @property
    def views(self) -> Callable[[nn.Module, Tensor, Tensor, float], tuple[float, Tensor, Tensor]] | None:
        """What the objective looks at of a network, images, labels and a radius, if it mixes two losses; or None.

        See `prunecert.models.VIEWS`; all of the objective's settings are in it.
        """

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
        """Trains `model` in place; returns the masks that held in the end, if there were any.

        Args:
            model: The network.
            epochs: How many of those left; of a stretch that a hook ends early, the others stay left.
            name: What the stretch is called; unlike the pruner's others.
            scores: Train these parameters only, at the rate for scores.
            groups: Train these only, at their rates; together with `scores` over the rate for scores.
            masks: Weights to hold at zero.
            hooks: What to ask back.
            restart: With the schedule of pre-training (its learning rate, its ramp of eps, shortened with the epochs)
                instead of that of fine-tuning.
            ramp: With its ramp of eps only.
            first: Epochs of the schedule to skip.
        """

    def batches(self, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images [n, C, H, W] and labels [n] of the first so many training images, as they are."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Returns the loss of the cell's objective at the full radius."""

    def attack(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Returns attacked images within the full radius, by ten steps of PGD."""

    def feedback(self, model: nn.Module, *, images: int = 1000, steps: int = 10) -> Feedback:
        """Measures a network on so many images of each split, by an attack of so many steps."""

    def note(self, **values: Any) -> None:
        """Notes how it went, for the card: numbers, texts, lists and mappings by name."""


@dataclass(frozen=True)
class Method:
    """What a pruner declares.

    Args:
        needs: Hooks without which it cannot work.
        from_scratch: It begins at the initial weights; the epochs of pre-training are its own to spend.
        refuses_by_shape: It refuses a compression by the network's shape alone, so that it can be asked beforehand.
        keeps_patterns: Its masks keep to an allocation's pattern, too (``2of4``).
    """

    needs: frozenset[Hook] = frozenset()
    from_scratch: bool = False
    refuses_by_shape: bool = False
    keeps_patterns: bool = False

    @property
    def learns_scores(self) -> bool:
        """Whether it trains scores, so that the recipe's ``score_lr`` concerns it."""
        return Hook.SCORES in self.needs


def declares(
    *needs: Hook, from_scratch: bool = False, refuses_by_shape: bool = False, keeps_patterns: bool = False
) -> Callable[[_Prune], _Prune]:
    """Marks a pruner with what it declares, see `Method`, and has its settings checked when it is called."""

    def mark(prune: _Prune) -> _Prune:
        marked = checked(prune, LENT)
        vars(marked)["method"] = Method(frozenset(needs), from_scratch, refuses_by_shape, keeps_patterns)
        return marked

    return mark


def method_of(prune: Callable[..., Any]) -> Method:
    """Returns what a pruner declares; one that declares nothing needs nothing."""
    method = getattr(prune, "method", Method())
    assert isinstance(method, Method)
    return method


def refuse_lacking(name: str, prune: Callable[..., Any], offers: frozenset[Hook], loop: str, allowed: str) -> None:
    """Refuses a pruner that needs what a training loop lacks.

    Args:
        name: The pruner's name.
        prune: The pruner.
        offers: The loop's hooks.
        loop: What the loop is, in words.
        allowed: What lends them, in words.

    Raises:
        UserError: It does.
    """
    lacking = sorted(method_of(prune).needs - offers)
    if lacking:
        raise UserError(
            f"Pruner {name!r} is refused: it needs {', '.join(lacking)}, which {loop} lacks; allowed is another "
            f"pruner, or {allowed}."
        )
