"""How a network does while it is trained: attacked accuracy and loss on training and on held-out images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.attack import pgd_linf
from prunecert.models.pruners.contract import Feedback

#: Images of each split that are looked at.
IMAGES = 1000
_BATCH = 250
_STEPS, _STEP_SIZE = 10, 0.25


def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Returns attacked images of ten steps of PGD, each a quarter of the radius, in the network's present mode."""
    return pgd_linf(model, x, y, eps, steps=_STEPS, step_size=_STEP_SIZE * eps)


def measure(model: nn.Module, train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], eps: float) -> Feedback:
    """Measures a network in evaluation mode; its mode, and torch's random numbers, are as before afterwards.

    Args:
        model: The network.
        train: Training images [N, C, H, W] and labels [N], of which the first `IMAGES` are looked at.
        held_out: The same of a split that is not trained on.
        eps: Radius of the attack in pixels of [0, 1].
    """
    device = train[0].device
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            fitted, _, _ = _attacked(model, *train, eps)
            accuracy, loss, clean = _attacked(model, *held_out, eps)
    finally:
        model.train(training)
    return Feedback(fitted, accuracy, loss, clean)


def _attacked(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> tuple[float, float, float]:
    """Returns accuracy and mean loss under attack, and accuracy without."""
    images, labels = images[:IMAGES], labels[:IMAGES]
    right = clean = 0
    loss = 0.0
    for x, y in zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True):
        point = attack(model, x, y, eps)
        with torch.no_grad():
            logits = model(point)
            right += int((logits.argmax(1) == y).sum())
            clean += int((model(x).argmax(1) == y).sum())
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
    return right / len(labels), loss / len(labels), clean / len(labels)
