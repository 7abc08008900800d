"""Training bounds contain what they bound, and are as tight as their papers say."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.crown import crown_ibp_margins, fused_cross_entropy, symbolic_margins
from prunecert.models.norms import estimate_statistics, norms_of
from tests.models.conftest import normalised


def sampled(model: nn.Module, x: Tensor, y: Tensor, eps: float, count: int) -> tuple[Tensor, Tensor]:
    """Returns the smallest margins and the largest cross-entropy over corners of the box."""
    noise = torch.randint(0, 2, (count, *x.shape)).float() * 2 - 1
    points = (x + eps * noise).clamp(0, 1)
    logits = model(points.flatten(0, 1)).view(count, len(x), -1)
    margins = logits.gather(2, y.expand(count, -1)[..., None]) - logits
    entropy = F.cross_entropy(logits.flatten(0, 1), y.repeat(count), reduction="none").view(count, -1)
    return margins.amin(0), entropy.amax(0)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.0, 0.3), sparsity=st.floats(0, 0.9))
def test_bounds_contain_sampled_outputs(seed: int, eps: float, sparsity: float) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, stride=1, padding=0),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 8),
        nn.ReLU(),
        nn.Linear(8, 10),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.rand_like(parameter) > sparsity).mul_(2)
        x, y = torch.rand(3, 3, 8, 8), torch.randint(0, 10, (3,))
        bounds = propagate(model, x, eps)
        assert torch.allclose(bounds.logits, model(x), atol=1e-5)
        worst, entropy = sampled(model, x, y, eps, 400)
        interval, crown = interval_margins(bounds, y), crown_ibp_margins(model, x, eps, bounds, y)
        scale = 1e-5 * (1 + worst.abs().max())
        assert bool((interval <= worst + scale).all())
        assert bool((crown <= worst + scale).all())
        assert bool((fused_cross_entropy(model, x, eps, bounds, y) >= entropy - scale).all())
        # The label's own margin is exactly zero for both.
        assert float(interval.gather(1, y[:, None]).abs().max()) == 0
        assert float(crown.gather(1, y[:, None]).abs().max()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.0, 0.1), count=st.integers(1, 5))
def test_bounds_through_batch_norm_sums_and_pooling_contain_sampled_outputs(
    training: bool, seed: int, eps: float, count: int
) -> None:
    model = normalised(seed).double().train(training)
    torch.manual_seed(seed)
    x, y = torch.rand(5, 3, 8, 8, dtype=torch.float64), torch.randint(0, 10, (5,))
    with torch.no_grad():
        bounds = propagate(model, x, eps, count=count)
        # In training the network is the one with the statistics of these images.
        fixed = with_statistics_of(model, x) if training else model
        assert torch.allclose(bounds.logits, fixed(x))
        worst, entropy = sampled(fixed, x[:count], y[:count], eps, 200)
        interval, crown = interval_margins(bounds, y), crown_ibp_margins(model, x, eps, bounds, y)
        symbolic = symbolic_margins(fixed, x[:count], eps, y[:count])
        fused = fused_cross_entropy(model, x, eps, bounds, y)
        scale = 1e-9 * (1 + worst.abs().max())
        assert bool((interval <= worst + scale).all())
        assert bool((crown <= worst + scale).all())
        assert bool((symbolic <= worst + scale).all())
        assert bool((fused >= entropy - scale).all())
        assert len(interval) == len(crown) == count


def with_statistics_of(model: nn.Module, x: Tensor) -> nn.Module:
    """Returns a copy in evaluation mode, whose running statistics are those of a batch, without Bessel's correction."""
    fixed = copy.deepcopy(model)
    estimate_statistics(fixed, [x])
    hooks = []

    def biased(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert norm.running_var is not None
        number = inputs[0].numel() // inputs[0].shape[1]
        norm.running_var.mul_((number - 1) / number)

    for norm in norms_of(fixed):
        hooks.append(norm.register_forward_hook(biased))
    fixed.eval()(x)
    for hook in hooks:
        hook.remove()
    return fixed


def test_statistics_come_from_the_clean_images_and_move_once() -> None:
    model = normalised(3)
    reference = copy.deepcopy(model)
    torch.manual_seed(1)
    x = torch.rand(6, 3, 8, 8)
    other = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    bounds = propagate(model, x, 0.02, points=other, count=2)
    assert torch.allclose(bounds.logits, reference(x), atol=1e-4)
    for name, value in reference.state_dict().items():
        assert torch.allclose(model.state_dict()[name].double(), value.double(), atol=1e-5), name
    # Points see the statistics of the clean images, not their own.
    fixed = with_statistics_of(model, x)
    assert bounds.points is not None
    assert torch.allclose(bounds.points, fixed(other), atol=1e-3)
    assert not torch.allclose(bounds.points, normalised(3)(other), atol=1e-3)
    # With other images riding along, the statistics are theirs.
    assert torch.allclose(propagate(model, x, 0.02, clean=other).logits, normalised(3)(other), atol=1e-4)


def test_bounds_in_evaluation_leave_the_statistics_alone() -> None:
    model = normalised(3).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(4, 3, 8, 8)
    assert torch.allclose(propagate(model, x, 0.02).logits, model(x), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("crown", [False, True])
def test_gradients_are_those_of_differences(crown: bool) -> None:
    model = normalised(2).double()
    torch.manual_seed(4)
    x, y = torch.rand(4, 3, 8, 8, dtype=torch.float64), torch.tensor([1, 5, 7, 0])

    def loss() -> Tensor:
        bounds = propagate(model, x, 0.01)
        margins = crown_ibp_margins(model, x, 0.01, bounds, y) if crown else interval_margins(bounds, y)
        return F.cross_entropy(-margins, y)

    loss().backward()  # type: ignore[no-untyped-call]
    step = 1e-6
    for parameter in model.parameters():
        assert parameter.grad is not None
        direction = torch.randn_like(parameter)
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                parameter.add_(sign * step * direction)
                values.append(loss())
            parameter.add_(step * direction)
        expected = float((values[0] - values[1]) / (2 * step))
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn-small", "cnn-large"])
def test_bounds_are_exact_at_radius_zero(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS.get(name)()
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([3, 7])
    with torch.no_grad():
        logits = model(x)
        margins = logits.gather(1, y[:, None]) - logits
        bounds = propagate(model, x, 0.0)
        assert torch.allclose(interval_margins(bounds, y), margins, atol=1e-5)
        assert torch.allclose(crown_ibp_margins(model, x, 0.0, bounds, y), margins, atol=1e-5)
        entropy = F.cross_entropy(logits, y, reduction="none")
        assert torch.allclose(fused_cross_entropy(model, x, 0.0, bounds, y), entropy, atol=1e-4)


def test_crown_ibp_is_exact_on_a_linear_stretch_where_intervals_are_not() -> None:
    # y0 = x - x over two layers: intervals lose the correlation, the backward pass keeps it.
    first, last = nn.Linear(1, 2, bias=True), nn.Linear(2, 2, bias=True)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [1.0]]))
        first.bias.copy_(torch.tensor([2.0, 2.0]))
        last.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        last.bias.zero_()
    model = nn.Sequential(first, nn.ReLU(), last)
    x, y = torch.tensor([[0.5]]), torch.tensor([0])
    with torch.no_grad():
        bounds = propagate(model, x, 0.25)
        assert interval_margins(bounds, y)[0, 1] == pytest.approx(-0.5)
        assert crown_ibp_margins(model, x, 0.25, bounds, y)[0, 1] == pytest.approx(0.0)


def test_a_layer_without_bounds_is_named_with_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r"cannot bound the layer '6' \(MaxPool2d\).* natural, pgd or trades"):
        propagate(NETWORKS.get("vgg16")(), torch.rand(1, 3, 32, 32), 0.1)
