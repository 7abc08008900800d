"""Masking Adversarial Damage (Lee, Kim, Ro 2022, CVPR, section 3): second-order saliency of the adversarial loss.

A mask is learned on attacked images that lowers their loss; what it damps is valued by a second-order model of the loss
with Kronecker-factored curvature. The lowest saliencies go, in one shot.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.graph import padding_of
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import reachable
from prunecert.models.pruners.contract import Hook, Train, declares
from prunecert.models.pruners.lwm import global_masks, keep_largest, untied
from prunecert.models.settings import Count
from prunecert.ranges import NumberRange

#: The free parameters at which the softplus is 0, to float32's digits, and 1.
_ZERO, _ONE = -20.0, math.log(math.e - 1)
_LEARNING_RATE = 0.1


def learned_masks(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> dict[str, Tensor]:
    """Returns masks in [0, 1] that lower the cross-entropy of images, by Adam from masks of 1; weights don't move.

    Parameters are clamped after each step, not masks within it, so that a mask of 1 still has a gradient.
    """
    weights = {name: weight.detach() for name, weight in prunable(model).items()}
    free = {name: torch.full_like(weight, _ONE, requires_grad=True) for name, weight in weights.items()}
    adam = torch.optim.Adam(list(free.values()), lr=_LEARNING_RATE)
    for _ in range(steps):
        masked = {name: weights[name] * F.softplus(one) for name, one in free.items()}
        loss = F.cross_entropy(functional_call(model, masked, (x,)), y)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        with torch.no_grad():
            for one in free.values():
                one.clamp_(_ZERO, _ONE)
    return {name: F.softplus(one.detach()).clamp(0, 1) for name, one in free.items()}


def damage(inputs: Tensor, gradients: Tensor, change: Tensor) -> Tensor:
    """Returns 1/2 G_ii dw_ij (dw_i A)_j for a layer, [outputs, inputs].

    A is the mean over images of the inputs' second moments, summed over positions; G_ii the mean square of the
    gradients at output i over images and positions. A is never formed.

    Args:
        inputs: Layer inputs [images, positions, inputs].
        gradients: Gradients of each image's loss at the layer's outputs [images, positions, outputs].
        change: What is taken from the weights [outputs, inputs].
    """
    flat = inputs.flatten(0, 1)
    products = (flat @ change.T).T @ flat / len(inputs)
    return 0.5 * gradients.flatten(0, 1).square().mean(0)[:, None] * change * products


def saliencies(model: nn.Module, x: Tensor, y: Tensor, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the damage of each weight's change at the masked network, of the weights' shapes."""
    weights = {name: weight.detach() for name, weight in prunable(model).items()}
    passes: dict[str, tuple[Tensor, Tensor]] = {}
    handles = []
    for name in weights:
        layer = model.get_submodule(name.removesuffix(".weight"))

        def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            output.retain_grad()
            passes[name] = args[0].detach(), output

        handles.append(layer.register_forward_hook(note))
    try:
        masked = {name: (weights[name] * mask).requires_grad_(True) for name, mask in masks.items()}
        loss = F.cross_entropy(functional_call(model, masked, (x,)), y, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    parts = {}
    for name, weight in weights.items():
        before, output = passes[name]
        gradient = output.grad
        assert gradient is not None
        layer = model.get_submodule(name.removesuffix(".weight"))
        if isinstance(layer, nn.Conv2d):
            (top, left), (bottom, right) = padding_of(layer)
            before = F.pad(before, (left, right, top, bottom))
            before = F.unfold(before, layer.kernel_size, layer.dilation, 0, layer.stride).mT
            gradient = gradient.flatten(2).mT
        else:
            before, gradient = before[:, None], gradient[:, None]
        change = (weight * (1 - masks[name])).flatten(1)
        parts[name] = damage(before, gradient, change).view_as(weight)
    return parts


def choose(scores: dict[str, Tensor], kept: int) -> Masks:
    """Keeps the highest scores: of the last layer the same number in each row, of all others together the rest."""
    last = list(scores)[-1]
    rows, columns = scores[last].shape
    share = kept / sum(score.numel() for score in scores.values())
    each = min(columns, max(1, round(share * columns)))
    others = {name: score for name, score in scores.items() if name != last}
    left = min(max(kept - rows * each, len(others)), sum(score.numel() for score in others.values()))
    masks = dict(global_masks(others, left)) if others else {}
    masks[last] = torch.stack([keep_largest(row, each) for row in scores[last]])
    return Masks(masks)


@declares(Hook.CURVATURE, Hook.GRADIENTS)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    images: Count = 1280,
    steps: Annotated[int, NumberRange(at_least=1, at_most=10_000)] = 20,
) -> Masks:
    """Keeps the weights of highest saliency; the pre-trained network is fine-tuned by its own objective afterwards.

    The paper fine-tunes with MART's loss. Its saliency needs no objective: attacked images and their cross-entropy.

    Args:
        model: The pre-trained network; not changed.
        compression: All over kept weights, at least 1; exact to half a weight in each row of the last layer.
        train: See `models.pruners.contract`.
        images: Training images that saliencies are averaged over; the paper takes all.
        steps: Steps of Adam for each batch's mask.

    Raises:
        UserError: The compression cannot be reached, or a setting is out of range.
    """
    grouped = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups != 1]
    if grouped:
        raise UserError(f"mad is refused: the convolution {grouped[0]!r} has groups; allowed are plain ones.")
    weights = prunable(model)
    kept = reachable({name: weight.numel() for name, weight in weights.items()}, compression)
    rows = weights[list(weights)[-1]].shape[0]
    if kept < rows + len(weights) - 1:
        raise UserError(
            f"Compression {compression:g} is refused for mad: one weight for each of {rows} classes and each other "
            f"layer is more than the {kept} that it keeps; allowed is a smaller compression."
        )
    model.eval()
    totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for x, y in train.batches(images):
        point = train.attack(model, x, y)
        parts = saliencies(model, point, y, learned_masks(model, point, y, steps))
        for name, part in parts.items():
            totals[name] += part.detach()
    return choose(untied(totals, weights), kept)
