"""Steps of training: the optimisers' updates, what is in the loss, and that no step waits for a device."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from prunecert.models import NETWORKS, PRUNERS
from prunecert.models.data import Dataset
from prunecert.models.pruners.contract import Hooks
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer
from tests.models.conftest import blobs
from tests.models.training_kit import quiet, recipe


def rectified_adam(model: nn.Module, data: Dataset, steps: int, lr: float, decay: float) -> None:
    """RAdam as it is published (Liu et al. 2020, algorithm 2), with decoupled decay; one batch of all images.

    The authors' code rectifies from a length of 5 on, where the paper's text has 4.
    """
    first, second = 0.9, 0.999
    longest = 2 / (1 - second) - 1
    x, y = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in model.parameters()]
    for step in range(1, steps + 1):
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        length = longest - 2 * step * second**step / (1 - second**step)
        for one, grad, (mean, square) in zip(model.parameters(), grads, moments, strict=True):
            mean.mul_(first).add_((1 - first) * grad)
            square.mul_(second).add_((1 - second) * grad**2)
            update = mean / (1 - first**step)
            if length > 5:
                numerator = (length - 4) * (length - 2) * longest
                rectification = (numerator / ((longest - 4) * (longest - 2) * length)) ** 0.5
                update = update * rectification / ((square / (1 - second**step)).sqrt() + 1e-8)
            with torch.no_grad():
                one.mul_(1 - lr * decay).sub_(lr * update)


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_radam_s_updates_are_the_published_ones(steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    expected = copy.deepcopy(model)
    rectified_adam(expected, blobs(20), steps, 1e-2, 0.1)
    settings = recipe(optimizer="radam", weight_decay=0.1, decay=0.0, grad_clip=0.0)
    trainer = Trainer(settings, "natural", blobs(20), "cpu", quiet)
    trainer.run(model, Stage("pretrain", steps, 1e-2, 0.0))
    for actual, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(actual, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("radam", torch.optim.RAdam), ("sgd", torch.optim.SGD)]
)
def test_the_recipe_s_optimiser_trains(name: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[dict[str, Any]] = []
    step = kind.step

    def counting(self: torch.optim.Optimizer) -> None:
        steps.append(self.param_groups[0])
        step(self)

    monkeypatch.setattr(kind, "step", counting)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    trainer = Trainer(recipe(optimizer=name, weight_decay=0.1, momentum=0.7), "natural", blobs(40), "cpu", quiet)
    trainer.run(model, Stage("pretrain", 2, 1e-3, 0.0))
    assert len(steps) == 4
    assert steps[0]["weight_decay"] == 0.1
    assert steps[0].get("momentum", 0.7) == 0.7
    assert steps[0].get("decoupled_weight_decay", True), "of RAdam and AdamW"


def test_the_l1_norm_of_the_prunable_weights_is_in_the_loss() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    weights = (model.get_parameter("0.weight"), model.get_parameter("4.weight"))
    norm = sum(float(weight.detach().abs().double().sum()) for weight in weights)
    losses = {}
    for l1 in (0.0, 3e-3):
        trainer = Trainer(recipe(l1=l1), "natural", blobs(20), "cpu", quiet)
        losses[l1] = trainer.loss(model, trainer.images, trainer.labels, 0.0, 1.0)
    assert float((losses[3e-3] - losses[0.0]).detach()) == pytest.approx(3e-3 * norm, rel=1e-4)
    (with_it, without) = (torch.autograd.grad(loss, weights[1], retain_graph=True)[0] for loss in losses.values())
    assert torch.allclose(without - with_it, 3e-3 * weights[1].detach().sign(), atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 1e-3, 10.0])
def test_the_gradient_s_norm_is_clipped(clip: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    data = blobs(20)
    loss = F.cross_entropy(model(torch.from_numpy(data.images)), torch.from_numpy(data.labels))
    grads = torch.autograd.grad(loss, list(model.parameters()))
    norm = float(torch.cat([grad.flatten() for grad in grads]).norm())
    assert 1e-3 < norm < 10
    settings = recipe(optimizer="sgd", momentum=0.0, grad_clip=clip, decay=0.0)
    Trainer(settings, "natural", data, "cpu", quiet).run(model, Stage("pretrain", 1, 1.0, 0.0))
    moved = [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]
    assert float(torch.cat([one.flatten() for one in moved]).norm()) == pytest.approx(
        clip if clip == 1e-3 else norm, rel=1e-3
    )


class _Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators for which a host must wait for a CUDA device: those whose result's value or size it needs."""

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero", "unique", "item")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        # Indexing with a mask counts its hits.
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        self.count += name.startswith(self.NAMES) or by_mask
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crown-ibp", "mtl-ibp", "trades", "hydra", "drop-grow"])
def test_no_step_waits_for_a_cuda_device(name: str) -> None:
    """As many waits in an epoch of 16 steps as in one of 4; on the CPU, where it can be counted without a device."""
    objective = "crown-ibp" if name in ("hydra", "drop-grow") else name
    waits = []
    for images in (16, 64):
        settings = recipe(objective, batch_size=4, augment=True, optimizer="sgd", average=0.9, addons={"fast-ibp": {}})
        trainer = Trainer(settings, objective, blobs(images), "cpu", quiet, check_every=1000)
        model = NETWORKS.get("cnn-small")()
        stage = Stage("a", 1, 1e-4, 0.01, ramp=2)

        def train(model: nn.Module, epochs: int, trainer: Trainer = trainer, stage: Stage = stage, **more: Any) -> Any:
            # What drop-and-grow does every 100 steps may wait.
            hooks = Hooks(before=lambda _: None) if more["name"] == "sparse" else None
            with _Waits() as mode:
                masks = trainer.run(model, stage, parameters=more.get("scores"), masks=more.get("masks"), hooks=hooks)
            waits.append(mode.count)
            return masks

        if name in PRUNERS:
            train.left, train.learning = 1, 1  # type: ignore[attr-defined]
            PRUNERS.get(name)(model, 10, train=train)
        else:
            train(model, 1, name="plain")
    assert waits[0] == waits[1]
    assert waits[0] > 0, "the mean loss of the epoch is one"
