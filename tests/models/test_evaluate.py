"""Accuracies are those of a network whose every margin is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunecert.models import NETWORKS
from prunecert.models import evaluate as module
from prunecert.models.batches import Batches
from prunecert.models.data import Dataset
from prunecert.models.evaluate import evaluate, evaluate_noise
from tests.models.conftest import blobs

#: How far the first pixel of each image is above 1/2: images of class 0 where it is, of class 1 where it is below.
DISTANCES = (0.30, 0.21, 0.11, 0.09, 0.04, -0.01, -0.06, -0.12, -0.2, -0.4)
#: Two of them carry the other label.
MISLABELLED = (1, 6)


@pytest.fixture
def data() -> Dataset:
    images = np.full((len(DISTANCES), 3, 32, 32), 0.5, dtype=np.float32)
    images[:, 0, 0, 0] += np.array(DISTANCES, dtype=np.float32)
    labels = np.array([int(distance < 0) for distance in DISTANCES])
    labels[list(MISLABELLED)] ^= 1
    return replace(blobs(len(DISTANCES)), images=images, labels=labels)


@pytest.fixture
def model() -> nn.Sequential:
    """The class is 0 where the first pixel is above 1/2, by a margin of ten times the distance; no other comes near."""
    linear = nn.Linear(3072, 10)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.fill_(-100.0)
        linear.weight[:2, 0] = torch.tensor([5.0, -5.0])
        linear.bias[:2] = torch.tensor([-2.5, 2.5])
    return nn.Sequential(nn.Flatten(), linear)


def beyond(eps: float) -> float:
    right = [abs(d) for i, d in enumerate(DISTANCES) if i not in MISLABELLED]
    return sum(d > eps for d in right) / len(DISTANCES)


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.1, 0.25])
def test_attacks_and_bounds_meet_on_a_linear_network(eps: float, data: Dataset, model: nn.Sequential) -> None:
    measured = evaluate(model, data, eps)
    assert measured == {
        "images": 10,
        "clean": 0.8,
        "pgd": beyond(eps),
        "ibp": beyond(eps),
        "crown_ibp": beyond(eps),
    }


def test_batches_and_limits(data: Dataset, model: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(model, data, 0.1)
    assert evaluate(model, data, 0.1, batch=3) == whole
    monkeypatch.setattr(module, "batches_for", lambda *_: Batches(4, 3))
    assert evaluate(model, data, 0.1) == whole
    few = evaluate(model, data, 0.1, batch=3, limit=4)
    # Distances 0.30, 0.21 (mislabelled), 0.11 and 0.09.
    assert few == {"images": 4, "clean": 0.75, "pgd": 0.5, "ibp": 0.5, "crown_ibp": 0.5}
    assert evaluate(model, data, 0.1, limit=1000) == whole


def test_where_memory_is_taken_meanwhile_it_goes_on_in_small_batches(
    data: Dataset, model: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = replace(
        data, images=np.tile(data.images, (30, 1, 1, 1)), labels=np.tile(data.labels, 30), indices=np.arange(300)
    )
    whole = evaluate(model, many, 0.1)
    sizes: list[int] = []

    def refuse(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 250:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(refuse)
    monkeypatch.setattr(module, "batches_for", lambda *_: Batches(5000, 2500))
    assert evaluate(model, many, 0.1) == whole
    assert sizes[:2] == [300, 250]
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(model, many, 0.1, batch=300)
    monkeypatch.setattr(module, "batches_for", lambda *_: Batches(250, 50))
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        evaluate(model, many, 0.1)


def test_weaker_measures_are_never_above_stronger_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 8, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(96, 20), nn.ReLU(), nn.Linear(20, 10)
    )
    images = torch.rand(60, 3, 32, 32)
    data = replace(blobs(60), images=images.numpy(), labels=model(images).argmax(1).numpy())
    measured = evaluate(model, data, 0.003)
    assert 0 < measured["ibp"] < measured["crown_ibp"] <= measured["pgd"] < measured["clean"] == 1


def test_what_can_not_be_bounded_is_attacked_alone(data: Dataset, model: nn.Sequential) -> None:
    pooled = nn.Sequential(nn.MaxPool2d(1), *model)
    assert evaluate(pooled, data, 0.1, batch=3) == {"images": 10, "clean": 0.8, "pgd": beyond(0.1)}


def test_measuring_leaves_random_numbers_and_gradients_alone(data: Dataset, model: nn.Sequential) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = evaluate(model, data, 0.1)
    assert torch.equal(torch.rand(3), expected)
    assert evaluate(model, data, 0.1) == first
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_noise_is_the_same_on_every_call_and_of_its_size(data: Dataset, model: nn.Sequential) -> None:
    assert evaluate_noise(model, data, 0.0) == {"images": 10, "clean": 0.8, "noisy": 0.8}
    many = replace(
        data, images=np.tile(data.images[2:3], (2000, 1, 1, 1)), labels=np.zeros(2000, int), indices=np.arange(2000)
    )
    measured = evaluate_noise(model, many, 0.11)
    assert measured["clean"] == 1.0
    # One deviation away: the class changes with probability 15.9 %.
    assert measured["noisy"] == pytest.approx(0.841, abs=0.025)
    assert evaluate_noise(model, many, 0.11) == measured
    assert evaluate_noise(model, many, 0.11, batch=500) == measured


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 30])
def test_evaluation_orders_its_measures(tmp_path: Path, limit: int | None) -> None:
    torch.manual_seed(0)
    data: Dataset = blobs(60)
    result = evaluate(NETWORKS.get("cnn-small")(), data, 0.02, limit=limit)
    assert result["images"] == (limit or 60)
    assert result["ibp"] <= result["crown_ibp"] <= result["pgd"] <= result["clean"]
    assert set(evaluate(NETWORKS.get("vgg16")(), data, 0.02, limit=4)) == {"images", "clean", "pgd"}
