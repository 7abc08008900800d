from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecert.verifiers.rounding.absolute_layers import absolute


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 3), nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(2, 4, 3, groups=2), nn.AvgPool2d(2)]
)
def test_no_sum_of_the_layer_is_larger_than_that_of_magnitudes(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer.double()
    x = torch.randn((5, 4) if isinstance(layer, nn.Linear) else (5, 2, 6, 6), dtype=torch.float64)
    with torch.no_grad():
        bound = absolute(layer)(x.abs()) + absolute(layer).bias
        assert (layer(x).abs() <= bound * (1 + 1e-12)).all()
        assert (bound >= 0).all()


def test_products_are_counted_without_zeros() -> None:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 0, 2], [0, 0, 0, 0], [3.0, 0, 1, 1]]))
    assert (absolute(layer).forwards, absolute(layer).backwards) == (3, 2)
    pool = absolute(nn.AvgPool2d((2, 3)))
    assert (pool.forwards, pool.backwards, pool.weight) == (6, 6, None)


def test_only_weights_that_a_reader_has_rounded_have_an_error_of_their_own() -> None:
    layer = nn.Linear(2, 2, bias=False)
    assert absolute(layer).rounded == 0
    assert not absolute(layer).bias.any()
    layer.rounded = True  # type: ignore[assignment]  # as a reader notes it
    assert absolute(layer).rounded == 2.0**-23
