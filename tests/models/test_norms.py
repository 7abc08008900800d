"""Batch norm in training: its statistics and their gradient, folding, and re-estimation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.attack import frozen_statistics
from prunecert.models.norms import estimate_statistics, frozen_affine, frozen_forward, normalise, uncounted
from tests.models.conftest import normalised


def by_hand(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same by elementary operations."""
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    return x * scale[:, None, None] + shift[:, None, None], scale, shift


@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_are_those_of_elementary_operations(channels_last: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    start = torch.randn(37, 4, 3, 3, dtype=torch.float64)
    if channels_last:
        start = start.contiguous(memory_format=torch.channels_last)
    weights = [torch.randn(37, 4, 3, 3, dtype=torch.float64), torch.randn(4), torch.randn(4)]
    grads = []
    for function in (normalise, by_hand):
        x = start.clone().requires_grad_(True)
        norm.zero_grad()
        outputs = function(norm, x)
        sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()  # type: ignore[union-attr]
        grads.append((outputs, x.grad, norm.weight.grad, norm.bias.grad))
    for one, two in zip(grads[0][0], grads[1][0], strict=True):
        assert torch.allclose(one, two)
    for actual, expected in zip(grads[0][1:], grads[1][1:], strict=True):
        assert actual is not None
        assert expected is not None
        assert torch.allclose(actual, expected)


def test_the_gradient_of_the_statistics_alone() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3).double()
    x = torch.randn(9, 3, dtype=torch.float64)

    def scale_and_shift(values: Tensor) -> tuple[Tensor, Tensor]:
        return normalise(norm, values)[1:]

    assert torch.autograd.gradcheck(scale_and_shift, (x.requires_grad_(True),))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_move_once_and_as_torch_moves_them(momentum: float | None) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.BatchNorm2d(4, momentum=momentum), nn.BatchNorm2d(4, momentum=momentum)
    for _ in range(3):
        x = torch.randn(5, 4, 3, 3)
        assert torch.allclose(normalise(ours, x)[0], theirs(x), atol=1e-6)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name].double(), value.double(), atol=1e-6)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with uncounted():
        normalise(ours, torch.randn(5, 4, 3, 3))
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_a_frozen_network_is_the_one_in_evaluation_and_gives_gradients_to_images_alone() -> None:
    for seed in range(3):
        model = normalised(seed)
        x = torch.rand(6, 3, 8, 8, requires_grad=True)
        with frozen_statistics(model):
            expected = model(x)
            (grad,) = torch.autograd.grad(F.cross_entropy(expected, torch.arange(6)), x)
        model.train()
        actual = frozen_forward(model)(x)
        assert torch.allclose(actual, expected, atol=1e-5)
        (again,) = torch.autograd.grad(F.cross_entropy(actual, torch.arange(6)), x)
        assert torch.allclose(again, grad, atol=1e-6)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(module.training for module in model.modules())


def test_estimated_statistics_are_those_of_the_images() -> None:
    model = normalised(0)
    model.eval()
    norm = model.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    batches = [torch.rand(20, 3, 8, 8) for _ in range(4)]
    momentum = norm.momentum
    estimate_statistics(model, batches)
    outputs = torch.stack([torch.stack(torch.var_mean(model[0](batch), (0, 2, 3))) for batch in batches]).mean(0)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_var, outputs[0], rtol=1e-4)
    assert torch.allclose(norm.running_mean, outputs[1], atol=1e-5)
    assert norm.momentum == momentum
    assert not model.training


def test_a_folded_factor_is_that_of_evaluation() -> None:
    model = normalised(1)
    norm = model.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eval()
    x = torch.randn(4, norm.num_features, 2, 2)
    scale, shift = frozen_affine(norm)
    assert torch.allclose(x * scale[:, None, None] + shift[:, None, None], norm(x), atol=1e-6)
