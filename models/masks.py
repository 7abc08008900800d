"""Masks: which weights of a network are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from prunecert.errors import UserError


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of convolutions and linear layers by name, in the network's order.

    Biases and normalisation are never pruned and never counted.
    """
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


class Masks(Mapping[str, Tensor]):
    """One boolean tensor a prunable weight; True where the weight is kept.

    >>> network = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> masks = Masks({**Masks.dense(network), "0.weight": torch.tensor([[True, False, False, True]] * 2)})
    >>> masks.kept, masks.total, masks.sparsity_by_layer()
    (6, 10, {'0.weight': 0.5, '2.weight': 0.0})
    >>> masks.holds(network)
    False
    >>> masks.apply_(network)
    >>> masks.holds(network), int(network[0].weight.count_nonzero())
    (True, 4)

    Args:
        kept: Masks by parameter name, each of its parameter's shape.

    Raises:
        UserError: A layer would keep no weight at all.
    """

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        self._kept = {name: mask.detach().to("cpu", torch.bool) for name, mask in kept.items()}
        for name, mask in self._kept.items():
            if not bool(mask.any()):
                raise UserError(
                    f"Pruning would empty layer {name!r} ({mask.numel():,} weights), which makes the network constant; "
                    "allowed is a smaller compression, or an allocation that protects small layers ('balanced')."
                )

    @classmethod
    def dense(cls, model: nn.Module) -> Masks:
        """Returns masks that keep everything."""
        return cls({name: torch.ones_like(weight, dtype=torch.bool) for name, weight in prunable(model).items()})

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(mask.numel() for mask in self._kept.values())

    @property
    def kept(self) -> int:
        """Number of kept weights."""
        return sum(int(mask.sum()) for mask in self._kept.values())

    @property
    def sparsity(self) -> float:
        """Zeros over all prunable weights, in [0, 1)."""
        return 1 - self.kept / self.total

    @property
    def compression(self) -> float:
        """All prunable weights over the kept ones, at least 1."""
        return self.total / self.kept

    def sparsity_by_layer(self) -> dict[str, float]:
        """Returns the share of zeros of each layer."""
        return {name: 1 - float(mask.float().mean()) for name, mask in self._kept.items()}

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Zeroes the weights of `model` that are not kept, in place."""
        for name, weight in prunable(model).items():
            weight.mul_(self._kept[name].to(weight.device))

    def holds(self, model: nn.Module) -> bool:
        """Whether every weight that is not kept is exactly zero in `model`."""
        return all(not bool(weight.detach().cpu()[~self._kept[name]].any()) for name, weight in prunable(model).items())

    def sha256(self) -> str:
        """Returns a hash of names, shapes and bits."""
        state = hashlib.sha256()
        for name in sorted(self._kept):
            mask = self._kept[name]
            state.update(f"{name}{tuple(mask.shape)}".encode())
            state.update(mask.numpy().tobytes())
        return state.hexdigest()
