"""Layer rates by search, for pruners that take them as given (HERACLES: Zhao, Koenigl, Wressnegger 2022).

HERACLES lets an agent try rates, and rewards it with the robust loss of the network that they make; how its agent is
made is not published in enough detail. Here the policy is a normal distribution over the logarithms of the layers'
shares, and it is moved to the best of each round (cross-entropy method, Rubinstein 1999). A network is made by
magnitude, which takes no training, and judged by the objective's loss at the full radius on training images.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import distribute
from prunecert.models.pruners.contract import Train
from prunecert.models.pruners.lwm import keep_largest

#: Spread of the logarithms at first: a factor of e for one in three.
_SPREAD = 1.0
#: The spread is never less than this, so that later rounds go on trying.
_LEAST = 0.05
#: Share of a round that the policy moves to.
_ELITE = 0.25


def counts_of(logs: Tensor, sizes: Mapping[str, int], kept: int) -> dict[str, int]:
    """Returns how many weights each layer keeps, `kept` in all, for the logarithms of their shares [layers]."""
    # Not beyond what a float holds, wherever the policy goes.
    shares = (logs - logs.max()).clamp_min(-60).exp().tolist()
    return distribute({name: share * sizes[name] for share, name in zip(shares, sizes, strict=True)}, sizes, kept)


def search(
    model: nn.Module,
    counts: Mapping[str, int],
    train: Train,
    *,
    seed: int,
    rounds: int = 8,
    population: int = 12,
    images: int = 500,
) -> dict[str, int]:
    """Returns the best weights by layer that were tried, those that it begins with among them.

    Args:
        model: The network; not changed.
        counts: Weights by layer to begin with; their sum is what all keep.
        train: Lends the loss and the images.
        seed: Of the search.
        rounds: How often the policy is revised.
        population: Networks a round.
        images: Training images that a network is judged on.
    """
    weights = prunable(model)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    kept = sum(counts.values())
    values = {name: weight.detach().clone() for name, weight in weights.items()}
    # The same attack on each: only the rates differ.
    batches = list(train.batches(images))

    def loss(tried: Mapping[str, int]) -> float:
        torch.manual_seed(seed)
        masks = Masks({name: keep_largest(value.abs(), tried[name]) for name, value in values.items()})
        masks.apply_(model)
        total = sum(train.loss(model, x, y).item() * len(y) for x, y in batches)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(values[name])
        return total / sum(len(y) for _, y in batches)

    training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    mean = torch.tensor([counts[name] / sizes[name] for name in sizes], dtype=torch.float64).log()
    spread = torch.full_like(mean, _SPREAD)
    best, least = dict(counts), loss(counts)
    for _ in range(rounds):
        logs = mean + spread * torch.randn(population, len(sizes), generator=generator, dtype=torch.float64)
        tries = [counts_of(row, sizes, kept) for row in logs]
        losses = torch.tensor([loss(tried) for tried in tries])
        elite = losses.argsort(stable=True)[: max(1, round(_ELITE * population))]
        mean = logs[elite].mean(0)
        spread = logs[elite].std(0, correction=0).clamp_min(_LEAST)
        if float(losses[elite[0]]) < least:
            best, least = tries[int(elite[0])], float(losses[elite[0]])
    model.train(training)
    return best
