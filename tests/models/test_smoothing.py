"""Training with noise: the noise is what the cell's sigma says, and what is measured fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunecert.models import NETWORKS, NOISE_OBJECTIVES, OBJECTIVES
from prunecert.models.evaluate import evaluate_noise
from prunecert.models.pipeline import MEASURED_UNDER_NOISE, Job, Pipeline
from prunecert.models.recipe import Recipe
from tests.models.conftest import blobs


class Recorder(nn.Module):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x)
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize("name", sorted(NOISE_OBJECTIVES))
@pytest.mark.parametrize("sigma", [0.12, 0.5])
def test_the_noise_is_gaussian_and_not_clipped(name: str, sigma: float) -> None:
    torch.manual_seed(0)
    x, model = torch.rand(40, 3, 32, 32), Recorder()
    OBJECTIVES.get(name)(model, x, torch.zeros(40, dtype=torch.long), sigma)
    noise = (model.inputs[-1] - x).flatten() / sigma
    # 122,880 numbers: the mean is known within 0.003, the share beyond 1 and 2 likewise.
    assert noise.mean().item() == pytest.approx(0, abs=0.015)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert (noise.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert (noise.abs() < 2).float().mean().item() == pytest.approx(0.9545, abs=0.005)
    # Each image has its own.
    assert not torch.equal(noise.reshape(40, -1)[0], noise.reshape(40, -1)[1])


def test_the_stability_loss_is_cross_entropy_and_divergence() -> None:
    torch.manual_seed(0)
    model = NETWORKS.get("cnn-small")()
    x, y = torch.rand(6, 3, 32, 32), torch.randint(0, 10, (6,))
    torch.manual_seed(1)
    actual = OBJECTIVES.get("smoothing-stability")(model, x, y, 0.25, beta=2.0)
    torch.manual_seed(1)
    noisy = model(x + 0.25 * torch.randn_like(x)).softmax(1)
    clean = model(x).softmax(1)
    divergence = (clean * (clean.log() - noisy.log())).sum(1).mean()
    assert divergence.item() > 0
    assert actual.item() == pytest.approx((F.cross_entropy(model(x), y) + 2 * divergence).item(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NOISE_OBJECTIVES))
def test_a_cell_is_trained_pruned_and_measured_under_noise(tmp_path: Path, name: str) -> None:
    recipe = Recipe.from_dict(
        {"pretrain_epochs": 4, "warmup_epochs": 0, "ramp_epochs": 0, "prune_epochs": 0, "finetune_epochs": 1}
        | {"batch_size": 20, "augment": False, "lr": 0.002},
        name,
    )
    job = Job("cell", "cnn-small", name, 0.25, "1/4", "lwm", 10.0, 0, recipe, "none")
    pipeline = Pipeline(tmp_path, tmp_path / "work", blobs(500), blobs(200, "val", 1), "cpu", lambda *_: None)
    card = pipeline.run(job)
    assert set(card.accuracy) == {"images", "clean", "noisy"}
    assert card.accuracy["noisy"] > 0.3
    assert card.measured == MEASURED_UNDER_NOISE
    assert card.eps == "1/4"


@pytest.mark.slow
def test_more_noise_leaves_less() -> None:
    torch.manual_seed(0)
    model, data = NETWORKS.get("cnn-small")(), blobs(500)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(20):
        loss = F.cross_entropy(model(torch.from_numpy(data.images)), torch.from_numpy(data.labels))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    actual = [evaluate_noise(model, data, sigma) for sigma in (0.0, 4.0, 30.0)]
    assert actual[0]["noisy"] == actual[0]["clean"] > 0.6
    assert actual[0]["noisy"] > actual[1]["noisy"] > actual[2]["noisy"]
    assert {item["clean"] for item in actual} == {actual[0]["clean"]}
    assert evaluate_noise(model, data, 4.0) == actual[1]
