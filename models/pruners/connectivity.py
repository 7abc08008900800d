"""Bayesian Connectivity Sampling (Ozdenizci, Legenstein 2021, ICML, algorithm 1): the wiring is sampled while training.

Every weight has a sign that never changes. One that would cross zero dies, a random dormant one is born in its place
with a vanishing strength: noisy gradient descent over strengths and wiring, with a global budget of connections.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import Hook, Hooks, Step, Train, declares
from prunecert.models.pruners.lwm import keep_largest
from prunecert.models.settings import Share

#: Strength of a connection that is born; the noise's standard deviation over the learning rate.
_BORN, _NOISE = 1e-12, 1e-6


def first_densities(sizes: dict[str, int], kept: int, outer: float) -> dict[str, int]:
    """Returns how many connections each layer begins with: below the budget, which births then fill.

    The first and the last layer get the share `outer`, as far as half of the budget goes, all others half of the
    network's density.
    """
    names, density = list(sizes), kept / sum(sizes.values())
    ends = {names[0], names[-1]}
    room = min(1.0, 0.5 * kept / sum(outer * sizes[name] for name in ends))
    shares = {name: outer * room if name in ends else 0.5 * density for name in names}
    return {name: max(1, math.floor(shares[name] * size)) for name, size in sizes.items()}


@torch.no_grad()
def start(model: nn.Module, kept: int, outer: float, seed: int) -> tuple[dict[str, Tensor], Masks]:
    """Draws signs and first masks, and sets the weights to signs times |He normal| strengths."""
    generator = torch.Generator().manual_seed(seed)
    weights = prunable(model)
    counts = first_densities({name: weight.numel() for name, weight in weights.items()}, kept, outer)
    signs, masks = {}, {}
    for name, weight in weights.items():
        signs[name] = (torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1).to(weight)
        masks[name] = keep_largest(torch.rand(weight.shape, generator=generator), counts[name])
        spread = math.sqrt(2 / weight[0].numel())
        strength = spread * torch.randn(weight.shape, generator=generator).abs()
        weight.copy_(signs[name] * strength.to(weight) * masks[name].to(weight.device))
    return signs, Masks(masks)


@torch.no_grad()
def rewire(model: nn.Module, signs: dict[str, Tensor], step: Step, kept: int) -> Masks | None:
    """Adds noise, lets those die whose sign would change, and bears new ones until the budget is full.

    Returns:
        The new masks, or None if nothing died or was born. What has just died is not born again in the same step.
    """
    weights = prunable(model)
    masks, dead = {}, {}
    for name, weight in weights.items():
        mask = step.masks[name].to(weight.device)
        weight.add_(torch.randn_like(weight) * mask, alpha=_NOISE * step.lr)
        dead[name] = mask & (weight * signs[name] <= 0)
        masks[name] = mask & ~dead[name]
    alive = {name: int(mask.sum()) for name, mask in masks.items()}
    missing = kept - sum(alive.values())
    if missing <= 0 and not any(bool(one.any()) for one in dead.values()):
        return None
    sizes = torch.tensor([float(weight.numel()) for weight in weights.values()])
    # A birth picks a layer by its size, then a dormant place there.
    drawn = torch.multinomial(sizes, max(0, missing), replacement=True) if missing > 0 else torch.zeros(0)
    births = torch.bincount(drawn.long(), minlength=len(sizes)).tolist()
    for count, (name, weight) in zip(births, weights.items(), strict=True):
        dormant = (~masks[name] & ~dead[name]).flatten().nonzero().flatten()
        # An empty layer would be no network.
        coming = min(max(count, 1 - alive[name]), len(dormant))
        places = dormant[torch.randperm(len(dormant), device=dormant.device)[:coming]]
        masks[name].view(-1)[places] = True
        weight.view(-1)[places] = _BORN * signs[name].view(-1)[places]
    return Masks(masks)


@declares(Hook.STEP, from_scratch=True)
def prune(model: nn.Module, compression: float, *, train: Train, seed: int = 0, outer: Share = 0.6) -> Masks:
    """Trains a sparse network whose wiring is sampled at every step.

    Args:
        model: The network; its initial weights are drawn anew; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        seed: Seed of signs, strengths and the first wiring.
        outer: Share of the first and last layer's connections that there are at first.

    Raises:
        UserError: The compression cannot be reached, or `outer` is out of range.
    """
    sizes = [weight.numel() for weight in prunable(model).values()]
    kept = budget(sum(sizes), compression)
    if kept < 4 * len(sizes):
        raise UserError(
            f"Compression {compression:g} is refused: {kept} connections are too few to be sampled in {len(sizes)} "
            f"layers; allowed is at most {sum(sizes) // (4 * len(sizes)):,}."
        )
    signs, masks = start(model, kept, outer, seed)

    def after(step: Step) -> Masks | None:
        return rewire(model, signs, step, kept)

    trained = train(model, train.left, name="sampling", masks=masks, hooks=Hooks(after=after), restart=True)
    assert trained is not None
    return trained
