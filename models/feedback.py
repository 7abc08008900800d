"""How a network does while it is trained: attacked accuracy and loss on training and on held-out images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.attack import pgd_linf
from prunecert.models.batches import batches_for
from prunecert.models.pruners.contract import Feedback

#: Images of each split that are looked at.
IMAGES = 1000
#: Steps of the attack.
STEPS = 10


def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int = STEPS) -> Tensor:
    """Returns attacked images of so many steps of PGD, in the network's present mode."""
    return pgd_linf(model, x, y, eps, steps=steps, step_size=min(1.0, 2.5 / steps) * eps)


def measure(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    eps: float,
    *,
    images: int = IMAGES,
    steps: int = STEPS,
) -> Feedback:
    """Measures a network in evaluation mode; its mode, and torch's random numbers, are as before afterwards.

    Args:
        model: The network.
        train: Training images [N, C, H, W] and labels [N].
        held_out: The same of a split that is not trained on.
        eps: Radius of the attack in pixels of [0, 1].
        images: How many of each are looked at, the first ones.
        steps: Steps of the attack.
    """
    device = train[0].device
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            fitted, _, _ = _attacked(model, train[0][:images], train[1][:images], eps, steps)
            accuracy, loss, clean = _attacked(model, held_out[0][:images], held_out[1][:images], eps, steps)
    finally:
        model.train(training)
    return Feedback(fitted, accuracy, loss, clean)


def _attacked(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> tuple[float, float, float]:
    """Returns accuracy and mean loss under attack, and accuracy without."""
    right = clean = 0
    loss = 0.0
    size = batches_for(model, images).images
    for x, y in zip(torch.split(images, size), torch.split(labels, size), strict=True):
        point = attack(model, x, y, eps, steps)
        with torch.no_grad():
            logits = model(point)
            right += int((logits.argmax(1) == y).sum())
            clean += int((model(x).argmax(1) == y).sum())
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
    return right / len(labels), loss / len(labels), clean / len(labels)
