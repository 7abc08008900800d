"""ANP-VS (Madaan, Shin, Hwang 2020, ICML): adversarial neural pruning with vulnerability suppression, sections 3 and 4.

Behind every ReLU each channel is multiplied by a random gate, whose probability to be open has a Kumaraswamy posterior
under a sparse prior. Gates minimise the attacked loss and their divergence from the prior; weights also the change of
latent features under attack (vulnerability). Then the gates' means go into the weights, and units leave by them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.attack import frozen_statistics, pgd_linf
from prunecert.models.masks import Masks, prunable
from prunecert.models.networks.gated import Gate, gates_of
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import Batch, Group, Hook, Hooks, Train, declares
from prunecert.models.pruners.removal import refuse_beyond, removal_order, remove_units
from prunecert.models.pruners.units import Units, units_of
from prunecert.models.settings import Share, Weight
from prunecert.models.surgery import replace_layer


def insert(model: nn.Module) -> list[tuple[str, Units]]:
    """Puts gates in the places of the ReLUs, and returns their names with the units that they gate.

    Raises:
        UserError: The network is not a plain sequence of layers, each with a ReLU behind it.
    """
    relus = [name for name, module in model.named_children() if isinstance(module, nn.ReLU)]
    groups = units_of(model)
    if len(relus) != len(groups) or any(len(group.producers) > 1 or len(group.consumers) > 1 for group in groups):
        raise UserError(
            "ANP-VS is refused: it gates each layer's units behind its ReLU and folds the gates into the next layer, "
            "and this network is not such a sequence; allowed are networks without residual blocks."
        )
    for name, group in zip(relus, groups, strict=True):
        weight = next(iter(group.producers.values()))
        replace_layer(model, name, Gate(group.size).to(weight.device))
    return list(zip(relus, groups, strict=True))


@torch.no_grad()
def fold(model: nn.Module, places: list[tuple[str, Units]]) -> list[Tensor]:
    """Multiplies the gates' means into the next layers' inputs, puts the ReLUs back, and returns the means."""
    means = []
    for name, group in places:
        gate = model.get_submodule(name)
        assert isinstance(gate, Gate)
        means.append(gate.mean().detach().cpu())
        for weight in group.consumers.values():
            columns = gate.mean().repeat_interleave(weight.shape[1] // group.size)
            weight.mul_(columns.view(1, -1, *(1,) * (weight.ndim - 2)))
        replace_layer(model, name, nn.ReLU())
    return means


def features(model: nn.Module, x: Tensor, held: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Returns the logits and the gated features of every layer, with some parameters replaced."""
    latents: list[Tensor] = []
    handles = [gate.register_forward_hook(lambda _, __, output: latents.append(output)) for gate in gates_of(model)]
    try:
        logits = functional_call(model, held, (x,))
    finally:
        for handle in handles:
            handle.remove()
    return logits, latents


def vulnerability(clean: list[Tensor], attacked: list[Tensor]) -> Tensor:
    """Returns the mean over layers of mean |latent(clean) - latent(attacked)| (eq. 5)."""
    return torch.stack([(one - two).abs().mean() for one, two in zip(clean, attacked, strict=True)]).mean()


def loss(batch: Batch, *, beta: float, suppression: float, images: int, l2: float = 0.0) -> Tensor:
    """Returns the weights' loss, and the gates' with weights held fast: gradients of each reach its own alone."""
    model, x, y = batch.model, batch.x, batch.y
    with frozen_statistics(model):
        point = pgd_linf(model, x, y, batch.eps, steps=10, step_size=0.25 * batch.eps)
    gates = {id(parameter) for gate in gates_of(model) for parameter in gate.parameters()}
    held: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for name, parameter in model.named_parameters():
        held[id(parameter) not in gates][name] = parameter.detach()
    # The same noise for clean and attacked images: what differs then is what the attack does.
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        clean, latents = features(model, x, held[0])
    attacked, shifted = features(model, point, held[0])
    weights = (F.cross_entropy(clean, y) + 2 * F.cross_entropy(attacked, y)) / 3
    masked = F.cross_entropy(features(model, point, held[1])[0], y)
    divergence = torch.stack([gate.divergence() for gate in gates_of(model)]).sum()
    if l2:
        weights = weights + l2 / 2 * torch.stack([w.square().sum() for w in prunable(model).values()]).sum()
    return weights + suppression * vulnerability(latents, shifted) + masked + beta * divergence / images


@declares(Hook.FEATURES, Hook.REGULARISER)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    gated: Share = 0.5,
    beta: Weight = 2.0,
    suppression: Weight = 1e-4,
    l2: Weight = 1e-4,
    gate_factor: Weight = 10.0,
    floor: Share = 0.05,
) -> Masks:
    """Trains with gates, folds them in, and removes the units whose gates are open least.

    The compression follows from the rank of the gates' means; in the paper it follows from beta. Fine-tuning afterwards
    is by the cell's objective; with gates the network is trained adversarially, whatever that is.

    Args:
        model: The pre-trained network; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        gated: Share of the epochs with gates.
        beta: Weight of the divergence, over the number of training images.
        suppression: Weight of the vulnerability, lambda.
        l2: Weight of half the sum of the squared weights, while there are gates.
        gate_factor: Learning rate of the gates over that of the weights.
        floor: Share of a layer's units that stay in any case, at least one of them.

    Raises:
        UserError: The compression cannot be reached, a setting is out of range, or the network has residual blocks.
    """
    refuse_beyond(model, units_of(model), compression, floor)
    weights = list(model.parameters())
    places = insert(model)
    gates = [parameter for gate in gates_of(model) for parameter in gate.parameters()]
    if epochs := round(gated * train.left):
        images = sum(len(y) for _, y in train.batches(10**9))
        hooks = Hooks(loss=partial(loss, beta=beta, suppression=suppression, images=images, l2=l2))
        groups = [Group(weights), Group(gates, gate_factor, 0.0)]
        train(model, epochs, name="gated", groups=groups, hooks=hooks)
    order = removal_order([group for _, group in places], fold(model, places), floor)
    kept = budget(sum(weight.numel() for weight in prunable(model).values()), compression)
    return remove_units(model, [group for _, group in places], order, kept)
