"""Initial weights keep interval widths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecert.models import NETWORKS
from prunecert.models.bounds import propagate
from prunecert.models.initialisation import ibp_init
from prunecert.models.training import seed_everything


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
