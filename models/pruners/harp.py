"""HARP (Zhao, Koenigl, Wressnegger 2023, "Holistic Adversarially Robust Pruning", sections 3 and 4).

HYDRA with layer rates that are learned beside the scores: a layer keeps the share k of its weights, and k is trained
with a penalty on the network's weights beyond the target. Its predecessor HERACLES (Zhao, Koenigl, Wressnegger 2022)
searches the rates by reinforcement learning and gives them to a pruner: `rates` set to ``searched`` does that, with the
search of `models.pruners.rates`.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation, allocate, budget, distribute
from prunecert.models.pruners.contract import Group, Hook, Hooks, Step, Train, declares
from prunecert.models.pruners.hydra import frozen_weights, learn
from prunecert.models.pruners.lwm import keep_largest
from prunecert.models.pruners.rated import Rated, count, excess
from prunecert.models.pruners.rates import search
from prunecert.models.settings import Choices, Count, Weight
from prunecert.ranges import NumberRange

#: How layer rates come about.
#: Least rate over the target share that is kept.
_LEAST = 0.1
#: Epochs over which the published penalty's weight grows.
_PUBLISHED = 20


@declares(Hook.SCORES, Hook.REGULARISER, Hook.STEP)
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
    filled up, to the exact number of weights in proportion to the rates, by the scores' rank within the layers. How
    much was too many stands on the card (`excess`, a share of the target).

    Args:
        model: The network; its weights are not changed, and it carries no trace of the scores afterwards.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps at first; see `models.pruners.allocation`.
        gamma: What the penalty's weight grows by, until the target is met; at least 0. The paper looks after each of
            20 epochs. Where there are fewer, we look as often within them, so that the weight comes as far; and where
            the target is lost again it goes on growing, and doesn't stay as in the paper.
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
    hooks = Hooks(memory={"gamma": gamma, "growths": 0})
    looks = max(_PUBLISHED, train.learning)

    def grow(step: Step) -> None:
        before, now = (number * looks // step.steps for number in (step.number, step.number + 1))
        if before < now and round(excess(rated, kept).item(), 4) > 0:
            hooks.memory["growths"] += now - before
            hooks.memory["gamma"] = (hooks.memory["growths"] + 1) * gamma

    def penalty() -> Tensor:
        return excess(rated, kept).float() * float(hooks.memory["gamma"])

    hooks.after, hooks.regulariser = grow, penalty
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
    train.note(excess=round(sum(shares.values()) / kept - 1, 4))
    finals = distribute(shares, sizes, kept)
    return Masks({name: keep_largest(size, finals[name]) for name, size in magnitudes.items()})
