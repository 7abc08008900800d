"""The objectives are what their papers say they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunecert.models.bounds
from prunecert.errors import UserError
from prunecert.models import ADDONS, BOUNDING, NETWORKS, OBJECTIVES
from prunecert.models.attack import pgd_linf
from prunecert.models.bounds import interval_margins, propagate, shared_bounds
from prunecert.models.norms import frozen_forward, norms_of
from prunecert.models.recipe import Recipe
from tests.models.conftest import normalised

EPS = 2 / 255


def value(tensor: torch.Tensor) -> float:
    return tensor.detach().item()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(6, 3, 32, 32), torch.randint(0, 10, (6,))


@pytest.mark.slow
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


#: The attack's radius over the training's, steps, a step's share of the radius, and whether the best point is taken.
ATTACKS = [(1.0, 2, 0.25, 0), (2.24, 1, 1.48, 0), (2.24, 4, 2.0, 1), (2.6, 3, 0.5, 0)]


@pytest.mark.parametrize(("factor", "steps", "size", "best"), ATTACKS)
@pytest.mark.parametrize("name", ["mtl-ibp", "sabr"])
@pytest.mark.parametrize("norms", [False, True])
def test_the_attack_goes_as_far_as_its_settings_say(
    name: str, norms: bool, factor: float, steps: int, size: float, best: int, tiny: nn.Module
) -> None:
    # A radius at which this network is far from linear: one setting more or less changes the loss.
    eps = 0.1
    x, y = torch.rand(6, 3, 8, 8) * 0.8 + 0.1, torch.randint(0, 10, (6,))
    model = normalised(0).eval() if norms else tiny
    radius = factor * eps

    def point_of(best: int) -> Tensor:
        torch.manual_seed(3)
        forward = frozen_forward(model)
        return pgd_linf(forward, x, y, radius, steps=steps, step_size=size * radius, best=bool(best))

    def expected_of(point: Tensor) -> float:
        if name == "mtl-ibp":
            return value(F.cross_entropy(model(point), y))
        return value(F.cross_entropy(-interval_margins(propagate(model, point, 0.2 * eps), y), y))

    torch.manual_seed(3)
    own = {"alpha": 0.0} if name == "mtl-ibp" else {"lam": 0.2}
    settings = {**own, "attack_factor": factor, "steps": steps, "step_size": size, "best": best}
    actual = value(OBJECTIVES.get(name)(model, x, y, eps, **settings))
    assert actual == pytest.approx(expected_of(point_of(best)), rel=1e-5)
    if best and norms:
        assert actual != pytest.approx(expected_of(point_of(0)), rel=1e-4)


@pytest.mark.parametrize("norms", [False, True])
def test_mtl_ibp_bounds_the_radius_of_training_however_far_the_attack_goes(norms: bool, tiny: nn.Module) -> None:
    x, y = torch.rand(6, 3, 8, 8), torch.randint(0, 10, (6,))
    model = normalised(0).eval() if norms else tiny
    ibp = value(OBJECTIVES.get("ibp")(model, x, y, 0.02, kappa_end=0.0))
    for factor in (1.0, 2.6):
        loss = OBJECTIVES.get("mtl-ibp")(model, x, y, 0.02, alpha=1.0, attack_factor=factor, steps=1)
        assert value(loss) == pytest.approx(ibp, rel=1e-5)


@pytest.mark.parametrize("name", ["mtl-ibp", "sabr"])
def test_batch_norm_takes_the_clean_images_statistics(name: str) -> None:
    x, y = torch.rand(6, 3, 8, 8), torch.randint(0, 10, (6,))
    model, reference = normalised(0), normalised(0)
    OBJECTIVES.get(name)(model, x, y, 0.05, attack_factor=2.0, steps=2)
    reference(x)
    for (key, moved), expected in zip(model.named_buffers(), reference.buffers(), strict=True):
        assert torch.allclose(moved.double(), expected.double(), atol=1e-5), key


def test_sabr_shrinks_ibp_s_box(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    loss = OBJECTIVES.get("sabr")
    ibp = value(OBJECTIVES.get("ibp")(model, *batch, EPS, kappa_end=0.0))
    assert value(loss(model, *batch, EPS, lam=1.0)) == pytest.approx(ibp, rel=1e-5)
    assert value(loss(model, *batch, EPS, lam=0.1)) < value(loss(model, *batch, EPS, lam=0.5)) < ibp


@pytest.mark.slow
def test_trades_weighs_the_divergence_by_beta(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(0)
    # Of a network that was just made the divergence is some 1e-5, which float32 has two digits of beside the loss.
    model, x, y = NETWORKS.get("cnn-small")().double(), batch[0].double(), batch[1]
    loss = OBJECTIVES.get("trades")

    def at(beta: float) -> float:
        torch.manual_seed(3)
        return value(loss(model, x, y, EPS, beta=beta))

    assert at(0.0) == pytest.approx(value(F.cross_entropy(model(x), y)), rel=1e-9)
    assert at(6.0) - at(0.0) == pytest.approx(2 * (at(3.0) - at(0.0)), rel=1e-6)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BOUNDING & set(OBJECTIVES)))
@pytest.mark.parametrize("network", ["vgg-8", "resnet-2b"])
def test_certified_objectives_train_through_batch_norm(name: str, network: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS.get(network)()
    x, y = torch.rand(4, 3, 32, 32), torch.randint(0, 10, (4,))
    settings = {"symbolic": 0, "probability": 1.0} if name == "mixtrain" else {}
    OBJECTIVES.get(name)(model, x, y, EPS, **settings).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    counted = {int(norm.num_batches_tracked) for norm in norms_of(model)}  # type: ignore[arg-type]
    assert counted == {1}, "neither the attack nor bounds of a few images move statistics"


@pytest.mark.slow
def test_mtl_ibp_s_statistics_are_clean_or_attacked() -> None:
    x, y = torch.rand(6, 3, 8, 8), torch.randint(0, 10, (6,))
    loss = OBJECTIVES.get("mtl-ibp")
    actual = {}
    for statistics in ("clean", "attacked"):
        model = normalised(0)
        torch.manual_seed(3)
        actual[statistics] = value(loss(model, x, y, EPS, alpha=0.0, statistics=statistics, steps=2))
        moved = model.get_buffer("1.running_mean")
        clean, attacked = normalised(0), normalised(0)
        torch.manual_seed(3)
        point = pgd_linf(frozen_forward(attacked), x, y, EPS, steps=2, step_size=0.25 * EPS)
        expected = F.cross_entropy(attacked(point), y)
        clean(x)
        reference = clean if statistics == "clean" else attacked
        assert torch.allclose(moved, reference.get_buffer("1.running_mean"), atol=1e-6)
    assert actual["attacked"] == pytest.approx(value(expected), rel=1e-4)
    assert actual["clean"] != pytest.approx(actual["attacked"], rel=1e-4)
    with pytest.raises(UserError, match=r"'cleen'.*clean"):
        Recipe.from_dict({"objective": {"statistics": "cleen"}}, "mtl-ibp")


def test_add_ons_share_mtl_ibp_s_pass_in_the_warm_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    original = prunecert.models.bounds._propagate

    def counting(*arguments: Any) -> prunecert.models.bounds.Intervals:
        passes.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(prunecert.models.bounds, "_propagate", counting)
    model, reference = normalised(0), normalised(0)
    x, y = torch.rand(6, 3, 8, 8), torch.randint(0, 10, (6,))
    with shared_bounds():
        loss = OBJECTIVES.get("mtl-ibp")(model, x, y, 0.0, progress=0.0, share=0.5)
        ADDONS.get("fast-ibp")(model, x, y, 0.0, progress=0.0)
    assert len(passes) == 1
    assert value(loss) == pytest.approx(value(F.cross_entropy(reference(x), y)), rel=1e-5)
    assert torch.allclose(model.get_buffer("1.running_mean"), reference.get_buffer("1.running_mean"), atol=1e-6)


def test_mtl_ibp_s_share_is_the_interval_loss_of_the_first_images(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    x, y = batch
    loss = OBJECTIVES.get("mtl-ibp")
    half = len(y) // 2
    actual = value(loss(model, x, y, EPS, alpha=1.0, share=0.5))
    assert actual == pytest.approx(
        value(OBJECTIVES.get("ibp")(model, x[:half], y[:half], EPS, kappa_end=0.0)), rel=1e-5
    )


def test_the_best_iterate_is_no_worse_than_the_last(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = NETWORKS.get("cnn-small")()
    x, y = batch
    losses = []
    for best in (False, True):
        torch.manual_seed(2)
        # A step as wide as the ball overshoots, so that the last point is not always the best.
        point = pgd_linf(model, x, y, 0.1, steps=4, step_size=0.2, best=best)
        assert value((point - x).abs().max()) <= 0.1 + 1e-6
        losses.append(F.cross_entropy(model(point), y, reduction="none").detach())
    assert bool((losses[1] >= losses[0] - 1e-6).all())
    assert bool((losses[1] > losses[0]).any())


def test_the_best_iterate_costs_one_more_pass() -> None:
    passes = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        passes.append(len(x))
        return x.flatten(1)[:, :10]

    x, y = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    pgd_linf(forward, x, y, 0.1, steps=3, step_size=0.05, best=True)
    assert passes == [2] * 4
    pgd_linf(forward, x, y, 0.1, steps=1, step_size=0.05, best=True)
    assert passes == [2] * 5, "after one step there is nothing to choose from"


def test_sabr_searches_as_far_as_it_is_told() -> None:
    torch.manual_seed(0)
    model, radii = NETWORKS.get("cnn-small")(), []
    x, y = torch.rand(4, 3, 32, 32) * 0.5 + 0.25, torch.randint(0, 10, (4,))
    for factor, expected in ((0.0, 0.9), (1.56, 1.56)):
        with shared_bounds():
            OBJECTIVES.get("sabr")(model, x, y, EPS, lam=0.1, attack_factor=factor, steps=10, step_size=1.0)
            shared = prunecert.models.bounds._shared.get()
            assert shared
            _, point, radius, _ = shared[0]
        assert radius == pytest.approx(0.1 * EPS)
        radii.append(value((point - x).abs().max()))
        assert radii[-1] == pytest.approx(expected * EPS, rel=1e-3)
