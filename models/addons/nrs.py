"""ReLU-stability losses: RS (Xiao et al. 2019, arXiv 1809.03008) and its normalised form NRS (Li et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunecert.models.bounds import propagate
from prunecert.models.settings import Switch, Weight


def term(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    weight: Weight = 0.01,
    normalise: Switch = 1,
) -> Tensor:
    """Returns weight * the sum over ReLUs of -tanh(1 + l u / gamma^2), mean over the images.

    l and u are interval bounds of a ReLU's input. Dividing by gamma^2 makes the term blind to a mere shrinking of all
    pre-activations. The paper takes gamma from batch normalisation, where |gamma| is the standard deviation of the
    channel's pre-activation over the batch; that standard deviation is taken as it is here, so that the term means the
    same for networks without batch normalisation.

    Args:
        model: A network that `models.bounds` can bound.
        x: Images.
        y: Labels; not used.
        eps: Radius; 0 gives no term.
        progress: Not used: eps grows with it already.
        weight: Of the term.
        normalise: 1 for NRS, 0 for RS (gamma = 1).
    """
    if eps == 0:
        return x.new_zeros(())
    total = x.new_zeros(())
    for lower, upper in propagate(model, x, eps).pre:
        lower, upper = lower.float(), upper.float()
        product = lower * upper
        if normalise:
            axes = (0, *range(2, lower.ndim))
            product = product / ((lower + upper) / 2).var(axes, correction=0, keepdim=True).clamp_min(1e-12)
        total = total - torch.tanh(1 + product).flatten(1).sum(1).mean()
    return weight * total
