"""Training with Gaussian noise, for randomized smoothing (Cohen et al. 2019, arXiv 1902.02918, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def loss(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, progress: float = 1.0) -> Tensor:
    """Returns the mean cross-entropy at one noisy copy of each image.

    Args:
        model: The network.
        x: Images.
        y: Labels.
        eps: Standard deviation of the noise, sigma, in pixels of [0, 1]; the noisy images are not clipped.
        progress: Not used.
    """
    return F.cross_entropy(model(x + eps * torch.randn_like(x)), y)
