"""Differentiable bounds for training: intervals, and CROWN's backward pass over interval pre-activations.

Written for sequential networks of convolutions, linear layers, ReLUs and Flatten, where it is several times faster
than a general graph library. Nothing here is a certificate: verification runs on the ONNX file, elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError


@dataclass
class Intervals:
    """What one forward pass of intervals gives.

    Args:
        logits: Clean logits [N, classes].
        center: Centre of the last affine layer's input [N, features].
        radius: Its radius, at least 0.
        pre: Lower and upper pre-activations of each ReLU, in order.
        last: The last affine layer.
    """

    logits: Tensor
    center: Tensor
    radius: Tensor
    pre: list[tuple[Tensor, Tensor]]
    last: nn.Linear


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Returns the layers of a sequential network.

    Raises:
        UserError: The network has a layer that these bounds don't handle.
    """
    layers = list(model) if isinstance(model, nn.Sequential) else [model]
    for layer in layers:
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.ReLU | nn.Flatten):
            raise UserError(
                f"The objectives ibp and crown-ibp cannot bound the layer {type(layer).__name__}; they take sequential "
                "networks of Conv2d, Linear, ReLU and Flatten (cnn-small, cnn-large). For the others train with "
                "natural, pgd or trades."
            )
    if not isinstance(layers[-1], nn.Linear):
        raise UserError("The objectives ibp and crown-ibp need a network that ends in a linear layer.")
    return layers


def _affine(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.linear(x, weight, bias)


#: Bounds of the step in progress: (network, images, radius, intervals); None outside of `shared_bounds`.
_shared: ContextVar[list[tuple[nn.Module, Tensor, float, Intervals]] | None] = ContextVar("shared", default=None)


@contextmanager
def shared_bounds() -> Iterator[None]:
    """Within it, a network's intervals for the same images and radius are computed once; weights must not change."""
    token = _shared.set([])
    try:
        yield
    finally:
        _shared.reset(token)


def propagate(model: nn.Module, x: Tensor, eps: float) -> Intervals:
    """Propagates the box [x - eps, x + eps] within [0, 1] (Gowal et al. 2018, section 3).

    Args:
        model: A sequential network.
        x: Images [N, C, H, W] in [0, 1].
        eps: Radius in pixels of [0, 1].
    """
    known = _shared.get()
    for one, images, radius, intervals in known or ():
        if one is model and images is x and radius == eps:
            return intervals
    made = _propagate(model, x, eps)
    if known is not None:
        known.append((model, x, eps, made))
    return made


def _propagate(model: nn.Module, x: Tensor, eps: float) -> Intervals:
    lower, upper = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    clean, center, radius = x, (lower + upper) / 2, (upper - lower) / 2
    pre: list[tuple[Tensor, Tensor]] = []
    layers = layers_of(model)
    for layer in layers[:-1]:
        if isinstance(layer, nn.ReLU):
            lower, upper = center - radius, center + radius
            pre.append((lower, upper))
            low, high = lower.clamp_min(0), upper.clamp_min(0)
            clean, center, radius = clean.relu(), (high + low) / 2, (high - low) / 2
        elif isinstance(layer, nn.Flatten):
            clean, center, radius = layer(clean), layer(center), layer(radius)
        else:
            weight, bias = layer.weight, layer.bias
            assert isinstance(weight, Tensor)
            # The clean images ride along with the centres: one product instead of two.
            both = _affine(layer, torch.cat([clean, center]), weight, bias)  # type: ignore[arg-type]
            clean, center = both.chunk(2)
            radius = _affine(layer, radius, weight.abs(), None)
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    return Intervals(last(clean), center, radius, pre, last)


def margin_rows(weight: Tensor, bias: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows of y_label - y_j over the last layer: weights [N, classes, features], biases [N, classes].

    The row j = label is zero, so that its margin is exactly 0, as a logit of the worst case should be.
    """
    return weight[y].unsqueeze(1) - weight.unsqueeze(0), bias[y].unsqueeze(1) - bias.unsqueeze(0)


def interval_margins(bounds: Intervals, y: Tensor) -> Tensor:
    """Returns lower bounds of y_label - y_j by intervals, [N, classes], with 0 at the label."""
    rows, offset = margin_rows(bounds.last.weight, bounds.last.bias, y)
    return (
        torch.bmm(rows, bounds.center.unsqueeze(2)).squeeze(2)
        - torch.bmm(rows.abs(), bounds.radius.unsqueeze(2)).squeeze(2)
        + offset
    )


def crown_ibp_margins(model: nn.Module, x: Tensor, eps: float, bounds: Intervals, y: Tensor) -> Tensor:
    """Returns lower bounds of y_label - y_j by CROWN-IBP (Zhang et al. 2020, section 3), [N, classes]."""
    return _backward(model, x, eps, bounds, *margin_rows(bounds.last.weight, bounds.last.bias, y))


def fused_cross_entropy(model: nn.Module, x: Tensor, eps: float, bounds: Intervals, y: Tensor) -> Tensor:
    """Returns upper bounds of the cross-entropy over the box, [N], by loss fusion (Xu et al. 2020, section 3.3).

    The cross-entropy is log of the sum over j of exp(z_j) with z_j = y_j - y_label. Each exp is bounded above by its
    chord over the interval bounds of z_j, so that the sum is one linear function of the last hidden layer, and one row
    goes back through the network instead of one a class.
    """
    rows, offset = margin_rows(bounds.last.weight, bounds.last.bias, y)
    middle = -(torch.bmm(rows, bounds.center.unsqueeze(2)).squeeze(2) + offset)
    spread = torch.bmm(rows.abs(), bounds.radius.unsqueeze(2)).squeeze(2)
    lower, upper = middle - spread, middle + spread
    # Divided by exp(shift), so that nothing overflows.
    shift = upper.detach().amax(1, keepdim=True)
    low, high = (lower - shift).exp(), (upper - shift).exp()
    width = upper - lower
    chord = torch.where(width > 1e-4, (high - low) / width.clamp_min(1e-4), high)
    rest = (high - chord * upper).sum(1, keepdim=True)
    row = (chord.unsqueeze(1) @ -rows, (chord * -offset).sum(1, keepdim=True))
    # The largest value of the fused row is minus the smallest of its negative.
    total = rest - _backward(model, x, eps, bounds, -row[0], -row[1])
    # By chords the sum is at least exp(0 - shift), the label's own part; rounding may say otherwise.
    return (total.clamp_min(1e-30).log() + shift).squeeze(1)


def symbolic_margins(model: nn.Module, x: Tensor, eps: float, y: Tensor, *, symbolic: bool = True) -> Tensor:
    """Returns lower bounds of y_label - y_j by symbolic linear relaxation, [N, classes], with 0 at the label.

    The relaxation of an unstable ReLU has the slope u / (u - l) on both sides (Wang et al. 2018, "Efficient Formal
    Safety Analysis of Neural Networks", section 3.1; the same as Fast-Lin and DeepZ). With one slope, carrying the
    linear functions forward, as symbolic intervals do, and backward, as here, bounds the same.

    Args:
        model: A sequential network.
        x: Images [N, C, H, W] in [0, 1].
        eps: Radius in pixels of [0, 1].
        y: Labels.
        symbolic: Whether pre-activations are bounded in this way, too, or by intervals.
    """
    intervals = propagate(model, x, eps)
    layers = layers_of(model)
    if symbolic:
        pre: list[tuple[Tensor, Tensor]] = intervals.pre[:1]
        partial = Intervals(intervals.logits, intervals.center, intervals.radius, pre, intervals.last)
        affine = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d | nn.Linear)]
        # The first layer's intervals are exact, the last one's are the margins.
        for index, interval in zip(affine[1:-1], intervals.pre[1:], strict=True):
            pre.append(_symbolic_layer(model, layers[: index + 1], x, eps, partial, interval))
        intervals = partial
    rows, offset = margin_rows(intervals.last.weight, intervals.last.bias, y)
    return _backward(model, x, eps, intervals, rows, offset, parallel=True)


def _symbolic_layer(
    model: nn.Module,
    layers: list[nn.Module],
    x: Tensor,
    eps: float,
    bounds: Intervals,
    interval: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Returns bounds of the outputs of the last of `layers`: symbolic ones for neurons that `interval` leaves unstable.

    The others keep their intervals: they are stable for both, and only that matters to the layers behind.
    """
    lower, upper = (bound.flatten(1) for bound in interval)
    chosen = ((lower < 0) & (upper > 0)).any(0).nonzero().flatten()
    count = len(chosen)
    if not count:
        return interval
    unit = torch.zeros(count, lower.shape[1], device=x.device, dtype=x.dtype).scatter_(1, chosen[:, None], 1.0)
    rows = torch.cat([unit, -unit]).expand(len(x), -1, -1).reshape(len(x), 2 * count, *interval[0].shape[1:])
    found = _backward(model, x, eps, bounds, rows, x.new_zeros(len(x), 2 * count), parallel=True, layers=layers)
    tight = (
        lower.index_copy(1, chosen, found[:, :count].to(lower.dtype)),
        upper.index_copy(1, chosen, -found[:, count:].to(upper.dtype)),
    )
    return tight[0].view_as(interval[0]), tight[1].view_as(interval[1])


def _backward(
    model: nn.Module,
    x: Tensor,
    eps: float,
    bounds: Intervals,
    rows: Tensor,
    constant: Tensor,
    *,
    parallel: bool = False,
    layers: list[nn.Module] | None = None,
) -> Tensor:
    """Returns lower bounds of linear functions of the last hidden layer, [N, specs].

    One backward pass of linear relaxations to the pixels. The lower slope of an unstable ReLU is 1 where its upper
    bound exceeds the magnitude of its lower one, else 0.

    Args:
        model: A sequential network.
        x: Images.
        eps: Radius.
        bounds: Pre-activations.
        rows: Coefficients [N, specs, features].
        constant: Constants [N, specs].
        parallel: Whether the lower slope of an unstable ReLU is that of its upper one instead.
        layers: The layers to go back through, if not all but the last.
    """
    count, specs = rows.shape[:2]
    pre = list(bounds.pre)
    shape: torch.Size | None = None
    for layer in reversed(layers_of(model)[:-1] if layers is None else layers):
        if isinstance(layer, nn.Flatten):
            shape = pre[-1][0].shape[1:]
            rows = rows.reshape(count, specs, *shape)
        elif isinstance(layer, nn.ReLU):
            lower, upper = pre.pop()
            low, high = lower.clamp_max(0), upper.clamp_min(0)
            slope = (high / (high - low).clamp_min(1e-12)).unsqueeze(1)
            offset = (-low).unsqueeze(1) * slope
            adaptive = slope if parallel else (upper > -lower).to(rows.dtype).unsqueeze(1)
            rows = rows.view(count, specs, *lower.shape[1:])
            negative = rows.clamp_max(0)
            constant = constant + (negative * offset).flatten(2).sum(2)
            rows = rows.clamp_min(0) * adaptive + negative * slope
        else:
            bias = layer.bias
            if isinstance(layer, nn.Conv2d):
                assert isinstance(bias, Tensor)
                constant = constant + torch.einsum("nschw,c->ns", rows, bias)
                target = pre[-1][0].shape[1:] if pre else x.shape[1:]
                out = _transpose(layer, rows.flatten(0, 1), target)
                rows = out.view(count, specs, *target)
            else:
                assert isinstance(layer, nn.Linear)
                constant = constant + rows @ layer.bias
                rows = rows @ layer.weight
    lower, upper = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    center, radius = ((lower + upper) / 2).flatten(1), ((upper - lower) / 2).flatten(1)
    flat = rows.flatten(2)
    return (
        constant
        + torch.bmm(flat, center.unsqueeze(2)).squeeze(2)
        - torch.bmm(flat.abs(), radius.unsqueeze(2)).squeeze(2)
    )


def _transpose(layer: nn.Conv2d, rows: Tensor, target: torch.Size) -> Tensor:
    """Maps coefficients of a convolution's outputs to coefficients of its inputs."""
    padding = []
    for axis in (0, 1):
        stride, pad, kernel = layer.stride[axis], int(layer.padding[axis]), layer.kernel_size[axis]
        padding.append(target[1 + axis] - ((rows.shape[2 + axis] - 1) * stride - 2 * pad + kernel))
    return F.conv_transpose2d(rows, layer.weight, None, layer.stride, layer.padding, padding)  # type: ignore[arg-type]
