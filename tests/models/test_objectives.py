"""The objectives are what their papers say they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import NETWORKS, OBJECTIVES
from models.attack import pgd_linf

EPS = 2 / 255


def value(tensor: torch.Tensor) -> float:
    return tensor.detach().item()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(6, 3, 32, 32), torch.randint(0, 10, (6,))


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_gives_gradients_to_all_weights(name: str, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = NETWORKS.get("cnn-small")()
    # With symbolic bounds of every layer an untrained network takes ten seconds; tests/models/test_addons.py has them.
    settings = {"symbolic": 0, "probability": 1.0} if name == "mixtrain" else {}
    loss = OBJECTIVES.get(name)(model, *batch, EPS, **settings)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.ndim == 0
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_radius_zero_and_no_progress_is_the_clean_loss(name: str, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    loss = OBJECTIVES.get(name)(model, *batch, 0.0, progress=0.0)
    assert value(loss) == pytest.approx(value(F.cross_entropy(model(batch[0]), batch[1])), rel=1e-5)


def test_the_order_of_the_losses(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = NETWORKS.get("cnn-small")()
    natural = value(OBJECTIVES.get("natural")(model, *batch, EPS))
    pgd = value(OBJECTIVES.get("pgd")(model, *batch, EPS))
    ibp = value(OBJECTIVES.get("ibp")(model, *batch, EPS, kappa_end=0.0))
    crown = value(OBJECTIVES.get("crown-ibp")(model, *batch, EPS, kappa_end=0.0, beta_end=1.0))
    fused = value(OBJECTIVES.get("crown-ibp")(model, *batch, EPS, kappa_end=0.0, beta_end=1.0, fusion=1))
    assert natural < pgd <= crown < ibp, "a point, its neighbourhood, a tight bound, a loose bound"
    assert crown <= fused + 1e-4, "fusion bounds the sum that the separate bounds are put into"


def test_ibp_weighs_clean_and_robust_by_kappa(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    loss = OBJECTIVES.get("ibp")
    clean, robust = (value(loss(model, *batch, EPS, kappa_end=kappa)) for kappa in (1.0, 0.0))
    assert value(loss(model, *batch, EPS, kappa_end=0.25)) == pytest.approx(0.25 * clean + 0.75 * robust, rel=1e-5)
    # Half-way up the ramp kappa is half-way down.
    half = value(loss(model, *batch, EPS, progress=0.5, kappa_end=0.5))
    assert half == pytest.approx(0.75 * clean + 0.25 * robust, rel=1e-5)


def test_crown_ibp_without_beta_is_ibp(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    crown = OBJECTIVES.get("crown-ibp")(model, *batch, EPS, beta_end=0.0)
    assert value(crown) == pytest.approx(value(OBJECTIVES.get("ibp")(model, *batch, EPS)), rel=1e-6)


def test_mtl_ibp_lies_between_attack_and_intervals(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    loss = OBJECTIVES.get("mtl-ibp")

    def at(alpha: float) -> float:
        torch.manual_seed(3)
        return value(loss(model, *batch, EPS, alpha=alpha))

    assert at(1.0) == pytest.approx(value(OBJECTIVES.get("ibp")(model, *batch, EPS, kappa_end=0.0)), rel=1e-5)
    assert at(0.25) == pytest.approx(0.75 * at(0.0) + 0.25 * at(1.0), rel=1e-5)
    torch.manual_seed(3)
    assert at(0.0) == pytest.approx(value(OBJECTIVES.get("pgd")(model, *batch, EPS, steps=8)), rel=1e-3)


def test_sabr_shrinks_ibp_s_box(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    loss = OBJECTIVES.get("sabr")
    ibp = value(OBJECTIVES.get("ibp")(model, *batch, EPS, kappa_end=0.0))
    assert value(loss(model, *batch, EPS, lam=1.0)) == pytest.approx(ibp, rel=1e-5)
    assert value(loss(model, *batch, EPS, lam=0.1)) < value(loss(model, *batch, EPS, lam=0.5)) < ibp


def test_trades_weighs_the_divergence_by_beta(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    loss = OBJECTIVES.get("trades")

    def at(beta: float) -> float:
        torch.manual_seed(3)
        return value(loss(model, *batch, EPS, beta=beta))

    assert at(0.0) == pytest.approx(value(F.cross_entropy(model(batch[0]), batch[1])), rel=1e-5)
    assert at(6.0) - at(0.0) == pytest.approx(2 * (at(3.0) - at(0.0)), rel=1e-4)
    assert at(6.0) > at(0.0)


def test_pgd_stays_in_the_ball_and_leaves_batch_norm_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    x, y = torch.rand(5, 3, 8, 8), torch.randint(0, 10, (5,))
    model.eval()
    point = pgd_linf(model, x, y, 0.05, steps=5, step_size=0.02)
    assert value((point - x).abs().max()) <= 0.05 + 1e-6
    assert value(point.min()) >= 0
    assert value(point.max()) <= 1
    assert value(F.cross_entropy(model(point), y)) > value(F.cross_entropy(model(x), y))
    model.train()
    before = model.get_buffer("1.running_mean").clone()
    OBJECTIVES.get("pgd")(model, x, y, 0.05, steps=3)
    # One pass in training mode moves the statistics; three attack steps do not.
    assert not torch.equal(model.get_buffer("1.running_mean"), before)
    assert int(model.get_buffer("1.num_batches_tracked")) == 1
