"""Rectifiers whose channels are multiplied by random gates (Madaan, Shin, Hwang 2020, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: The prior's alpha; the temperature of the relaxed gates.
_ALPHA, _TEMPERATURE = 1e-4, 0.1
_EULER = 0.5772156649015329


class Gate(nn.Module):
    """A ReLU whose channels are multiplied by relaxed Bernoulli gates in training, and by their means in evaluation.

    Args:
        channels: How many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a_raw = nn.Parameter(torch.full((channels,), -1.0))
        # A softplus of 1.
        self.b_raw = nn.Parameter(torch.full((channels,), math.log(math.e - 1)))

    def shape(self) -> tuple[Tensor, Tensor]:
        """Returns a and b of the Kumaraswamy distributions, above 0."""
        return F.softplus(self.a_raw.clamp_min(-10)), F.softplus(self.b_raw.clamp(-10, 50))

    def probabilities(self, uniform: Tensor) -> Tensor:
        """Returns samples of the probabilities to be open, (1 - u^(1/b))^(1/a)."""
        a, b = self.shape()
        return (1 - uniform.clamp(1e-6, 1 - 1e-6) ** (1 / b)).clamp(1e-6, 1 - 1e-6) ** (1 / a)

    def mean(self) -> Tensor:
        """Returns the mean probability, b Gamma(1 + 1/a) Gamma(b) / Gamma(1 + 1/a + b)."""
        a, b = self.shape()
        return (b.log() + torch.lgamma(1 + 1 / a) + torch.lgamma(b) - torch.lgamma(1 + 1 / a + b)).exp()

    def divergence(self) -> Tensor:
        """Returns the divergence from the prior Beta(alpha, 1), summed over channels (eq. 9)."""
        a, b = self.shape()
        parts = (1 - _ALPHA / a) * (-_EULER - torch.digamma(b) - 1 / b) + (a * b / _ALPHA).log() - (b - 1) / b
        return parts.sum()

    def forward(self, x: Tensor) -> Tensor:
        """Returns gated activations of pre-activations [N, C, ...]; a sample for each image in training."""
        x = x.relu()
        if not self.training:
            return x * self.mean().view(1, -1, *(1,) * (x.ndim - 2))
        pi = self.probabilities(torch.rand(*x.shape[:2], device=x.device)).clamp(1e-6, 1 - 1e-6)
        noise = torch.rand_like(pi).clamp(1e-6, 1 - 1e-6)
        gate = torch.sigmoid((torch.logit(noise) + torch.logit(pi)) / _TEMPERATURE)
        return x * gate.view(*gate.shape, *(1,) * (x.ndim - 2))


def gates_of(model: nn.Module) -> list[Gate]:
    """Returns a network's gates, in order."""
    return [module for module in model.modules() if isinstance(module, Gate)]
