"""Layers are replaced where a card says so, and what fits no network is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import prunable
from prunecert.models.networks.grafted import GraftedReLU
from prunecert.models.surgery import operate, replace_layer
from tests.models.conftest import small_residual


def test_layers_within_blocks_are_reached() -> None:
    model = small_residual()
    operate(model, {"grafted": {"3.relu1": [[16, 4, 4], [16, 1, 1]], "7": [[32], [32]]}})
    inner = model.get_submodule("3.relu1")
    assert isinstance(inner, GraftedReLU)
    assert inner.slope.shape == (16, 1, 1)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_no_surgery_changes_nothing(tiny: nn.Module) -> None:
    before = list(tiny.modules())
    operate(tiny, {})
    assert list(tiny.modules()) == before


@pytest.mark.parametrize(
    "surgery",
    [
        {"cut": {}},
        {"grafted": {"0": [[6, 8, 8]] * 2}},
        {"grafted": {"9": [[1], [1]]}},
        {"grafted": {"1": [[-1], [-1]]}},
        {"grafted": {"1": "ab"}},
        {"grafted": {"1": [[6, 8, 8], [8, 1, 1]]}},
        {"grafted": {"1": [[10**9], [10**9]]}},
        {"grafted": 3},
    ],
)
def test_surgery_that_fits_no_network_is_refused(tiny: nn.Module, surgery: dict[str, object]) -> None:
    with pytest.raises(UserError, match="is refused"):
        operate(tiny, surgery)


def test_layers_are_replaced_where_they_are(tiny: nn.Module) -> None:
    relu = GraftedReLU((20,))
    replace_layer(tiny.eval(), "6", relu)
    assert tiny.get_submodule("6") is relu
    assert not relu.training
    assert isinstance(tiny(torch.rand(1, 3, 8, 8)), Tensor)
    assert len(prunable(tiny)) == 4
