"""Weights that are products of factors: low rank in place of zeros.

A convolution's weight in Tucker-2 form (Kim et al. 2016, section 3.2), and a linear layer's as a product of two:

    in ── first 1x1 ──► r1 ── core k x k ──► r2 ── last 1x1 ──► out        r1 in + r1 r2 k² + r2 out numbers
    in ── first ──────► r  ── last ────────► out                           r (in + out) numbers

The layer stays what it is, with the product as its weight: bounds, attacks and masks see one layer, so that no bound
pays for depth. The numbers of its factors are what is trained, stored and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunecert.errors import UserError


class Factors(nn.Module):
    """Parametrisation of a weight by its factors, from the last layer to the first.

    Args:
        ranks: [r1, r2] of a convolution: of its input and of its output channels; [r] of a linear layer.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        super().__init__()
        self.ranks = tuple(ranks)

    def forward(self, *factors: Tensor) -> Tensor:
        """Returns the weight [out, in, ...] in float32, whatever training computes in."""
        with torch.autocast(factors[0].device.type, enabled=False):
            last, first = factors[0], factors[-1]
            if len(factors) == 2:
                return last @ first
            return torch.einsum("or,rshw,si->oihw", last, factors[1], first)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Returns the factors of the weight's projection on these ranks."""
        outputs = basis(weight, 0)[0][:, : self.ranks[-1]]
        if weight.ndim == 2:
            return outputs.contiguous(), (outputs.T @ weight).contiguous()
        inputs = basis(weight, 1)[0][:, : self.ranks[0]]
        core = torch.einsum("oihw,or,is->rshw", weight, outputs, inputs)
        return outputs.contiguous(), core.contiguous(), inputs.T.contiguous()


def basis(weight: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """Returns the left singular vectors of an unfolding, [n, n] or fewer columns, and its singular values, descending.

    Args:
        weight: [out, in, ...].
        mode: The axis that stays: 0 for outputs, 1 for inputs.
    """
    unfolded = weight.detach().transpose(0, mode).flatten(1).double()
    vectors, values, _ = torch.linalg.svd(unfolded, full_matrices=False)
    return vectors.to(weight.dtype), values


def project(weight: Tensor, ranks: Sequence[int]) -> Tensor:
    """Returns the nearest weight, by the truncated bases of its unfoldings, of at most these ranks."""
    factors = Factors(ranks)
    return factors(*factors.right_inverse(weight.detach()))  # type: ignore[no-any-return]


def size(shape: Sequence[int], ranks: Sequence[int]) -> int:
    """Returns how many numbers the factors of a weight of that shape have.

    >>> size([32, 16, 4, 4], [2, 3]), size([100, 2048], [5])
    (224, 10740)
    """
    if len(shape) == 2:
        return ranks[0] * (shape[0] + shape[1])
    taps = int(torch.Size(shape[2:]).numel())
    return ranks[0] * shape[1] + ranks[0] * ranks[1] * taps + ranks[1] * shape[0]


def factors_of(layer: nn.Module) -> tuple[Tensor, ...] | None:
    """Returns a layer's factors from last to first, or None if its weight is a weight."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    weights: Any = layer.parametrizations
    entry = weights["weight"]
    if not isinstance(entry[0], Factors):
        return None
    return tuple(getattr(entry, f"original{number}") for number in range(2 if len(entry[0].ranks) == 1 else 3))


def factorise(model: nn.Module, ranks: Mapping[str, Sequence[int]]) -> None:
    """Puts factors in the place of weights, in place: those of the weights' projections.

    Args:
        model: The network.
        ranks: By the layer's name; see `Factors`.

    Raises:
        UserError: There is no such layer, or its weight has no factors of these ranks.
    """
    layers = dict(model.named_modules())
    for name, of in ranks.items():
        layer = layers.get(name)
        shape: Sequence[int] = layer.weight.shape if isinstance(layer, nn.Conv2d | nn.Linear) else ()
        most = [min(shape)] if len(shape) == 2 else [shape[1], shape[0]] if shape else []
        fits = (
            isinstance(of, list | tuple)
            and len(of) == len(most) > 0
            and all(type(rank) is int and 1 <= rank <= limit for rank, limit in zip(of, most, strict=True))
        )
        grouped = isinstance(layer, nn.Conv2d) and layer.groups != 1
        if layer is None or not fits or grouped or parametrize.is_parametrized(layer):
            raise UserError(
                f"The factors of layer {name!r} with ranks {of!r} are refused: it needs a convolution in one group "
                "with the ranks of its inputs and outputs, or a linear layer with one rank, each from 1 to their "
                "number."
            )
        parametrize.register_parametrization(layer, "weight", Factors(of))


def saved(model: nn.Module) -> dict[str, int]:
    """Returns, by the weight's name, how many numbers its factors have, for each weight that is a product."""
    counts = {}
    for name, module in model.named_modules():
        factors = factors_of(module)
        if factors is not None:
            counts[f"{name}.weight"] = sum(factor.numel() for factor in factors)
    return counts


def factors_in(model: nn.Module) -> list[Tensor]:
    """Returns the factors of all weights that are products."""
    return [factor for module in model.modules() for factor in factors_of(module) or ()]
