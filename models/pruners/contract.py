"""What the pipeline lends to a pruner that trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from prunecert.models.masks import Masks

_Prune = TypeVar("_Prune", bound=Callable[..., Masks])


@dataclass(frozen=True)
class Step:
    """A step of training, between the gradient and the optimizer.

    Args:
        number: Steps done before it.
        steps: Steps of the stretch.
        masks: What is held at zero now.
        gradients: Returns the loss's gradient at this batch for each prunable weight, masked ones too.
    """

    number: int
    steps: int
    masks: Masks
    gradients: Callable[[], dict[str, Tensor]]


#: Asked at every step: other masks, or None to keep those there are. It must follow from the step, the weights and the
#: gradients alone, or training would not resume to the same weights.
Revise = Callable[[Step], Masks | None]


class Train(Protocol):
    """Trains a network with the cell's objective, on the cell's epochs."""

    @property
    def left(self) -> int:
        """Epochs that are not spent yet."""

    @property
    def learning(self) -> int:
        """How many of them the recipe sets apart for learning what to keep."""

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
        """Trains `model` in place; returns the masks that held in the end, if there were any.

        Args:
            model: The network.
            epochs: How many of those left.
            name: What the stretch is called; unlike the pruner's others.
            scores: Train these parameters only, at the rate for scores.
            masks: Weights to hold at zero.
            revise: May change the masks at every step.
            restart: With the schedule of pre-training (its learning rate, its ramp of eps, shortened with the epochs)
                instead of that of fine-tuning.
            first: Epochs of the schedule to skip.
        """


def from_scratch(prune: _Prune) -> _Prune:
    """Marks a pruner that begins at the initial weights; the epochs of pre-training are its own to spend."""
    marked: Any = prune
    marked.from_scratch = True
    return prune


def refuses_by_shape(prune: _Prune) -> _Prune:
    """Marks a pruner that refuses a compression by the network's shape alone, so that it can be asked beforehand."""
    marked: Any = prune
    marked.refuses_by_shape = True
    return prune


def can_be_asked(prune: Callable[..., Masks]) -> bool:
    """Whether a pruner's answer to an untrained network tells whether it will take the trained one."""
    return bool(getattr(prune, "refuses_by_shape", False))


def learns_scores(prune: _Prune) -> _Prune:
    """Marks a pruner that trains scores, so that the recipe's ``score_lr`` concerns it."""
    marked: Any = prune
    marked.learns_scores = True
    return prune


def has_scores(prune: Callable[..., Masks]) -> bool:
    """Whether a pruner trains scores."""
    return bool(getattr(prune, "learns_scores", False))


def begins_at_start(prune: Callable[..., Masks]) -> bool:
    """Whether a pruner wants the initial weights instead of the pre-trained ones."""
    return bool(getattr(prune, "from_scratch", False))
