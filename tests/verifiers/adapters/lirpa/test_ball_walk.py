"""Walks back through torch's layers: the same as its own gradients, and rounding that is never more than charged."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from prunecert.verifiers.adapters.lirpa.ball_walk import BallWalk, CutBall, Sums, _transposed, takes
from prunecert.verifiers.formats.onnx_torch import OnnxModule, _Combine, _Reshape

LAYERS: tuple[tuple[nn.Module, tuple[int, ...]], ...] = (
    (nn.Linear(6, 4), (6,)),
    (nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
    (nn.Conv2d(4, 6, (4, 3), stride=(2, 3), padding=(1, 0), dilation=(1, 2), groups=2), (4, 9, 12)),
    (nn.AvgPool2d(2, 2), (3, 5, 6)),
    (_Reshape([12]), (3, 2, 2)),
)


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_coefficients_are_torchs_gradients(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer = layer.double()
    x = torch.rand((3, *shape), dtype=torch.float64, requires_grad=True)
    y = layer(x)
    own = torch.rand_like(y)
    (expected,) = torch.autograd.grad(y, x, own)
    torch.testing.assert_close(_transposed(layer, own, (3, *shape)), expected)


def small(seed: int = 0) -> OnnxModule:
    """Returns a network of 3 inputs whose second layer is added to its first, before the ReLU."""
    torch.manual_seed(seed)
    layers = {"a": nn.Linear(3, 4), "r": nn.ReLU(), "b": nn.Linear(4, 4), "+": _Combine(), "s": nn.ReLU()}
    steps = [
        ("a", "a", ("x",)),
        ("r", "r", ("a",)),
        ("b", "b", ("r",)),
        ("sum", "+", ("a", "b")),
        ("s", "s", ("sum",)),
        ("y", "c", ("s",)),
    ]
    module = OnnxModule(steps, {**layers, "c": nn.Linear(4, 2)}, "x", "y", (3,), 2)
    return module.requires_grad_(False)


def ball(radius: float = 0.3) -> CutBall:
    center = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return CutBall.of(center, radius, center - radius, center + radius)


def test_a_network_of_active_neurons_is_its_own_gradient() -> None:
    walk = BallWalk(small(), ball(), {})
    sums, rows = Sums.of(torch.zeros(2, dtype=torch.float64)), torch.eye(2, dtype=torch.float64)
    end = walk.back("y", rows, sums, lambda _, through, __: through)
    assert end is not None
    active = small().double()
    active.layers["r"] = active.layers["s"] = nn.Identity()
    x = torch.rand((1, 3), dtype=torch.float64, requires_grad=True)
    y = active(x)
    for row in range(2):
        (expected,) = torch.autograd.grad(y[0, row], x, retain_graph=True)
        torch.testing.assert_close(end[row], expected[0])
    torch.testing.assert_close(sums.value + end @ x[0].detach(), y[0].detach())
    assert 0 < float(sums.error.max()) < 1e-13
    assert bool((sums.lower(walk.terms) < sums.value).all())


def test_what_is_said_of_the_centre_and_of_intervals_holds_in_exact_arithmetic() -> None:
    module = small(1)
    walk = BallWalk(module, ball(), {})
    rng = np.random.default_rng(0)
    center, corner = ball().center.numpy(), ball(0.3).low.numpy()
    for point in (center, corner, *(center + 0.3 * rng.uniform(-1, 1, (5, 3)))):
        values = {"x": [Fraction(float(item)) for item in point]}
        for result, key, arguments in module.steps:
            layer, first = module.layers[key], values[arguments[0]]
            if isinstance(layer, nn.Linear):
                values[result] = [
                    sum((Fraction(w) * v for w, v in zip(row, first, strict=True)), Fraction(b))
                    for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
                ]
            elif isinstance(layer, _Combine):
                values[result] = [a + b for a, b in zip(first, values[arguments[1]], strict=True)]
            else:
                values[result] = [max(v, Fraction(0)) for v in first]
        for name, exact in values.items():
            if name == "x":
                continue
            low, high = (end.reshape(-1).tolist() for end in walk.interval(name, {}))
            assert all(Fraction(a) <= v <= Fraction(b) for a, v, b in zip(low, exact, high, strict=True))
            if point is center:
                own = walk.values[name]
                near = zip(own.center.reshape(-1).tolist(), own.drift.reshape(-1).tolist(), exact, strict=True)
                assert all(abs(Fraction(c) - v) <= Fraction(d) for c, d, v in near)
            sizes = walk.values[name].size.reshape(-1).tolist()
            assert all(abs(v) <= Fraction(size) for size, v in zip(sizes, exact, strict=True))


def test_what_overflows_is_no_bound() -> None:
    walk = BallWalk(small(), ball(), {})
    for huge in (1e60, np.inf, np.nan):
        rows = torch.tensor([[huge, 1.0], [1.0, 0.0]], dtype=torch.float64)
        sums = Sums.of(torch.zeros(2, dtype=torch.float64))
        walk.back("y", rows, sums, lambda _, through, __: through)
        lower = sums.lower(walk.terms)
        assert float(lower[0]) == -np.inf
        assert bool(lower[1].isfinite())


def test_a_centre_outside_of_the_box_is_moved_into_it() -> None:
    center, low, high = (torch.tensor(item, dtype=torch.float64) for item in ([2.0, 0.5], [0.0, 0.0], [1.0, 1.0]))
    inner = CutBall.of(center, 1.25, low, high)
    assert inner.center.tolist() == [1.0, 0.5]
    points = torch.rand((2000, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = points[(points - center).norm(dim=1) <= 1.25]
    assert len(points) > 100
    assert float((points - inner.center).norm(dim=1).max()) <= inner.radius


def test_maxima_are_not_taken() -> None:
    module = small()
    assert takes(module)
    module.layers["r"] = nn.MaxPool2d(2)
    assert not takes(module)
