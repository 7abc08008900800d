"""HARP (Zhao, Koenigl, Wressnegger 2023, "Holistic Adversarially Robust Pruning", sections 3 and 4).

HYDRA with layer rates that are learned beside the scores: a layer keeps the share k of its weights, and k is trained
with a penalty on the network's weights beyond the target. Its predecessor HERACLES (Zhao, Koenigl, Wressnegger 2022)
searches the rates by reinforcement learning and gives them to a pruner: `rates` set to ``searched`` does that, with the
search of `models.pruners.rates`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation, allocate, budget, distribute
from prunecert.models.pruners.contract import Epoch, Group, Hook, Hooks, Train, declares
from prunecert.models.pruners.hydra import frozen_weights, initial_scores, learn
from prunecert.models.pruners.lwm import keep_largest
from prunecert.models.pruners.rates import search
from prunecert.models.settings import Choices, Count, Weight
from prunecert.ranges import NumberRange

#: How layer rates come about.
#: Least rate over the target share that is kept.
_LEAST = 0.1
#: Where the sigmoid of a layer that starts whole, or nearly emptied, still has a slope.
_FLAT = 1e-4


class _Keep(torch.autograd.Function):
    """The largest share of |scores| as 0/1; the gradient goes to |scores| as it is, and its sum to the share."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, magnitude: Tensor, share: Tensor) -> Tensor:
        return keep_largest(magnitude, count(float(share), magnitude.numel())).to(magnitude.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.double().sum()


def count(share: float, total: int) -> int:
    """Returns how many weights a rate keeps: all but the floor of what it doesn't."""
    return max(1, total - math.floor((1 - share) * total + 1e-6))


class Rated(nn.Module):
    """Parametrisation of a weight: the frozen weight times the mask that its scores and its rate select.

    Args:
        weight: The weight.
        share: Share of its entries that is kept at first.
        least: Smallest share that the rate can fall to.
    """

    def __init__(self, weight: Tensor, share: float, least: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(initial_scores(weight))
        self.least = least
        logit = min(max((share - least) / (1 - least), _FLAT), 1 - _FLAT)
        # In float64, so that the count that it starts at is exact.
        self.rate = nn.Parameter(torch.tensor(math.log(logit / (1 - logit)), dtype=torch.float64))

    def share(self) -> Tensor:
        """Returns k = least + (1 - least) * sigmoid(rate), section 3.2."""
        return self.least + (1 - self.least) * self.rate.sigmoid()

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the masked weight."""
        selected: Tensor = _Keep.apply(self.scores.abs(), self.share())  # type: ignore[no-untyped-call]
        return weight * selected


def excess(rated: Mapping[str, Rated], kept: int) -> Tensor:
    """Returns max(sum of n k / target - 1, 0), section 3.3."""
    total = torch.stack([module.share() * module.scores.numel() for module in rated.values()]).sum()
    return (total / kept - 1).clamp_min(0)


@declares(Hook.SCORES, Hook.REGULARISER, Hook.EPOCH)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    allocation: Allocation = "uniform",
    seed: int = 0,
    gamma: Weight = 0.01,
    rate_factor: Weight = 100.0,
    rates: Annotated[str, Choices("learned", "searched")] = "learned",
    rounds: Annotated[int, NumberRange(at_least=1, at_most=10_000)] = 8,
    population: Annotated[int, NumberRange(at_least=2, at_most=10_000)] = 12,
    images: Count = 500,
) -> Masks:
    """Learns which weights to keep, and how many of each layer, with all weights frozen.

    The published code trains scores and rates at one rate of 0.1 by SGD. Recipes here have small ones, made for scores
    under AdamW, at which rates would hardly move: `rate_factor` makes up for that. What is learned is trimmed, or
    filled up, to the exact number of weights in proportion to the rates, by the scores' rank within the layers.

    Args:
        model: The network; its weights are not changed, and it carries no trace of the scores afterwards.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps at first; see `models.pruners.allocation`.
        gamma: What the penalty's weight grows by every epoch, until the target is reached; at least 0.
        rate_factor: Learning rate of the rates over that of the scores; at least 0.
        seed: Of the search.
        rates: ``learned``: with the scores, as in HARP; ``searched``: before them, and frozen, as in HERACLES.
        rounds: Of the search: how often its policy is revised.
        population: Of the search: networks a round.
        images: Of the search: training images that a network is judged on.

    Raises:
        UserError: The compression cannot be reached, or a setting is out of range.
    """
    weights = prunable(model)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    kept = budget(sum(sizes.values()), compression)
    counts = allocate({name: tuple(weight.shape) for name, weight in weights.items()}, kept, allocation)
    if rates == "searched":
        settings = {"rounds": rounds, "population": population, "images": images}
        return learn(model, search(model, counts, train, seed=seed, **settings), train)
    least = _LEAST * kept / sum(sizes.values())
    rated: dict[str, Rated] = {}
    hooks = Hooks(memory={"gamma": gamma, "reached": False})

    def over(epoch: Epoch) -> bool:
        if not hooks.memory["reached"]:
            hooks.memory["reached"] = round(excess(rated, kept).item(), 4) == 0
        if not hooks.memory["reached"]:
            hooks.memory["gamma"] = (epoch.number + 1) * gamma
        return False

    def penalty() -> Tensor:
        return excess(rated, kept).float() * float(hooks.memory["gamma"])

    hooks.epoch, hooks.regulariser = over, penalty
    with frozen_weights(model):
        for name, weight in weights.items():
            layer = model.get_submodule(name.removesuffix(".weight"))
            rated[name] = Rated(weight, counts[name] / sizes[name], least).to(weight.device)
            parametrize.register_parametrization(layer, "weight", rated[name])
        scores = [module.scores for module in rated.values()]
        groups = [Group(scores)]
        if rate_factor:
            groups.append(Group([module.rate for module in rated.values()], rate_factor, 0.0))
        else:
            for module in rated.values():
                # Not even its gradient's norm counts.
                module.rate.requires_grad_(False)
        train(model, train.learning, name="scores", scores=scores, groups=groups, hooks=hooks)
        magnitudes = {name: module.scores.detach().abs() for name, module in rated.items()}
        shares = {name: count(module.share().item(), sizes[name]) for name, module in rated.items()}
    finals = distribute(shares, sizes, kept)
    return Masks({name: keep_largest(size, finals[name]) for name, size in magnitudes.items()})
