"""Stability training for randomized smoothing (Li et al. 2019, arXiv 1809.03113; Carmon et al. 2019, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.settings import Weight


def loss(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, progress: float = 1.0, beta: Weight = 6.0) -> Tensor:
    """Returns CE(clean) + beta * KL(clean || noisy), which RST and HYDRA train for smoothing with.

    Args:
        model: The network.
        x: Images.
        y: Labels.
        eps: Standard deviation of the noise, sigma, in pixels of [0, 1]; 0 gives the clean loss.
        progress: Not used.
        beta: Weight of the divergence.
    """
    if eps == 0:
        return F.cross_entropy(model(x), y)
    clean, noisy = model(x), model(x + eps * torch.randn_like(x))
    divergence = F.kl_div(
        F.log_softmax(noisy, dim=1), F.log_softmax(clean, dim=1), reduction="batchmean", log_target=True
    )
    return F.cross_entropy(clean, y) + beta * divergence
