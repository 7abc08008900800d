"""Linearity Grafting (Chen et al. 2022, ICML, section 3): unstable and insignificant ReLUs become trainable lines.

What makes verification hard is what is non-linear. Neurons are ranked by the sum of two ranks of equal weight: how
often their bounds at the radius straddle zero on training images, and how little they are active there relative to
their layer (the paper's two criteria; how they are put together is not published). The worst share gets lines of slope
0.4, which are trained with the weights.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.bounds import boundable, propagate
from prunecert.models.masks import Masks
from prunecert.models.networks.grafted import GraftedReLU
from prunecert.models.pruners.allocation import Allocation
from prunecert.models.pruners.contract import Altered, Group, Hook, Train, declares
from prunecert.models.pruners.lwm import keep_largest
from prunecert.models.pruners.lwm import prune as lwm
from prunecert.models.settings import Choices, Count, Share, Weight
from prunecert.models.surgery import replace_layer


def rectifiers(model: nn.Module) -> list[str]:
    """Returns the names of the ReLU layers that can be grafted, in order.

    Raises:
        UserError: The network has none, or a layer without bounds.
    """
    modules = dict(model.named_modules())
    graph = boundable(model)
    nodes = [graph.nodes[index] for index in graph.relus]
    names = [node.name for node in nodes if type(modules.get(node.name)) is nn.ReLU]
    if len(names) < len(nodes):
        raise UserError(
            f"Grafting is refused: {len(nodes) - len(names)} of the network's {len(nodes)} ReLUs are no layers of "
            "their own (nn.ReLU) that could be replaced; allowed are the shipped networks."
        )
    return names


@torch.no_grad()
def statistics(model: nn.Module, train: Train, images: int) -> tuple[list[Tensor], list[Tensor]]:
    """Returns, for each ReLU's neurons, the share of images that leave them unstable, and their mean activation."""
    unstable: list[Tensor] = []
    active: list[Tensor] = []
    model.eval()
    count = 0
    for x, _ in train.batches(images):
        boxes = propagate(model, x, train.radius).pre
        points = propagate(model, x, 0.0).pre
        parts = [((lower < 0) & (upper > 0)).float().sum(0) for lower, upper in boxes]
        sizes = [center.relu().sum(0) for center, _ in points]
        unstable = parts if not unstable else [one + two for one, two in zip(unstable, parts, strict=True)]
        active = sizes if not active else [one + two for one, two in zip(active, sizes, strict=True)]
        count += len(x)
    return [part / count for part in unstable], [part / count for part in active]


def worst(unstable: list[Tensor], active: list[Tensor], share: float) -> list[Tensor]:
    """Returns which neurons of each layer are grafted: the share of largest summed rank in the network.

    Args:
        unstable: Instability of each layer's neurons.
        active: Their mean activation.
        share: Share of the neurons that is grafted.
    """
    relative = [activation / activation.mean().clamp_min(1e-12) for activation in active]
    flat = (torch.cat([part.flatten() for part in parts]) for parts in (unstable, relative))
    instability, activation = flat
    chosen = keep_largest(_rank(instability) + _rank(-activation), round(share * len(instability)))
    parts = torch.split(chosen, [layer.numel() for layer in unstable])
    return [part.view_as(layer) for part, layer in zip(parts, unstable, strict=True)]


def _rank(values: Tensor) -> Tensor:
    """Returns the rank of each value, equal ones alike: how many are smaller, and half of those that are the same."""
    ordered = values.sort().values
    low, high = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (low + high).double() / 2


@declares(Hook.ACTIVATION, keeps_patterns=True)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    allocation: Allocation = "uniform",
    share: Share = 0.5,
    slopes: Annotated[str, Choices("channel", "neuron")] = "channel",
    before: Share = 0.5,
    images: Count = 1000,
    line_factor: Weight = 10.0,
) -> Altered:
    """Prunes weights by magnitude, fine-tunes, grafts, and fine-tunes weights and lines.

    The paper grafts dense networks: at compression 1 nothing is pruned, and all epochs follow the grafting.

    Args:
        model: The network; trained, and its ReLU layers are replaced.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.
        share: Share of the neurons that is grafted.
        slopes: ``neuron``: every line has its own, as published; ``channel``: the lines of a feature map share theirs
            (not their offsets), which verifiers that know only convolutions take without a large matrix.
        before: Share of the epochs between pruning and grafting.
        images: Training images that instability and activation are measured on.
        line_factor: Learning rate of the lines over that of the weights; they have no weight decay.

    Raises:
        UserError: The compression cannot be reached, a setting is out of range, or a ReLU is no layer of its own.
    """
    names = rectifiers(model)
    masks = lwm(model, compression, allocation=allocation) if compression > 1 else Masks.dense(model)
    masks.apply_(model)
    first = round(before * train.left) if compression > 1 else 0
    if first:
        train(model, first, name="recover", masks=masks)
    grafted = worst(*statistics(model, train, images), share)
    lines: list[nn.Parameter] = []
    weights = list(model.parameters())
    surgery: dict[str, list[list[int]]] = {}
    for name, mask in zip(names, grafted, strict=True):
        shared = slopes == "channel" and mask.ndim == 3
        surgery[name] = [list(mask.shape), [len(mask), 1, 1] if shared else list(mask.shape)]
        layer = GraftedReLU(*surgery[name]).to(mask.device)
        layer.grafted.copy_(mask)
        replace_layer(model, name, layer)
        lines += [layer.slope, layer.offset]
    if train.left:
        train(model, train.left, name="lines", masks=masks, groups=[Group(weights), Group(lines, line_factor, 0.0)])
    return Altered(model, masks, {"grafted": surgery})
