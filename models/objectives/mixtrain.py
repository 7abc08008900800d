"""MixTrain (Wang et al. 2018, arXiv 1811.02625): symbolic-interval bounds of a few images in most steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.crown import symbolic_margins
from prunecert.models.graph import has_norms
from prunecert.models.norms import uncounted
from prunecert.models.settings import Count, Positive, Share, Switch


def loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    probability: Share = 0.8,
    samples: Count = 5,
    weight_start: Positive = 0.1,
    weight_end: Positive = 1.0,
    symbolic: Switch = 1,
) -> Tensor:
    """Returns CE(clean), and in a share of the steps w * CE(worst case by symbolic intervals) of some images besides.

    Args:
        model: A network that `models.bounds` can bound.
        x: Images.
        y: Labels.
        eps: Radius; 0 gives the clean loss.
        progress: w grows geometrically with it, from `weight_start` to `weight_end`.
        probability: Share of the steps with a robust loss (alpha of the paper).
        samples: Images of the batch, drawn with replacement, that are bounded (k of the paper).
        weight_start: w when eps begins to grow, above 0.
        weight_end: w when the ramp is over, above 0.
        symbolic: 1 bounds every hidden layer symbolically, as the paper does, which takes a backward pass for each of
            its neurons; 0 takes plain intervals there and symbolic ones for the margins only, for larger networks.
    """
    clean: Tensor = F.cross_entropy(model(x), y)
    # Drawn on the host, which then need not wait for the device.
    if eps == 0 or float(torch.rand(())) >= probability:
        return clean
    chosen = torch.randint(len(y), (samples,), device=x.device)
    with uncounted():
        # Batch norm's statistics are those of the whole batch, which the clean loss has counted.
        clean_images = x if has_norms(model) else None
        margins = symbolic_margins(model, x[chosen], eps, y[chosen], symbolic=bool(symbolic), clean=clean_images)
    weight = float(weight_start * (weight_end / weight_start) ** progress)
    return clean + weight * F.cross_entropy(-margins, y[chosen])
