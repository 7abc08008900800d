"""Initial weights keep interval widths."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from prunecert.models import NETWORKS
from prunecert.models.bounds import propagate
from prunecert.models.initialisation import ibp_init
from prunecert.models.norms import norms_of
from prunecert.models.training import seed_everything
from tests.models.training_kit import job, pipeline


def test_ibp_initialisation_halves_what_takes_from_a_sum_and_may_leave_the_last_layer() -> None:
    seed_everything(0)
    model = NETWORKS.get("resnet-2b")()
    last = model.get_parameter("9.weight").detach().clone()
    ibp_init(model, last=False)
    assert torch.equal(model.get_parameter("9.weight"), last)
    for name, factor in (("0", 1.0), ("3.conv1", 1.0), ("4.conv1", 0.5), ("4.conv2", 1.0), ("6", 0.5)):
        weight = model.get_parameter(f"{name}.weight").detach()
        spread = float(weight.std()) * weight[0].numel() / (2 * torch.pi) ** 0.5
        assert spread == pytest.approx(factor, rel=0.05), name
    ibp_init(model)
    assert not torch.equal(model.get_parameter("9.weight"), last)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [(nn.Linear(400, 300), 400), (nn.Conv2d(30, 200, 5), 30 * 25), (nn.Conv2d(32, 256, 3, groups=2), 144)],
)
def test_weights_are_normal_with_the_published_variance_and_biases_are_zero(layer: nn.Module, inputs: int) -> None:
    seed_everything(0)
    model = nn.Sequential(layer)
    ibp_init(model)
    weight, bias = layer.weight.detach(), layer.bias.detach()  # type: ignore[operator]
    # Shi et al. 2021, section 4.1: N(0, 2 pi / n^2) for n inputs of a neuron.
    scaled = weight.flatten() / math.sqrt(2 * math.pi / inputs**2)
    assert float(scaled.mean()) == pytest.approx(0, abs=0.02)
    assert float(scaled.std()) == pytest.approx(1, abs=0.02)
    # Shares within one and two standard deviations, which a uniform distribution of that variance hasn't.
    assert float((scaled.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.01)
    assert float((scaled.abs() < 2).float().mean()) == pytest.approx(0.9545, abs=0.005)
    assert not bool(bias.any())


def test_batch_norm_begins_as_nothing_and_the_recipe_says_which_weights_are_drawn(tmp_path: Path) -> None:
    line = pipeline(tmp_path)
    plain, whole, hidden = (
        line.initial(replace(job(objective="ibp", init=init), network="cnn-small-bn"))
        for init in ("default", "ibp", "ibp-hidden")
    )
    first, *_, last = (name for name, one in plain.named_parameters() if one.ndim > 1)
    for model in (whole, hidden):
        weight = model.get_parameter(first).detach()
        assert float(weight.std()) == pytest.approx(math.sqrt(2 * math.pi) / weight[0].numel(), rel=0.1)
        assert float(plain.get_parameter(first).detach().std()) != pytest.approx(float(weight.std()), rel=0.1)
        assert all(bool((norm.weight == 1).all()) and not bool(norm.bias.any()) for norm in norms_of(model))
    assert float(whole.get_parameter(last).detach().std()) == pytest.approx(math.sqrt(2 * math.pi) / 100, rel=0.1)
    bound = 1 / math.sqrt(100)
    assert bound * 0.9 < float(hidden.get_parameter(last).detach().abs().max()) <= bound, "torch's own"


def test_widths_stay_what_they_are_through_the_layers_of_a_network_without_batch_norm() -> None:
    seed_everything(0)
    model = nn.Sequential(*(layer for _ in range(5) for layer in (nn.Linear(400, 400), nn.ReLU())), nn.Linear(400, 10))
    ibp_init(model)
    with torch.no_grad():
        # Around centres that are spread about 0 a ReLU halves widths on average, which the weights make good for.
        widths = [float(radius.mean()) for _, radius in propagate(model, torch.rand(20, 400), 0.01).boxes]
    assert widths[-1] / widths[0] == pytest.approx(1.0, abs=0.5)


def test_a_network_without_a_graph_is_drawn_all_the_same() -> None:
    seed_everything(0)
    model = NETWORKS.get("vgg16")()
    before = model.get_parameter("0.weight").detach().clone()
    ibp_init(model)
    assert not torch.equal(model.get_parameter("0.weight"), before)


def test_ibp_init_has_the_paper_s_variance() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(500, 400)
    ibp_init(layer)
    assert float(layer.weight.detach().std()) == pytest.approx((2 * torch.pi) ** 0.5 / 500, rel=0.02)
    # The mean absolute row sum, halved, is the growth of an interval: 1.
    assert float(layer.weight.detach().abs().sum(1).mean()) / 2 == pytest.approx(1, rel=0.02)
