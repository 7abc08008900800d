"""Add-ons and MixTrain against computations by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prunecert.models.bounds
from prunecert.models import ADDONS, NETWORKS, OBJECTIVES
from prunecert.models.addons.fast_ibp import relu_balance
from prunecert.models.bounds import interval_margins, propagate, shared_bounds
from prunecert.models.crown import crown_ibp_margins, symbolic_margins
from tests.models.conftest import blobs
from tests.models.training_kit import quiet, recipe

Array = npt.NDArray[np.float64]
EPS = 0.03


def value(tensor: torch.Tensor) -> float:
    return tensor.detach().item()


def two_layers() -> nn.Sequential:
    """Two neurons: one stable and active, one unstable at x = (0.5, 0.5) and radius 0.1."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([[1.0, 1.0], [2.0, -2.0]]))
        model.get_parameter("0.bias").copy_(torch.tensor([1.0, 0.1]))
    return model


HALF = torch.tensor([[0.5, 0.5]])
LABEL = torch.tensor([0])


def test_nrs_by_hand() -> None:
    # The bounds are [1.8, 2.2] and [-0.3, 0.5].
    expected = -math.tanh(1 + 1.8 * 2.2) - math.tanh(1 - 0.3 * 0.5)
    term = ADDONS.get("nrs")
    assert value(term(two_layers(), HALF, LABEL, 0.1, weight=1.0, normalise=0)) == pytest.approx(expected, rel=1e-5)
    assert value(term(two_layers(), HALF, LABEL, 0.1)) != pytest.approx(0.01 * expected), "NRS divides by gamma^2"
    assert value(term(two_layers(), HALF, LABEL, 0.0)) == 0
    # Two images: the variances of the pre-activations are 0.04 (2.0, 2.4) and 0.16 (0.1, 0.9).
    pair = torch.tensor([[0.5, 0.5], [0.9, 0.5]])
    products = [[1.8 * 2.2 / 0.04, -0.3 * 0.5 / 0.16], [2.2 * 2.6 / 0.04, 0.5 * 1.3 / 0.16]]
    by_hand = sum(-math.tanh(1 + one) for row in products for one in row) / 2
    actual = term(two_layers(), pair, torch.tensor([0, 1]), 0.1, weight=1.0)
    assert value(actual) == pytest.approx(by_hand, rel=1e-4)


def test_nrs_does_not_reward_a_smaller_scale() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(8, 2), torch.randint(0, 2, (8,))
    model, small = two_layers(), two_layers()
    with torch.no_grad():
        for parameter in small[0].parameters():
            parameter.mul_(0.01)
    term = ADDONS.get("nrs")
    assert value(term(small, x, y, 0.1)) == pytest.approx(value(term(model, x, y, 0.1)), rel=1e-4)
    assert value(term(small, x, y, 0.1, normalise=0)) != pytest.approx(value(term(model, x, y, 0.1, normalise=0)))


def test_tightness_by_hand() -> None:
    # Radius 0.1 at the input; 0.2 and 0.4 after the layer, 0.3 on average; the ratio 1/3 is below tau.
    term = ADDONS.get("fast-ibp")
    expected = 0.5 * (1 - 0.25) * (0.5 - 0.1 / 0.3) / 0.5
    actual = term(two_layers(), HALF, LABEL, 0.1, progress=0.25, relu=0.0)
    assert value(actual) == pytest.approx(expected, rel=1e-4)
    assert value(term(two_layers(), HALF, LABEL, 0.1, progress=1.0)) == 0
    # Looser than tau allows nothing is due.
    assert value(term(two_layers(), HALF, LABEL, 0.1, progress=0.25, relu=0.0, tau=0.3)) == 0


def test_tightness_counts_in_the_spread_of_pixels() -> None:
    term = ADDONS.get("fast-ibp")
    # The same network on images four times as wide has the same bounds behind its first layer, and the same term.
    model, wide = two_layers(), two_layers()
    with torch.no_grad():
        wide.get_parameter("0.weight").div_(4)
    actual = term(model, HALF, LABEL, 0.1, progress=0.25, relu=0.0, tau=2.0, spread=0.25)
    bounds = propagate(model, HALF, 0.1)
    ratio = 0.4 / value(bounds.boxes[0][1].mean())
    assert value(actual) == pytest.approx(0.5 * 0.75 * (2.0 - ratio) / 2.0, rel=1e-4)
    same = term(wide, HALF, LABEL, 0.1, progress=0.25, relu=0.0, tau=2.0, spread=0.25 * 4)
    assert value(same) == pytest.approx(0.5 * 0.75 * (2.0 - 0.1 / (value(bounds.boxes[0][1].mean()) / 4)) / 2, rel=1e-4)


@pytest.mark.slow
def test_terms_do_not_move_batch_norm_s_statistics() -> None:
    from prunecert.models.training import Trainer

    settings = recipe("sabr", addons={"fast-ibp": {}, "nrs": {}})
    trainer = Trainer(settings, "sabr", blobs(20), "cpu", quiet)
    model = NETWORKS.get("resnet-2b")().train()
    trainer.loss(model, trainer.images, trainer.labels, EPS, 0.5)
    # SABR's box is another than the terms', so that these have a pass of their own.
    assert model.get_buffer("1.num_batches_tracked").item() == 1


def published(boxes: list[tuple[Array, Array]], eps: float, tau: float) -> tuple[float, float]:
    """The two regularisers of Shi et al. 2021, section 4.3, as they are written there, without their weight."""
    tightness = balance = 0.0
    for center, radius in boxes:
        tightness += max(0.0, tau - eps / radius.mean()) / (tau * len(boxes))
        active, inactive = center - radius > 0, center + radius < 0
        spread = (center - center.mean()) ** 2
        means = center[active].sum() / -center[inactive].sum()
        variances = spread[active].sum() / spread[inactive].sum()
        for ratio in (means, variances):
            balance += max(0.0, tau - min(ratio, 1 / ratio)) / (tau * len(boxes))
    return tightness, balance


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.9])
def test_the_regularisers_are_the_published_ones_and_decay(progress: float) -> None:
    torch.manual_seed(3)
    layers = [nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        # Layers that are out of balance, each in its own way.
        for place, shift in ((0, 0.3), (2, -0.4), (4, 0.2)):
            model.get_parameter(f"{place}.bias").add_(shift)
    x, y = torch.rand(5, 6) * 0.5 + 0.25, torch.tensor([0, 1, 2, 0, 1])
    boxes = propagate(model, x, EPS).boxes
    arrays = [(center.detach().double().numpy(), radius.detach().double().numpy()) for center, radius in boxes]
    term = ADDONS.get("fast-ibp")
    tightness, balance = published(arrays, EPS, 0.5)
    assert tightness > 0
    assert balance > 0
    decay = 0.344 * (1 - progress)
    actual = term(model, x, y, EPS, progress=progress, weight=0.344)
    assert value(actual) == pytest.approx(decay * (tightness + balance), rel=1e-4)
    for share in (0.0, 0.25):
        for switched, expected in (("tightness", share * tightness + balance), ("relu", tightness + share * balance)):
            actual = term(model, x, y, EPS, progress=progress, weight=0.344, **{switched: share})
            assert value(actual) == pytest.approx(decay * expected, rel=1e-4), switched
    strict = published(arrays, EPS, 0.9)
    assert value(term(model, x, y, EPS, progress=progress, tau=0.9)) == pytest.approx(
        0.5 * (1 - progress) * sum(strict), rel=1e-4
    )


def test_relu_balance_by_hand() -> None:
    # Centres 3 (active), -1 (inactive), 0 (unstable); mean 2/3.
    lower, upper = torch.tensor([[2.0, -2.0, -1.0]]), torch.tensor([[4.0, -0.5, 1.0]])
    centers = [3.0, -1.25, 0.0]
    mean = sum(centers) / 3
    means, spreads = 1.25 / 3.0, (centers[1] - mean) ** 2 / (centers[0] - mean) ** 2
    expected = max(0.0, 0.5 - means) / 0.5 + max(0.0, 0.5 - spreads) / 0.5
    assert value(relu_balance(lower, upper, 0.5)) == pytest.approx(expected, rel=1e-5)
    assert value(relu_balance(-upper, -lower, 0.5)) == pytest.approx(expected, rel=1e-5), "active and inactive alike"
    # Without an inactive neuron there is no ratio, and no gradient that is no number.
    leaf = torch.tensor([[1.0, 2.0]], requires_grad=True)
    cost = relu_balance(leaf, leaf + 1, 0.5)
    assert value(cost.detach()) == 0
    (cost + leaf.sum()).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert bool(torch.isfinite(leaf.grad).all())


@pytest.mark.parametrize("name", list(ADDONS))
def test_terms_pull_at_the_weights_and_vanish_where_they_should(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS.get("cnn-small")()
    x, y = torch.rand(4, 3, 32, 32), torch.randint(0, 10, (4,))
    ADDONS.get(name)(model, x, y, EPS, progress=0.5).backward()  # type: ignore[no-untyped-call]
    grad = model.get_parameter("0.weight").grad
    assert grad is not None
    assert bool(grad.any())
    gone = ADDONS.get(name)(model, x, y, 0.0 if name == "nrs" else EPS, progress=1.0)
    assert value(gone) == 0


def test_bounds_are_shared_between_objective_and_addons(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    original = prunecert.models.bounds._propagate

    def counting(*arguments: Any) -> prunecert.models.bounds.Intervals:
        nonlocal calls
        calls += 1
        return original(*arguments)

    monkeypatch.setattr(prunecert.models.bounds, "_propagate", counting)
    from prunecert.models.training import Trainer

    settings = recipe("ibp", addons={"fast-ibp": {}, "nrs": {"weight": 0.02}})
    trainer = Trainer(settings, "ibp", blobs(20), "cpu", quiet)
    model = NETWORKS.get("cnn-small")()
    loss = trainer.loss(model, trainer.images, trainer.labels, EPS, 0.5)
    assert calls == 1
    parts = [
        OBJECTIVES.get("ibp")(model, trainer.images, trainer.labels, EPS, progress=0.5),
        ADDONS.get("fast-ibp")(model, trainer.images, trainer.labels, EPS, progress=0.5),
        ADDONS.get("nrs")(model, trainer.images, trainer.labels, EPS, progress=0.5, weight=0.02),
    ]
    assert value(loss) == pytest.approx(sum(value(part) for part in parts), rel=1e-5)
    assert calls == 4, "nothing is kept outside of a step"
    with shared_bounds():
        first = propagate(model, trainer.images, EPS)
        assert propagate(model, trainer.images, EPS) is first
        assert propagate(model, trainer.images, 2 * EPS) is not first


def zonotope_margins(model: nn.Sequential, x: Array, eps: float, label: int) -> Array:
    """Lower bounds of y_label - y_j by symbolic intervals carried forward (DeepZ), layers as matrices."""
    lower, upper = np.clip(x - eps, 0, 1), np.clip(x + eps, 0, 1)
    center, errors = (lower + upper) / 2, np.diag((upper - lower) / 2)
    shape: tuple[int, ...] = (3, 8, 8)
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            with torch.no_grad():
                inputs = math.prod(shape)
                unit = torch.eye(inputs, dtype=torch.float64).reshape(inputs, *shape)
                offset = layer(torch.zeros(1, *shape, dtype=torch.float64))
                matrix = (layer(unit) - offset).reshape(inputs, -1).numpy().T
            shape = tuple(offset.shape[1:])
            center, errors = matrix @ center + offset.numpy().ravel(), matrix @ errors
        elif isinstance(layer, nn.Flatten):
            shape = (math.prod(shape),)
        else:
            radius = np.abs(errors).sum(1)
            low, high = center - radius, center + radius
            unstable = (low < 0) & (high > 0)
            slope = np.where(unstable, high / np.where(unstable, high - low, 1), (low >= 0).astype(float))
            middle = np.where(unstable, -slope * low / 2, 0)
            center = slope * center + middle
            errors = np.concatenate([slope[:, None] * errors, np.diag(middle)[:, unstable]], axis=1)
    rows = np.eye(len(center))[label] - np.eye(len(center))
    return np.asarray(rows @ center - np.abs(rows @ errors).sum(1))


def test_symbolic_margins_are_those_of_the_forward_zonotope(tiny: nn.Sequential) -> None:
    model = tiny.double()
    torch.manual_seed(2)
    x, y = torch.rand(3, 3, 8, 8, dtype=torch.float64), torch.tensor([1, 7, 3])
    actual = symbolic_margins(model, x, EPS, y)
    for image in range(3):
        expected = zonotope_margins(model, x[image].numpy().ravel(), EPS, int(y[image]))
        assert actual[image].detach().numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_symbolic_margins_bound_and_are_tighter_than_intervals(tiny: nn.Sequential) -> None:
    torch.manual_seed(2)
    x, y = torch.rand(5, 3, 8, 8), torch.randint(0, 10, (5,))
    symbolic, coarse = symbolic_margins(tiny, x, EPS, y), symbolic_margins(tiny, x, EPS, y, symbolic=False)
    assert bool((interval_margins(propagate(tiny, x, EPS), y) <= coarse + 1e-5).all())
    assert value(coarse.sum()) < value(symbolic.sum())
    assert not torch.allclose(coarse, crown_ibp_margins(tiny, x, EPS, propagate(tiny, x, EPS), y)), "another slope"
    for _ in range(50):
        logits = tiny((x + EPS * (2 * torch.rand_like(x) - 1)).clamp(0, 1))
        margins = logits.gather(1, y[:, None]) - logits
        assert bool((symbolic <= margins + 1e-5).all())


@pytest.mark.slow
def test_mixtrain_adds_the_robust_loss_in_a_share_of_the_steps(tiny: nn.Sequential) -> None:
    torch.manual_seed(2)
    x, y = torch.rand(6, 3, 8, 8), torch.randint(0, 10, (6,))
    loss = OBJECTIVES.get("mixtrain")
    clean = value(F.cross_entropy(tiny(x), y))
    assert value(loss(tiny, x, y, EPS, probability=0.0)) == pytest.approx(clean)
    torch.manual_seed(5)
    values = [value(loss(tiny, x, y, EPS, probability=0.3, samples=1)) for _ in range(300)]
    assert 0.2 < sum(one > clean + 1e-6 for one in values) / 300 < 0.4
    torch.manual_seed(7)
    actual = value(loss(tiny, x, y, EPS, probability=1.0, samples=2, progress=0.5, weight_start=0.25, weight_end=4.0))
    torch.manual_seed(7)
    torch.rand(())
    chosen = torch.randint(6, (2,))
    robust = F.cross_entropy(-symbolic_margins(tiny, x[chosen], EPS, y[chosen]), y[chosen])
    assert actual == pytest.approx(clean + value(robust), rel=1e-5), "half-way the weight is the geometric mean, 1"
