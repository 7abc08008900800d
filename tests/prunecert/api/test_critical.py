from __future__ import annotations

import pytest
import torch
from torch import nn

import prunecert
from prunecert.errors import UserError


@pytest.mark.slow
def test_the_radius_of_a_line_is_known() -> None:
    """The margin of two linear outputs falls by the sum of the weights' differences, times the radius."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[1].get_parameter("weight").copy_(torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]]))
        net[1].get_parameter("bias").zero_()
        net[1].get_parameter("bias")[1] = 3.2
    # margin at 0.5: 2 + 2 - 3.2 = 0.8; it falls by 8 eps.
    critical = prunecert.critical_radius(net, torch.full((1, 2, 2), 0.5), highest=0.4, tolerance=0.005)
    assert critical.broken is not None
    assert float(critical.proved) < 0.1 <= float(critical.broken)
    assert float(critical.broken - critical.proved) <= 0.006
    assert critical.witness_verdict is not None
    assert critical.witness_verdict.witness is not None
    with pytest.raises(UserError, match="no radius keeps it"):
        prunecert.critical_radius(net, torch.full((1, 2, 2), 0.5), label=1)
