"""Initial weights for certified training."""

from __future__ import annotations

import math

from torch import nn

from prunecert.errors import UserError
from prunecert.models.graph import graph_of


def ibp_init(model: nn.Module, *, last: bool = True) -> None:
    """Draws weights that keep interval widths through the layers (Shi et al. 2021, section 4.1).

    W ~ N(0, 2 pi / fan_in^2), so that E|W| * fan_in / 2, the growth of a width through an affine layer and a ReLU,
    is 1. Biases start at zero. A layer that takes from a sum of two branches, whose widths add up, gets half of that.

    Args:
        model: The network; batch norm keeps its factors of 1 and offsets of 0.
        last: Whether the last layer is drawn, too, or keeps what it has.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    doubled = _behind_sums(model)
    for module in layers if last else layers[:-1]:
        fan_in = module.weight[0].numel()
        std = math.sqrt(2 * math.pi) / fan_in
        nn.init.normal_(module.weight, std=std / 2 if module in doubled else std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _behind_sums(model: nn.Module) -> set[nn.Module]:
    """Returns the affine layers that take from a sum of two branches, through layers that keep widths."""
    try:
        nodes = graph_of(model).nodes
    except UserError:
        return set()
    summed: list[bool] = []
    for node in nodes:
        keeps = node.kind in ("relu", "flatten", "pool")
        summed.append(node.kind == "add" or (keeps and summed[node.inputs[0]]))
    return {
        node.module for node in nodes if node.kind == "affine" and node.module is not None and summed[node.inputs[0]]
    }
