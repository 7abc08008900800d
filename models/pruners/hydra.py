"""HYDRA (Sehwag et al. 2020, arXiv 2002.10509): the mask is learned by minimising the robust loss over scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation, allocate_in_pattern, budget
from prunecert.models.pruners.contract import Hook, Train, declares
from prunecert.models.pruners.lwm import keep_allocated


def initial_scores(weight: Tensor) -> Tensor:
    """Returns sqrt(6 / fan_in) * W / max|W| (section 4.1, scaled initialisation), of the weight's shape.

    |scores| have the order of |W|, so the first mask is that of LWM.
    """
    fan_in = weight[0].numel()
    return math.sqrt(6 / fan_in) * weight.detach() / weight.detach().abs().max().clamp_min(1e-12)


class _Select(torch.autograd.Function):
    """The `kept` largest |scores| that are allowed as 0/1; backward hands the gradient straight through to |scores|."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, magnitude: Tensor, kept: int, allocation: Allocation
    ) -> Tensor:
        return keep_allocated(magnitude, kept, allocation).to(magnitude.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


class _Scored(nn.Module):
    """Parametrisation of a weight: the frozen weight times the mask that its scores select."""

    def __init__(self, weight: Tensor, kept: int, allocation: Allocation) -> None:
        super().__init__()
        self.scores = nn.Parameter(initial_scores(weight))
        self.kept, self.allocation = kept, allocation

    def forward(self, weight: Tensor) -> Tensor:
        selected: Tensor = _Select.apply(self.scores.abs(), self.kept, self.allocation)  # type: ignore[no-untyped-call]
        return weight * selected


@contextmanager
def frozen_weights(model: nn.Module) -> Iterator[None]:
    """Freezes a network's parameters within it; afterwards they are trainable, and its weights not parametrised."""
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for name in prunable(model):
            layer = model.get_submodule(name.removesuffix(".weight"))
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        for parameter in frozen:
            parameter.requires_grad_(True)


@declares(Hook.SCORES, keeps_patterns=True)
def prune(model: nn.Module, compression: float, *, train: Train, allocation: Allocation = "uniform") -> Masks:
    """Learns which weights to keep, with all weights frozen.

    Args:
        model: The network; its weights are not changed, and it carries no trace of the scores afterwards.
        compression: All over kept weights, at least 1.
        train: Trains the scores through the network; see `models.pruners.contract`.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.

    Raises:
        UserError: The compression cannot be reached.
    """
    shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
    kept = budget(sum(math.prod(shape) for shape in shapes.values()), compression)
    return learn(model, allocate_in_pattern(shapes, kept, allocation), train, allocation)


def learn(model: nn.Module, counts: Mapping[str, int], train: Train, allocation: Allocation = "uniform") -> Masks:
    """Learns which weights to keep where their number by layer is known.

    Args:
        model: See `prune`.
        counts: How many weights each layer keeps.
        train: Trains the scores.
        allocation: Whose pattern is kept to, if it has one.
    """
    scored: dict[str, _Scored] = {}
    with frozen_weights(model):
        for name, weight in prunable(model).items():
            layer = model.get_submodule(name.removesuffix(".weight"))
            scored[name] = _Scored(weight, counts[name], allocation).to(weight.device)
            parametrize.register_parametrization(layer, "weight", scored[name])
        train(model, train.learning, name="scores", scores=[module.scores for module in scored.values()])
        return Masks({name: keep_allocated(one.scores.abs(), counts[name], allocation) for name, one in scored.items()})
