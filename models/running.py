"""What changes in a stretch of training, as one state that can be written down and gone back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.contract import Group, Hooks
from prunecert.models.recipe import Recipe


@dataclass
class Running:
    """A stretch of training.

    Args:
        model: The network.
        trained: The parameters that are trained.
        optimizer: Their optimiser.
        device: Where all are.
        masks: What is held at zero.
        hooks: What is asked back.
        averaged: Moving average of `trained`, once it has begun.
        held: The weights with masks, and these.
    """

    model: nn.Module
    trained: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    device: torch.device
    masks: Masks | None
    hooks: Hooks
    averaged: list[Tensor] | None = None
    held: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)

    def hold(self, masks: Masks | None) -> None:
        """Holds other weights at zero from now on."""
        self.masks = masks
        if masks is not None:
            weights = prunable(self.model)
            self.held = [(weights[name], masks[name].to(self.device)) for name in masks]  # type: ignore[misc]

    @torch.no_grad()
    def revise(self, masks: Masks) -> None:
        """Changes the masks: what goes becomes zero, and what comes starts with no memory in the optimizer."""
        self.hold(masks)
        for weight, mask in self.held:
            weight.mul_(mask)
            for value in self.optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.mul_(mask)

    def state(self) -> dict[str, Any]:
        """Returns all of it, and the generators' states, by reference."""
        cuda = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged,
            "masks": None if self.masks is None else dict(self.masks),
            "memory": self.hooks.memory,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = state["averaged"]
        self.hold(None if state["masks"] is None else Masks(state["masks"]))
        recall(self.hooks, state)
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)


def recall(hooks: Hooks, state: Mapping[str, Any]) -> None:
    """Gives hooks back what they remembered in a state; older states hold no such thing."""
    hooks.memory.clear()
    hooks.memory.update(state.get("memory", {}))


def optimizer_of(groups: Sequence[Group], recipe: Recipe, lr: float, device: torch.device) -> torch.optim.Optimizer:
    """Returns the recipe's optimiser of groups of parameters; each group keeps its ``factor`` of the learning rate."""
    fused = True if device.type == "cuda" else None
    decay = recipe.weight_decay
    trained: list[dict[str, Any]] = [
        {
            "params": list(group.parameters),
            "factor": group.factor,
            "weight_decay": decay if group.decay is None else group.decay,
        }
        for group in groups
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=lr, momentum=recipe.momentum, weight_decay=decay, fused=fused)
    if recipe.optimizer == "radam":
        return torch.optim.RAdam(trained, lr=lr, weight_decay=decay, decoupled_weight_decay=True)
    return torch.optim.AdamW(trained, lr=lr, weight_decay=decay, fused=fused)
