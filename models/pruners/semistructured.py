"""Two of four (2:4): of every four consecutive weights along a layer's input at most two are kept (Mishra et al. 2021).

It is the pattern that sparse tensor cores multiply by ("Accelerating Sparse Deep Neural Networks", arXiv 2104.08378,
section 3). The order is that of NVIDIA's ASP: a linear layer's row [inputs] is cut into groups of four as it lies,
where inputs of a flattened feature map follow each other by channel, row and column; a convolution's weight
[K, C, R, S] is cut along its input channels C, for each output channel and each place (r, s) of the kernel. Where
inputs don't come in whole groups the last one is filled up with zeros, which nobody keeps: of three inputs two stay, of
one or two all.

A compression of 2 keeps two of four wherever inputs come in whole groups, and half of the others' weights; a larger one
keeps fewer, still within the pattern, so that the number of weights is exact at any compression from 2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from prunecert.models.masks import Masks

_AT_MOST, _OF = 2, 4


def _groups(weight: Tensor) -> Tensor:
    """Returns a weight's groups of four along its input, [outputs, ..., groups, 4], the last one filled up with -1."""
    last = weight.movedim(1, -1)
    whole = F.pad(last, (0, -last.shape[-1] % _OF), value=-1)
    return whole.reshape(*whole.shape[:-1], -1, _OF)


def pattern(scores: Tensor) -> Tensor:
    """Returns the mask of the two largest scores of each group; ties go to the lower index.

    >>> pattern(torch.tensor([[0.1, 0.4, 0.3, 0.2, 5.0]])).int().tolist()
    [[0, 1, 1, 0, 1]]

    Args:
        scores: Of at least 0, [outputs, inputs, ...].

    Returns:
        Booleans of their shape.
    """
    groups = _groups(scores.detach())
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :_AT_MOST], value=True)
    return mask.flatten(-2)[..., : scores.shape[1]].movedim(-1, 1)


def is_two_of_four(masks: Masks) -> bool:
    """Whether every layer keeps at most two of each four consecutive weights along its input."""
    return all(bool((_groups(mask.int()).clamp_min(0).sum(-1) <= _AT_MOST).all()) for mask in masks.values())
