"""Flying Bird and Flying Bird+ (Chen et al. 2022, "Sparsity Winning Twice", ICLR, section 3.3 and appendix A1).

Sparse adversarial training whose connections move, as in RigL (`drop_grow`), but with quotas by layer that spare small
layers, random growth, and a floor of the exchange. Flying Bird+ also lets the density follow robust overfitting.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated

import torch
from torch import Tensor, nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget, distribute
from prunecert.models.pruners.contract import Epoch, Hook, Hooks, Step, Train, declares
from prunecert.models.pruners.lwm import exactly, keep_largest
from prunecert.models.settings import Choices, Count

Growth = Annotated[str, Choices("random", "gradient")]
_MOST, _LEAST = 0.5, 0.005
#: Flying Bird+: how much more goes, how much more comes, changes looked at, and the share of training before it begins.
_EXTRA_DROP, _EXTRA_GROWTH, _CHANGES, _BEGINS = 0.4, 1.05, 4, 0.5


def quotas(sizes: dict[str, int], kept: int) -> dict[str, int]:
    """Returns weights to keep by layer, n / (1 + F n) with one force F for all, which spares small layers.

    The force is bisected; rounding is exact over the network (the public code's "IGQ").
    """
    low, high = 0.0, 1.0 * len(sizes)
    for _ in range(200):
        force = (low + high) / 2
        total = sum(size / (1 + force * size) for size in sizes.values())
        low, high = (force, high) if total > kept else (low, force)
    return distribute({name: size / (1 + high * size) for name, size in sizes.items()}, sizes, kept)


def exchanged(number: int, steps: int) -> float:
    """Returns the share of a layer's weights that a step exchanges: a cosine over the whole training."""
    return _LEAST + (_MOST - _LEAST) * (1 + math.cos(math.pi * number / steps)) / 2


@torch.no_grad()
def move(model: nn.Module, step: Step, growth: str, *, extra: bool = False, more: bool = False) -> Masks:
    """Drops each layer's smallest weights and grows others; a layer that is still full is left alone.

    Args:
        model: The network.
        step: The step.
        growth: ``random``: every empty place wakes with the same probability, so that counts hold on average; or
            ``gradient``: the places of largest gradient do.
        extra: Drop more, which is not grown again.
        more: Grow more than was dropped.
    """
    share = exchanged(step.number, step.steps)
    gradients = step.gradients() if growth == "gradient" else {}
    masks: dict[str, Tensor] = {}
    for name, weight in prunable(model).items():
        mask = step.masks[name].to(weight.device)
        kept, total = int(step.masks[name].sum()), mask.numel()
        if kept == total:
            masks[name] = mask
            continue
        dropped = math.ceil(share * kept)
        leaving = min(kept - 1, dropped + extra * round(_EXTRA_DROP * share * kept))
        stays = keep_largest(weight.abs().masked_fill(~mask, -1.0), kept - leaving)
        empty = total - kept + leaving
        coming = min(empty, round(dropped * (_EXTRA_GROWTH if more else 1.0)))
        if growth == "gradient":
            comes = keep_largest(gradients[name].abs().masked_fill(stays, -1.0), coming)
        else:
            comes = ~stays & (torch.rand(mask.shape, device=mask.device) < coming / empty)
        masks[name] = stays | comes
    return Masks(masks)


def wants(history: list[list[float]]) -> tuple[bool, bool]:
    """Returns whether Flying Bird+ drops more, and whether it grows more.

    Args:
        history: Gap of robust accuracy between training and held-out images, and robust loss on the latter, by epoch.
    """
    changes = [(two[0] - one[0], two[1] - one[1]) for one, two in itertools.pairwise(history[-_CHANGES - 1 :])]
    rising, stuck = sum(gap > 0 for gap, _ in changes), sum(loss >= 0 for _, loss in changes)
    return len(changes) == _CHANGES and 2 * rising >= _CHANGES, len(changes) == _CHANGES and 2 * stuck >= _CHANGES


@declares(Hook.STEP, from_scratch=True)
def prune(
    model: nn.Module, compression: float, *, train: Train, seed: int = 0, every: Count = 900, growth: Growth = "random"
) -> Masks:
    """Trains a random sparse network whose connections move.

    Args:
        model: The network with its initial weights; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        seed: Seed of the first masks.
        every: Steps between two changes; a third more in the second half of training.
        growth: ``random`` or ``gradient``.

    Raises:
        UserError: The compression cannot be reached, or a setting is out of range.
    """
    masks = _fly(model, compression, train, seed, every, growth, plus=False)
    # By random growth counts hold on average only.
    return exactly(model, masks, budget(masks.total, compression))


@declares(Hook.STEP, Hook.EPOCH, Hook.HELD_OUT, from_scratch=True)
def prune_plus(
    model: nn.Module, compression: float, *, train: Train, seed: int = 0, every: Count = 900, growth: Growth = "random"
) -> Masks:
    """Likewise, with a density that follows robust overfitting: it begins at `compression` and ends near it."""
    return _fly(model, compression, train, seed, every, growth, plus=True)


def _fly(
    model: nn.Module, compression: float, train: Train, seed: int, every: int, growth: str, *, plus: bool
) -> Masks:
    sizes = {name: weight.numel() for name, weight in prunable(model).items()}
    kept = quotas(sizes, budget(sum(sizes.values()), compression))
    generator = torch.Generator().manual_seed(seed)
    start = {n: keep_largest(torch.rand(w.shape, generator=generator), kept[n]) for n, w in prunable(model).items()}
    hooks = Hooks(memory={"history": [], "next": every})

    def revise(step: Step) -> Masks | None:
        if step.number < hooks.memory["next"]:
            return None
        hooks.memory["next"] = step.number + round(every * (4 / 3 if step.number >= step.steps / 2 else 1))
        extra, more = wants(hooks.memory["history"]) if plus and step.number >= _BEGINS * step.steps else (False, False)
        return move(model, step, growth, extra=extra, more=more)

    def over(epoch: Epoch) -> bool:
        if epoch.number >= _BEGINS * epoch.epochs - _CHANGES:
            feedback = epoch.feedback()
            hooks.memory["history"].append([feedback.train - feedback.accuracy, feedback.loss])
        return False

    hooks.before, hooks.epoch = revise, over if plus else None
    masks = Masks(start)
    masks.apply_(model)
    trained = train(model, train.left, name="sparse", masks=masks, hooks=hooks, restart=True)
    assert trained is not None
    return trained
