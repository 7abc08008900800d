"""Boosting tickets (Li, Wang et al. 2020, "Towards Practical Lottery Ticket Hypothesis for Adversarial Training").

A mask from cheap training, by magnitudes over the mean of their layer; what it keeps goes back to its initial values
and is trained robustly, in fewer epochs than the dense network needs (section 3, arXiv 2003.05733).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.attack import frozen_statistics, pgd_linf
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import reachable
from prunecert.models.pruners.contract import Batch, Hook, Hooks, Train, declares
from prunecert.models.pruners.lwm import global_masks
from prunecert.models.pruners.robust_bird import natural
from prunecert.models.settings import Choices, Share


def fast(batch: Batch) -> Tensor:
    """Returns the cross-entropy at one step of 1.25 eps from a random start (fast adversarial training)."""
    with frozen_statistics(batch.model):
        point = pgd_linf(batch.model, batch.x, batch.y, batch.eps, steps=1, step_size=1.25 * batch.eps)
    return F.cross_entropy(batch.model(point), batch.y)


def normalised(model: nn.Module) -> dict[str, Tensor]:
    """Returns |w| over the mean |w| of its layer, by parameter name."""
    sizes = {name: weight.detach().abs() for name, weight in prunable(model).items()}
    return {name: size / size.mean().clamp_min(1e-12) for name, size in sizes.items()}


@torch.no_grad()
def shuffle(model: nn.Module, seed: int) -> None:
    """Draws the prunable weights anew, in place: each layer's own values in another order, whatever they come from."""
    generator = torch.Generator().manual_seed(seed)
    for weight in prunable(model).values():
        order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
        weight.copy_(weight.flatten()[order].view_as(weight))


@declares(Hook.GRADIENTS, from_scratch=True)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    seed: int = 0,
    search: Annotated[str, Choices("fgsm", "natural")] = "fgsm",
    share: Share = 0.3,
    values: Annotated[str, Choices("initial", "random")] = "initial",
) -> Masks:
    """Finds a ticket, rewinds it, and trains it.

    Args:
        model: The network with its initial weights; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        seed: Of values that are drawn anew.
        search: How the network is trained to find the mask: ``fgsm`` or ``natural``.
        share: Share of the epochs for that.
        values: What the ticket begins with: ``initial``, what its weights were at first; or ``random``, each layer's
            initial values in another order, the paper's control.

    Raises:
        UserError: The compression cannot be reached, a setting is out of range, or too few epochs are left.
    """
    kept = reachable({name: weight.numel() for name, weight in prunable(model).items()}, compression)
    first = round(share * train.left)
    if not 1 <= first < train.left:
        raise UserError(
            f"Boosting tickets are refused: {share:.0%} of {train.left} epochs for the search is {first}, and they "
            "need one there and one after it; allowed is a longer recipe or another 'share'."
        )
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}
    train(model, first, name="search", hooks=Hooks(loss=fast if search == "fgsm" else natural), restart=True)
    masks = global_masks(normalised(model), kept)
    model.load_state_dict(start)
    if values == "random":
        shuffle(model, seed)
    masks.apply_(model)
    train(model, train.left, name="ticket", masks=masks, restart=True)
    return masks
