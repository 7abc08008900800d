"""Backward bounds: exact where the network is linear over the box, sound everywhere, through every kind of layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.crown import crown_ibp_margins, fused_cross_entropy, symbolic_margins
from prunecert.models.networks.grafted import GraftedReLU
from tests.models.conftest import Averaging, normalised
from tests.models.test_bounds import sampled

SEEDS = st.integers(0, 2**31)


def convolutional(seed: int, *, graft: bool = False) -> nn.Sequential:
    """Strides that leave a row and a column unread, a dilated layer, an average over rows; 3x8x8 inputs."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(0, 1)),
        nn.ReLU(),
        nn.Conv2d(4, 6, 2, dilation=(1, 2), groups=2, bias=False),
        GraftedReLU((6, 2, 1), (6, 1, 1)) if graft else nn.ReLU(),
        nn.AvgPool2d((2, 1), stride=1),
        nn.Flatten(),
        nn.Linear(6, 8),
        GraftedReLU((8,)) if graft else nn.ReLU(),
        nn.Linear(8, 5),
    ).double()
    with torch.no_grad():
        for module in model:
            if isinstance(module, GraftedReLU):
                module.grafted.copy_(torch.rand(module.grafted.shape) < 0.5)
                module.slope.uniform_(-1, 1)
                module.offset.uniform_(-1, 1)
    return model.eval()


def images(count: int = 3, classes: int = 5) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, 3, 8, 8, dtype=torch.float64)
    # Some pixels at the ends of the range, where the box is cut off.
    x[torch.rand(x.shape) < 0.2] = 0.0
    x[torch.rand(x.shape) < 0.2] = 1.0
    return x, torch.randint(0, classes, (count,))


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, eps=st.floats(0.0, 0.5), graft=st.booleans())
def test_sampled_margins_and_entropies_are_within_the_bounds(seed: int, eps: float, graft: bool) -> None:
    model = convolutional(seed, graft=graft)
    x, y = images()
    with torch.no_grad():
        bounds = propagate(model, x, eps)
        worst, entropy = sampled(model, x, y, eps, 100)
        crown = crown_ibp_margins(model, x, eps, bounds, y)
        assert bool((crown <= worst + 1e-9).all())
        assert bool((fused_cross_entropy(model, x, eps, bounds, y) >= entropy - 1e-9).all())
        assert float(crown.gather(1, y[:, None]).abs().max()) < 1e-12
        for symbolic in (False, True):
            margins = symbolic_margins(model, x, eps, y, symbolic=symbolic)
            assert bool((margins <= worst + 1e-9).all())


def least(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The least margins of a network that is affine over each box."""
    lower, upper = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    rows = []
    for image, spread, label in zip(center, radius, y, strict=True):
        logits = model(image[None])[0]
        jacobian = torch.autograd.functional.jacobian(lambda z: model(z[None])[0], image)  # type: ignore[no-untyped-call]
        margins, slopes = logits[label] - logits, jacobian[label] - jacobian
        rows.append(margins - (slopes.abs() * spread).flatten(1).sum(1))
    return torch.stack(rows).detach()


@pytest.mark.parametrize("graft", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_where_all_phases_are_fixed_the_bounds_are_exact(seed: int, graft: bool) -> None:
    model = convolutional(seed, graft=graft)
    with torch.no_grad():
        # Some units always on, others always off.
        model[0].bias.copy_(torch.tensor([40.0, -40.0, 40.0, 40.0]))  # type: ignore[operator]
        model[2].weight.abs_()  # type: ignore[operator]
        model[6].bias.copy_(torch.tensor([900.0, -900.0] * 4))  # type: ignore[operator]
    x, y = images()
    exact = least(model, x, y, 0.1)
    with torch.no_grad():
        bounds = propagate(model, x, 0.1)
        for margins in (
            crown_ibp_margins(model, x, 0.1, bounds, y),
            symbolic_margins(model, x, 0.1, y),
            symbolic_margins(model, x, 0.1, y, symbolic=False),
        ):
            assert torch.allclose(margins, exact, atol=1e-8)
        assert not torch.allclose(interval_margins(bounds, y), exact, atol=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_symbolic_pre_activations_are_no_looser(seed: int) -> None:
    model = convolutional(seed)
    x, y = images()
    with torch.no_grad():
        tight = symbolic_margins(model, x, 0.05, y)
        loose = symbolic_margins(model, x, 0.05, y, symbolic=False)
    assert float((tight - loose).mean()) > 0
    shallow = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 5)).double()
    with torch.no_grad():
        # The intervals of a first layer are exact already.
        same = [symbolic_margins(shallow, x, 0.1, y, symbolic=symbolic) for symbolic in (False, True)]
    assert torch.equal(*same)


def test_one_unstable_neuron_by_hand() -> None:
    """relu(x - 1/2) over [0.1, 0.8]: pre-activations in [-0.4, 0.3]; the lower line is 0, the upper 3/7 (z + 0.4)."""
    first, last = nn.Linear(1, 1), nn.Linear(1, 2)
    model = nn.Sequential(first, nn.ReLU(), last).double()
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.fill_(-0.5)
        last.bias.zero_()
        x, y = torch.tensor([[0.45]], dtype=torch.float64), torch.tensor([0])
        for weight, crown, parallel in ((1.0, 0.0, -0.4 * 3 / 7), (-1.0, -0.3, -0.3)):
            last.weight.copy_(torch.tensor([[weight], [0.0]]))
            bounds = propagate(model, x, 0.35)
            assert float(crown_ibp_margins(model, x, 0.35, bounds, y)[0, 1]) == pytest.approx(crown)
            assert float(symbolic_margins(model, x, 0.35, y)[0, 1]) == pytest.approx(parallel)
        # Up to 0.9, the upper bound exceeds the lower one's magnitude: the lower line is z itself.
        last.weight.copy_(torch.tensor([[1.0], [0.0]]))
        x = torch.tensor([[0.6]], dtype=torch.float64)
        bounds = propagate(model, x, 0.3)
        assert float(crown_ibp_margins(model, x, 0.3, bounds, y)[0, 1]) == pytest.approx(-0.2)


def test_a_fused_row_is_exact_at_a_point_and_does_not_overflow() -> None:
    model = convolutional(1)
    x, y = images()
    with torch.no_grad():
        model[8].weight.mul_(1000)  # type: ignore[operator]
        entropy = F.cross_entropy(model(x), y, reduction="none")
        fused = fused_cross_entropy(model, x, 0.0, propagate(model, x, 0.0), y)
        assert torch.allclose(fused, entropy, rtol=1e-5, atol=1e-5)
        wide = fused_cross_entropy(model, x, 0.5, propagate(model, x, 0.5), y)
    assert bool(torch.isfinite(wide).all())
    assert bool((wide >= entropy).all())


def test_only_the_images_that_are_bounded_are_answered() -> None:
    model = normalised(2).double().eval()
    x, y = images(5, 10)
    with torch.no_grad():
        bounds = propagate(model, x, 0.01, count=2)
        few = crown_ibp_margins(model, x, 0.01, bounds, y)
        alone = crown_ibp_margins(model, x[:2], 0.01, propagate(model, x[:2], 0.01), y[:2])
    assert few.shape == (2, 10)
    assert torch.allclose(few, alone)


def padded(*, named: bool) -> nn.Sequential:
    """Padding and pooling by names and adaptive layers, or the same by numbers; 3x8x8 inputs, with batch norm."""
    torch.manual_seed(3)
    first = nn.Conv2d(3, 4, (3, 4), padding="same", dilation=(1, 3))
    if not named:
        # Four columns of zeros before and five after have no number: written out, with a column of zeros before it, the
        # kernel has eleven columns and five on either side.
        wide = nn.Conv2d(3, 4, (3, 11), padding=(1, 5))
        with torch.no_grad():
            wide.weight.zero_()[..., 1::3] = first.weight
            wide.bias.copy_(first.bias)  # type: ignore[union-attr, arg-type]
        first = wide
    torch.manual_seed(4)
    model = nn.Sequential(
        first,
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding="valid" if named else 0),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, None)) if named else nn.AvgPool2d((3, 1)),
        nn.Conv2d(6, 4, 3, padding="same" if named else 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1) if named else nn.AvgPool2d((2, 6)),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    return model.double().train()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_padding_and_pooling_by_name_bound_as_by_number() -> None:
    named, plain = padded(named=True), padded(named=False)
    torch.manual_seed(5)
    x, y = images()
    other = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    with torch.no_grad():
        for training in (True, False):
            named.train(training)
            plain.train(training)
            one, two = (propagate(model, x, 0.03, points=other, count=2) for model in (named, plain))
            assert torch.allclose(one.logits, two.logits)
            assert one.points is not None
            assert two.points is not None
            assert torch.allclose(one.points, two.points)
            for bounds, expected in zip(one.boxes, two.boxes, strict=True):
                assert all(torch.allclose(*pair) for pair in zip(bounds, expected, strict=True))
            assert torch.allclose(interval_margins(one, y), interval_margins(two, y))
            for margins in (crown_ibp_margins, fused_cross_entropy):
                assert torch.allclose(margins(named, x, 0.03, one, y), margins(plain, x, 0.03, two, y))
        assert torch.allclose(one.logits, named(x))
        assert torch.allclose(symbolic_margins(named, x, 0.03, y), symbolic_margins(plain, x, 0.03, y))


@pytest.mark.parametrize("how", list(Averaging.HOWS))
def test_every_spelling_of_an_average_is_bounded_exactly_where_phases_are_fixed(how: str) -> None:
    torch.manual_seed(6)
    model = Averaging(how).double()
    with torch.no_grad():
        # Always on.
        model.conv.bias.fill_(40.0)  # type: ignore[union-attr]
    x, y = images(2, 10)
    exact = least(model, x, y, 0.1)
    with torch.no_grad():
        bounds = propagate(model, x, 0.1)
        assert torch.allclose(bounds.logits, model(x))
        assert torch.allclose(crown_ibp_margins(model, x, 0.1, bounds, y), exact, atol=1e-9)
        assert bool((interval_margins(bounds, y) <= exact + 1e-9).all())


def test_overlapping_windows_are_refused_where_coefficients_go_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(18, 5)).double()
    x, y = images(1)
    bounds = propagate(model, x, 0.1)
    with pytest.raises(UserError, match=r"'1' .AdaptiveAvgPool2d. is refused: it makes 3x3 of 8x8 places"):
        crown_ibp_margins(model, x, 0.1, bounds, y)
