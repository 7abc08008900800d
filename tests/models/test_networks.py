"""The networks have the sizes that they are described with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.bounds import propagate
from prunecert.models.masks import prunable
from prunecert.models.networks.factorised import Factors, factorise, factors_in, project, saved
from prunecert.models.networks.factorised import size as factor_size


@pytest.mark.parametrize(
    ("name", "weights", "relus", "products"),
    [
        ("cnn-small", 214_760, 6_244, None),
        ("cnn-small-bn", 214_760, 6_244, None),
        ("cnn-large", 2_465_632, 62_464, None),
        ("cnn5", 4_397_760, 90_624, 31_134_720),
        ("cnn7", 17_189_568, 229_888, 150_672_384),
        ("resnet-2b", 1_183_072, 24_832, 9_660_928),
        ("resnet-18", 11_164_352, 557_056, None),
        ("vgg-8", 813_408, 71_936, 17_926_656),
    ],
)
def test_sizes(name: str, weights: int, relus: int, products: int | None) -> None:
    model = NETWORKS.get(name)().eval()
    assert sum(weight.numel() for weight in prunable(model).values()) == weights
    with torch.no_grad():
        bounds = propagate(model, torch.rand(1, 3, 32, 32), 0.01)
    assert sum(center[0].numel() for center, _ in bounds.boxes) == relus
    if products is None:
        return
    multiplied = bounds.last.weight.numel()
    for index, (weight, _) in bounds.weights.items():
        multiplied += weight[0].numel() * bounds.shapes[index].numel()
    assert multiplied == products


SHAPES = [(8, 6, 3, 3), (20, 30)]


@pytest.mark.parametrize("shape", SHAPES)
def test_full_ranks_reproduce_a_weight_and_fewer_lose_less_the_more_there_are(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    ladder = [[r] for r in range(1, 21)] if len(shape) == 2 else [[min(r, 6), r] for r in range(1, 9)]
    gaps = [float((project(weight, ranks) - weight).norm()) for ranks in ladder]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-5 * float(weight.norm())
    once = project(weight, ladder[2])
    # A projection: what has these ranks stays as it is.
    assert torch.allclose(project(once, ladder[2]), once, atol=1e-5)
    factors = Factors(ladder[2]).right_inverse(weight)
    assert sum(factor.numel() for factor in factors) == factor_size(shape, ladder[2])


def test_factors_are_what_a_network_trains_and_their_product_what_it_computes_with() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    x = torch.rand(2, 3, 8, 8)
    before = network(x)
    factorise(network, {"0": [3, 8], "3": [4]})
    assert torch.allclose(network(x), before, atol=1e-5)
    assert saved(network) == {"0.weight": 9 + 3 * 8 * 9 + 64, "3.weight": 4 * (288 + 4)}
    assert sum(factor.numel() for factor in factors_in(network)) == sum(saved(network).values())
    network(x).sum().backward()
    trained = dict(network.named_parameters())
    assert "0.weight" not in trained
    assert all(parameter.grad is not None for parameter in trained.values())


@pytest.mark.parametrize(
    "ranks", [{"9": [1]}, {"1": [1]}, {"0": [4, 1]}, {"0": [1]}, {"3": [0]}, {"3": [True]}, {"3": 1}]
)
def test_factors_that_fit_no_layer_are_refused(ranks: dict[str, list[int]]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    with pytest.raises(UserError, match="are refused: it needs a convolution in one group"):
        factorise(network, ranks)
