"""Regularisers of the fast recipe for IBP (Shi et al. 2021, arXiv 2103.17268, section 4.3).

They keep interval bounds tight, and active and inactive neurons in balance, while eps grows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.bounds import propagate
from prunecert.models.settings import Positive, PositiveShare, Weight


def term(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    weight: Weight = 0.5,
    tau: PositiveShare = 0.5,
    tightness: Weight = 1.0,
    relu: Weight = 1.0,
    spread: Positive = 1.0,
) -> Tensor:
    """Returns weight * (1 - eps / eps_target) * (tightness + ReLU balance); zero when the ramp is over.

    Args:
        model: A network that `models.bounds` can bound.
        x: Images.
        y: Labels; not used.
        eps: Radius.
        progress: eps / eps_target.
        weight: lambda_0 of the paper.
        tau: Tolerance of both terms, in (0, 1].
        tightness: Weight of the tightness term.
        relu: Weight of the balance of ReLUs.
        spread: Standard deviation of the pixels that the radius at the input is measured in. The paper's networks see
            standardised images, so that with batch norm all radii count in standard deviations: 0.2 for CIFAR-10
            does the same for images in [0, 1].
    """
    if progress >= 1:
        return x.new_zeros(())
    bounds = propagate(model, x, eps)
    at_input = ((x + eps).clamp_max(1) - (x - eps).clamp_min(0)).mean() / 2 / spread
    total = x.new_zeros(())
    for center, radius in bounds.boxes:
        if tightness:
            # At radius 0 this is a constant without gradient.
            ratio = at_input / radius.float().mean().clamp_min(1e-12)
            total = total + tightness * F.relu(tau - ratio) / tau
        if relu:
            total = total + relu * relu_balance((center - radius).float(), (center + radius).float(), tau)
    return weight * (1 - progress) * total / max(1, len(bounds.boxes))


def relu_balance(lower: Tensor, upper: Tensor, tau: float) -> Tensor:
    """Returns how far a layer's stably active and inactive neurons are from contributing alike to mean and variance.

    Each of the two ratios (active to inactive, or its inverse if that is smaller) costs max(0, tau - ratio) / tau. A
    layer without stable neurons of one kind costs nothing: its ratios say nothing.
    """
    center = (lower + upper) / 2
    active, inactive = (lower > 0).to(center.dtype), (upper < 0).to(center.dtype)
    spread = (center - center.mean()) ** 2
    pairs = (
        ((center * active).sum(), -(center * inactive).sum()),
        ((spread * active).sum(), (spread * inactive).sum()),
    )
    cost = center.new_zeros(())
    for one, other in pairs:
        # Without a stable neuron of either kind a side is 0, and its ratio has no gradient but NaN: held out.
        there = (one > 0) & (other > 0)
        one, other = torch.where(there, one, 1.0), torch.where(there, other, 1.0)
        cost = cost + F.relu(tau - torch.minimum(one / other, other / one)) / tau
    return cost
