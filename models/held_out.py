"""Accuracies on a few held-out images while a network is trained: at a small share of its time, and without a trace.

The training goes on bit by bit as if nobody had looked: random numbers, modes and statistics are as before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from prunecert.models.data import Dataset
from prunecert.models.evaluate import evaluate, evaluate_noise
from prunecert.models.history import HeldOutAccuracy

#: Images that are looked at: a share of a half is known to ± 7 %.
IMAGES = 200
#: The most of the training's time that measuring may take.
SHARE = 0.03
#: How many training images an image to be measured is worth in time, before that is known: twenty steps of an attack
#: and ten rows of bounds are some ninety passes forward, a step of training is three by itself.
_FIRST_COST = 30
#: On the CPU; on CUDA as many as fit.
_BATCH = 100


class HeldOut:
    """Measures a cell's network now and then.

    Args:
        data: The held-out split.
        eps: The cell's full radius, in pixels of [0, 1]; for training with noise its standard deviation.
        device: Torch device.
        noisy: Whether it is trained with noise.
        images: How many images are looked at, evenly spread over the split.
        share: The most of the training's time that measuring may take.
    """

    def __init__(
        self,
        data: Dataset,
        eps: float,
        device: str,
        *,
        noisy: bool = False,
        images: int = IMAGES,
        share: float = SHARE,
    ) -> None:
        # Of an empty split nothing is chosen.
        places = np.linspace(0, len(data) - 1, min(images, len(data)))
        chosen = np.unique(places.astype(np.int64))
        self.data = replace(data, images=data.images[chosen], labels=data.labels[chosen], indices=data.indices[chosen])
        self.eps, self.device, self.noisy, self.share = eps, device, noisy, share
        self._trained, self._measured = 0.0, 0.0
        self._cost: float | None = None

    def after_epoch(self, model: nn.Module, seconds: float, rate: float) -> HeldOutAccuracy | None:
        """Returns the accuracies after an epoch, or None where measuring them would take too much time.

        Args:
            model: The network; left as it was.
            seconds: What the epoch took.
            rate: Training images per second.
        """
        self._trained += seconds
        cost = len(self.data) * _FIRST_COST / rate if self._cost is None else self._cost
        if not len(self.data) or self._measured + cost > self.share * self._trained:
            return None
        accuracy = self.measure(model)
        self._cost = accuracy.seconds
        self._measured += accuracy.seconds
        return accuracy

    def measure(self, model: nn.Module) -> HeldOutAccuracy:
        """Measures a network, which is left as it was."""
        start = time.perf_counter()
        measured = evaluate_noise if self.noisy else evaluate
        with untouched(model, self.device):
            batch = None if self.device.startswith("cuda") else _BATCH
            accuracy = measured(model, self.data, self.eps, device=self.device, batch=batch)
        names = ("clean", "pgd", "ibp", "crown_ibp", "noisy")
        return HeldOutAccuracy(
            images=len(self.data),
            seconds=time.perf_counter() - start,
            **{name: float(accuracy[name]) for name in names if name in accuracy},
        )


@contextlib.contextmanager
def untouched(model: nn.Module, device: str) -> Iterator[None]:
    """Gives a network's modules their modes back afterwards, and torch and NumPy their random numbers."""
    modes = {module: module.training for module in model.modules()}
    state = np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.startswith("cuda") else []):
            yield
    finally:
        np.random.set_state(state)
        for module, training in modes.items():
            module.training = training
