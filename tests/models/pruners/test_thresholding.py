"""Thresholding of units: how many go, that what is dead changes nothing, and that its gradients come through."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models import NETWORKS
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.thresholding import alive, deactivate, masks_of, removal


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_the_alive_share_of_every_layer_is_the_formula_s(share: float) -> None:
    model = NETWORKS.get("cnn-small")()
    for weight in prunable(model).values():
        nn.init.normal_(weight)
    deactivate(model, share)
    weights = prunable(model)
    kernel = 1 - (16 + 32 + 4 + 4) / (16 * 32 * 4 * 4)
    filters = int((weights["2.weight"].flatten(1) != 0).any(1).sum())
    assert filters == 32 - math.floor(share / 2 * kernel * 32)
    stays = alive(model, share)[1]["5.weight"]
    columns = int(stays.sum())
    assert not bool(weights["5.weight"][:, ~stays & ~_behind(weights["2.weight"])].any())
    hidden = share * (1 - (100 + 2048) / (100 * 2048)) + (0.02 if share < 0.98 else 0)
    # Columns of dead filters are among those that go.
    assert columns == 2048 - max(math.floor(hidden * 2048), (32 - filters) * 64)
    assert int((weights["7.weight"] != 0).any(0).sum()) == 100 - math.floor(share / 2 * 100)
    bias = model.get_parameter("2.bias")
    dead = (weights["2.weight"].flatten(1) == 0).all(1)
    assert torch.equal(bias[dead], torch.full((32 - filters,), 0.01)), "open, so that gradients pass"
    deactivate(model, share, final=True)
    assert int((bias == 0).sum()) == 32 - filters
    assert not bool(weights["5.weight"][:, dead.repeat_interleave(64)].any()), "and in the end nothing reads it"
    assert int((weights["2.weight"].flatten(1) != 0).any(1).sum()) == filters, "the same again"
    assert removal(torch.Size((8, 4, 3, 3)), 1.0, last=False) == 0.5 * (1 - 18 / 288)


def test_rows_of_neurons_that_nothing_reads_go(tiny: nn.Module) -> None:
    filters, columns = alive(tiny, 0.9)
    masks = Masks(masks_of(tiny, filters, columns))
    unread = ~columns["7.weight"]
    assert not bool(masks["5.weight"][unread].any())
    assert not bool(masks["2.weight"][:, ~filters["0.weight"]].any())
    x = torch.rand(4, 3, 8, 8)
    deactivate(tiny, 0.9, final=True)
    before = tiny(x)
    masks.apply_(tiny)
    assert torch.allclose(tiny(x), before, atol=1e-6), "what the closure removes has no effect"


@pytest.mark.parametrize("network", ["cnn-small", "cnn-small-bn", "resnet-2b"])
def test_physical_removal_changes_nothing_whatever_batch_norm_does(network: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS.get(network)().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.bias.normal_()
                module.weight.normal_()
        deactivate(model, 0.9, final=True)
        x = torch.rand(2, 3, 32, 32)
        before = model(x)
        masks = Masks(masks_of(model, *alive(model, 0.9)))
        masks.apply_(model)
        for name, weight in prunable(model).items():
            # What is removed may be anything.
            weight[(~masks[name]).flatten(1).all(1)] = 7.0 if ".conv2" not in name and "shortcut" not in name else 0.0
        assert float((model(x) - before).abs().max()) < 1e-6 * max(1.0, float(before.abs().max()))


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("final", [False, True])
def test_gradients_reach_every_dead_filter_until_the_end(normalised: bool, final: bool) -> None:
    """With biases of zero, or nothing that reads it, a filter would be dead for good."""
    model = _network(normalised)
    filters, _ = alive(model, 0.9)
    deactivate(model, 0.9, final=final)
    F.cross_entropy(model(torch.rand(32, 3, 8, 8)), torch.arange(32) % 10).backward()  # type: ignore[no-untyped-call]
    for name, strong in filters.items():
        gradient = prunable(model)[name].grad
        assert gradient is not None
        assert int((~strong).sum()) >= 2
        reached = gradient[~strong].flatten(1).any(1)
        assert not bool(reached.any()) if final else bool(reached.all()), name


def _behind(weight: Tensor) -> Tensor:
    """Returns which columns of the first linear layer of cnn-small a dead filter stands behind."""
    return (weight.flatten(1) == 0).all(1).repeat_interleave(64)


def _network(normalised: bool) -> nn.Module:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(12)] if normalised else [nn.Identity(), nn.Identity()]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=not normalised), norms[0], nn.ReLU())
    model.extend([nn.Conv2d(8, 12, 4, stride=2, padding=1, bias=not normalised), norms[1], nn.ReLU(), nn.Flatten()])
    model.append(nn.Linear(12 * 16, 10))
    return model if normalised else nn.Sequential(*(m for m in model if not isinstance(m, nn.Identity)))
