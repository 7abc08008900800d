"""Small networks, a small data set and stand-ins for the tests of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models import NETWORKS
from prunecert.models.attack import pgd_linf
from prunecert.models.data import Dataset
from prunecert.models.masks import Masks, prunable
from prunecert.models.networks.normalised import ResidualBlock
from prunecert.models.networks.wideresnet import PreactivationBlock
from prunecert.models.pruners.contract import Epoch, Feedback, Group, Hooks, Step


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which `small_residual` is registered for a test."""
    monkeypatch.setitem(NETWORKS._targets, "small-residual", "tests.models.conftest:small_residual")
    return "small-residual"


@pytest.fixture
def tiny() -> nn.Module:
    """Two convolutions and two linear layers on 3x8x8 inputs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    )


def normalised(seed: int = 0) -> nn.Sequential:
    """All that bounds take, on 3x8x8 inputs: batch norm folded and alone, residual blocks, pooling; training."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        ResidualBlock(6, 8, 2),
        ResidualBlock(8, 8, 1),
        PreactivationBlock(8, 8, 1),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(32, 12, bias=False),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 10),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            # Factors of both signs: a negative one swaps the bounds.
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.train()


class Averaging(nn.Module):
    """A convolution, a rectifier, an average over all places in one of many spellings, logits; 3x8x8 inputs."""

    HOWS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "layer": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "mean": lambda x: x.mean((2, 3)),
        "negative": lambda x: x.mean(dim=[-1, -2]),
        "function": lambda x: torch.mean(x, (3, 2)),
        "kept": lambda x: x.mean((2, 3), keepdim=True).flatten(1),
        "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        "windows": lambda x: F.avg_pool2d(x, 8).flatten(1),
    }

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, (3, 5), padding="same")
        self.relu = nn.ReLU()
        self.average = self.HOWS[how]
        self.fc = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 3, 8, 8] to [N, 10]."""
        return self.fc(self.average(self.relu(self.conv(x))))  # type: ignore[no-any-return]


def small_residual() -> nn.Module:
    """A residual network with batch norm that a test trains in a second, on 3x32x32 inputs."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        ResidualBlock(8, 16, 2),
        nn.Flatten(),
        nn.Linear(256, 32, bias=False),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def uneven(shape: Sequence[int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """A network whose average pooling has windows of two sizes, but for images whose height and width suit it."""
    layers = [nn.Conv2d(shape[0], 8, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(72, classes))


def blobs(count: int, split: str = "train", seed: int = 0) -> Dataset:
    """Ten classes of noisy colour patterns at CIFAR-10's shape, easy to learn."""
    patterns = np.random.default_rng(1).random((10, 3, 4, 4)).astype(np.float32)
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 10
    images = np.kron(patterns[labels], np.ones((1, 1, 8, 8), dtype=np.float32))
    images = np.clip(images + 0.1 * generator.standard_normal(images.shape), 0, 1).astype(np.float32)
    return Dataset(images, labels, np.arange(count), split, "f" * 64, True, False, "blobs")  # type: ignore[arg-type]


class Lent:
    """Lends a pruner epochs of ten steps in which nothing, or what a test wants, happens to the weights.

    Args:
        epochs: Epochs to spend.
        learn: What to do to scores.
        update: What to do to the network at each step, after the masks were revised.
        gradients: What hooks get as gradients; random ones by default.
        scripted: What feedback says, in order; always the same by default, and afterwards.
    """

    def __init__(
        self,
        epochs: int = 10,
        learn: Callable[[nn.Module, Sequence[nn.Parameter]], None] | None = None,
        update: Callable[[nn.Module], None] | None = None,
        gradients: Callable[[nn.Module], dict[str, Tensor]] | None = None,
        scripted: Sequence[Feedback] = (),
    ) -> None:
        self.left, self.learning = epochs, 3
        self.radius, self.bounding = 2 / 255, False
        self.settings: dict[str, Any] = {}
        self.views: Callable[[nn.Module, Tensor, Tensor, float], tuple[float, Tensor, Tensor]] | None = None
        self.notes: dict[str, Any] = {}
        self.scripted = list(scripted)
        self.calls: list[dict[str, Any]] = []
        self.history: list[Masks] = []
        self._learn, self._update, self._gradients = learn, update, gradients or _random

    def __call__(
        self,
        model: nn.Module,
        epochs: int,
        *,
        name: str,
        scores: Sequence[nn.Parameter] | None = None,
        groups: Sequence[Group] | None = None,
        masks: Masks | None = None,
        hooks: Hooks | None = None,
        restart: bool = False,
        ramp: bool = False,
        first: int = 0,
    ) -> Masks | None:
        assert epochs <= self.left
        self.left -= epochs
        weights = {n: w.detach().clone() for n, w in prunable(model).items()} if scores is None else {}
        self.calls.append(
            {
                "name": name,
                "epochs": epochs,
                "restart": restart,
                "ramp": ramp,
                "first": first,
                "masks": masks,
                "weights": weights,
                "groups": groups,
                "hooks": hooks,
            }
        )
        if scores is not None and self._learn is not None:
            self._learn(model, scores)
        hooks = hooks or Hooks()
        stepping = hooks != Hooks() or self._update is not None
        for number in range(10 * epochs if stepping else 0):
            step = Step(number, 10 * epochs, masks or Masks.dense(model), partial(self._gradients, model), 0.1)
            if hooks.before is not None:
                masks = self._hold(model, hooks.before(step) or masks)
            if self._update is not None:
                self._update(model)
                if masks is not None:
                    masks.apply_(model)
            if hooks.after is not None:
                masks = self._hold(model, hooks.after(replace(step, masks=masks or Masks.dense(model))) or masks)
            if number % 10 == 9 and hooks.epoch is not None:
                epoch = number // 10 + 1
                if hooks.epoch(Epoch(epoch, epochs, lambda: self.feedback(model))):
                    self.left += epochs - epoch
                    break
        return masks

    def _hold(self, model: nn.Module, masks: Masks | None) -> Masks | None:
        if masks is not None:
            masks.apply_(model)
            self.history.append(masks)
        return masks

    def batches(self, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(0, min(images, 200), 20):
            yield torch.rand(20, 3, 8, 8, generator=generator), torch.arange(20) % 10

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return pgd_linf(model, x, y, self.radius, steps=2, step_size=self.radius / 2)

    def feedback(self, model: nn.Module, *, images: int = 1000, steps: int = 10) -> Feedback:
        return self.scripted.pop(0) if self.scripted else Feedback(0.5, 0.5, 1.0, 0.6)

    def note(self, **values: Any) -> None:
        self.notes.update(values)


def _random(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn_like(weight) for name, weight in prunable(model).items()}
