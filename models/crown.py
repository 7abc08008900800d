"""CROWN's backward pass for training: linear relaxations from the margins to the pixels, over interval pre-activations.

Differentiable, and no certificate either: see `models.bounds`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.bounds import Intervals, margin_rows, propagate
from prunecert.models.graph import PoolWindows, padding_of, windows_of
from prunecert.models.networks.grafted import GraftedReLU
from prunecert.models.norms import per_channel

#: Lower and upper pre-activations of each ReLU, in order.
Pre = list[tuple[Tensor, Tensor]]


def crown_ibp_margins(model: nn.Module, x: Tensor, eps: float, bounds: Intervals, y: Tensor) -> Tensor:
    """Returns lower bounds of y_label - y_j by CROWN-IBP (Zhang et al. 2020, section 3), [M, classes].

    Args:
        model: The network.
        x: Images.
        eps: Radius in pixels of [0, 1].
        bounds: What `propagate` gave for these, for the first M of them.
        y: Labels.
    """
    rows, constant = margin_rows(bounds.last, y[: bounds.count])
    return _backward(x[: bounds.count], eps, bounds, bounds.pre, rows, constant)


def fused_cross_entropy(model: nn.Module, x: Tensor, eps: float, bounds: Intervals, y: Tensor) -> Tensor:
    """Returns upper bounds of the cross-entropy over the box, [M], by loss fusion (Xu et al. 2020, section 3.3).

    The cross-entropy is log of the sum over j of exp(z_j) with z_j = y_j - y_label. Each exp is bounded above by its
    chord over the interval bounds of z_j, so that the sum is one linear function of the last hidden layer, and one row
    goes back through the network instead of one a class.
    """
    rows, offset = margin_rows(bounds.last, y[: bounds.count])
    middle = -(torch.bmm(rows, bounds.center.unsqueeze(2)).squeeze(2) + offset)
    spread = torch.bmm(rows.abs(), bounds.radius.unsqueeze(2)).squeeze(2)
    lower, upper = middle - spread, middle + spread
    # Divided by exp(shift), so that nothing overflows.
    shift = upper.detach().amax(1, keepdim=True)
    low, high = (lower - shift).exp(), (upper - shift).exp()
    width = upper - lower
    chord = torch.where(width > 1e-4, (high - low) / width.clamp_min(1e-4), high)
    rest = (high - chord * upper).sum(1, keepdim=True)
    row, constant = (chord.unsqueeze(1) @ -rows, (chord * -offset).sum(1, keepdim=True))
    # The largest value of the fused row is minus the smallest of its negative.
    total = rest - _backward(x[: bounds.count], eps, bounds, bounds.pre, -row, -constant)
    # By chords the sum is at least exp(0 - shift), the label's own part; rounding may say otherwise.
    return (total.clamp_min(1e-30).log() + shift).squeeze(1)


def symbolic_margins(
    model: nn.Module, x: Tensor, eps: float, y: Tensor, *, symbolic: bool = True, clean: Tensor | None = None
) -> Tensor:
    """Returns lower bounds of y_label - y_j by symbolic linear relaxation, [N, classes], with 0 at the label.

    The relaxation of an unstable ReLU has the slope u / (u - l) on both sides (Wang et al. 2018, "Efficient Formal
    Safety Analysis of Neural Networks", section 3.1; the same as Fast-Lin and DeepZ). With one slope, carrying the
    linear functions forward, as symbolic intervals do, and backward, as here, bounds the same.

    Args:
        model: The network.
        x: Images [N, C, H, W] in [0, 1].
        eps: Radius in pixels of [0, 1].
        y: Labels.
        symbolic: Whether pre-activations are bounded in this way, too, or by intervals.
        clean: The images whose batch statistics batch norm takes in training mode; `x` by default.
    """
    bounds = propagate(model, x, eps, clean=clean)
    pre = bounds.pre
    if symbolic:
        # The first layer's intervals are exact, the last one's are the margins.
        tight = pre[:1]
        for relu, interval in zip(bounds.graph.relus[1:], pre[1:], strict=True):
            source = bounds.graph.nodes[relu].inputs[0]
            tight.append(_symbolic_layer(source, x, eps, bounds, tight, interval))
        pre = tight
    return _backward(x, eps, bounds, pre, *margin_rows(bounds.last, y), parallel=True)


def _symbolic_layer(
    source: int, x: Tensor, eps: float, bounds: Intervals, pre: Pre, interval: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Returns bounds of the outputs of the node `source`: symbolic ones for neurons that `interval` leaves unstable.

    The others keep their intervals: they are stable for both, and only that matters to the layers behind.
    """
    lower, upper = (bound.flatten(1) for bound in interval)
    chosen = ((lower < 0) & (upper > 0)).any(0).nonzero().flatten()
    count = len(chosen)
    if not count:
        return interval
    unit = torch.zeros(count, lower.shape[1], device=x.device, dtype=x.dtype).scatter_(1, chosen[:, None], 1.0)
    rows = torch.cat([unit, -unit]).expand(len(x), -1, -1).reshape(len(x), 2 * count, *interval[0].shape[1:])
    tighter = _backward(x, eps, bounds, pre, rows, x.new_zeros(len(x), 2 * count), parallel=True, source=source)
    tight = (
        lower.index_copy(1, chosen, tighter[:, :count].to(lower.dtype)),
        upper.index_copy(1, chosen, -tighter[:, count:].to(upper.dtype)),
    )
    return tight[0].view_as(interval[0]), tight[1].view_as(interval[1])


def _backward(
    x: Tensor,
    eps: float,
    bounds: Intervals,
    pre: Pre,
    rows: Tensor,
    constant: Tensor,
    *,
    parallel: bool = False,
    source: int | None = None,
) -> Tensor:
    """Returns lower bounds of linear functions of one node's output, [N, specs].

    One backward pass of linear relaxations to the pixels. The lower slope of an unstable ReLU is 1 where its upper
    bound exceeds the magnitude of its lower one, else 0. Where two branches part, their coefficients add up.

    Args:
        x: Images.
        eps: Radius.
        bounds: The forward pass.
        pre: Pre-activations of the ReLUs up to `source`, at least.
        rows: Coefficients [N, specs, ...], of the node's shape.
        constant: Constants [N, specs].
        parallel: Whether the lower slope of an unstable ReLU is that of its upper one instead.
        source: The node; what the last affine layer takes from by default.
    """
    graph = bounds.graph
    source = graph.nodes[-1].inputs[0] if source is None else source
    boxes = dict(zip(graph.relus, pre, strict=False))
    waiting: dict[int, Tensor] = {source: rows}
    for index in range(source, 0, -1):
        if index not in waiting:
            continue
        node, rows = graph.nodes[index], waiting.pop(index)
        if node.kind == "relu":
            lines, straight = _through_lines(node.module, rows, boxes[index][0].shape[1:])
            rows, constant = _through_relu(rows, constant, *boxes[index], parallel=parallel)
            if lines is not None:
                rows, constant = rows + lines, constant + straight
        elif node.kind != "add":
            rows, constant = _through(bounds, index, rows, constant)
        for origin in node.inputs:
            waiting[origin] = waiting[origin] + rows if origin in waiting else rows
    flat = waiting[0].flatten(2)
    lower, upper = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    center, radius = ((lower + upper) / 2).flatten(1), ((upper - lower) / 2).flatten(1)
    return (
        constant
        + torch.bmm(flat, center.unsqueeze(2)).squeeze(2)
        - torch.bmm(flat.abs(), radius.unsqueeze(2)).squeeze(2)
    )


def _through_relu(
    rows: Tensor, constant: Tensor, lower: Tensor, upper: Tensor, *, parallel: bool
) -> tuple[Tensor, Tensor]:
    low, high = lower.clamp_max(0), upper.clamp_min(0)
    slope = (high / (high - low).clamp_min(1e-12)).unsqueeze(1)
    offset = (-low).unsqueeze(1) * slope
    adaptive = slope if parallel else (upper > -lower).to(rows.dtype).unsqueeze(1)
    rows = rows.view(*rows.shape[:2], *lower.shape[1:])
    negative = rows.clamp_max(0)
    constant = constant + (negative * offset).flatten(2).sum(2)
    return rows.clamp_min(0) * adaptive + negative * slope, constant


def _through_lines(module: nn.Module | None, rows: Tensor, shape: torch.Size) -> tuple[Tensor | None, Tensor]:
    """Takes coefficients back through grafted neurons, which are linear; the others' come back as 0."""
    if not isinstance(module, GraftedReLU):
        return None, rows.new_zeros(())
    slope, offset = module.lines()
    rows = rows.view(*rows.shape[:2], *shape)
    return rows * slope, (rows * offset).flatten(2).sum(2)


def _through(bounds: Intervals, index: int, rows: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    """Takes coefficients of an affine node's outputs back to its inputs."""
    graph, node = bounds.graph, bounds.graph.nodes[index]
    if node.kind == "flatten":
        return rows.reshape(*rows.shape[:2], *bounds.shapes[node.inputs[0]]), constant
    if node.kind == "norm":
        if index in graph.folds:
            # The weights before it hold its factors and offsets.
            return rows, constant
        scale, shift = bounds.scales[index]
        whole = rows.flatten(0, 1)
        constant = constant + (whole * per_channel(shift, whole)).flatten(1).sum(1).view_as(constant)
        return (whole * per_channel(scale, whole)).view_as(rows), constant
    target = bounds.shapes[node.inputs[0]]
    if node.kind == "pool":
        return _unpool(windows_of(node.module, target[1:], node.name), rows, target), constant
    weight, bias = bounds.weights[index]
    if not isinstance(node.module, nn.Conv2d):
        return rows @ weight, constant if bias is None else constant + rows @ bias
    if bias is not None:
        constant = constant + torch.einsum("nschw,c->ns", rows, bias)
    conv = node.module
    before, after = padding_of(conv)
    missing = _missing(rows, target, conv.stride, before, conv.kernel_size, conv.dilation)
    whole = F.conv_transpose2d(
        rows.flatten(0, 1),
        weight,
        None,
        conv.stride,
        before,
        [max(0, one) for one in missing],
        conv.groups,
        conv.dilation,
    )
    if before != after:
        # "same" with an even kernel: one more row or column of zeros stands at the end, and is no input.
        whole = whole[..., : target[1], : target[2]]
    return whole.reshape(*rows.shape[:2], *target), constant


def _unpool(windows: PoolWindows, rows: Tensor, target: torch.Size) -> Tensor:
    """Maps coefficients of an average pooling's outputs to those of its inputs."""
    kernel, stride, pads = windows.kernel, windows.stride, windows.padding
    whole = rows.flatten(0, 1)
    weight = whole.new_full((target[0], 1, *kernel), 1 / (kernel[0] * kernel[1]))
    padding = _missing(rows, target, stride, pads, kernel, (1, 1))
    whole = F.conv_transpose2d(whole, weight, None, stride, pads, padding, groups=target[0])
    return whole.view(*rows.shape[:2], *target)


def _missing(
    rows: Tensor,
    target: torch.Size,
    stride: tuple[int, ...],
    pads: tuple[int, ...],
    kernel: tuple[int, ...],
    dilation: tuple[int, ...],
) -> list[int]:
    """Returns the rows and columns of the input that no window reaches, which a transposed convolution must add."""
    return [
        target[1 + axis]
        - ((rows.shape[-2 + axis] - 1) * stride[axis] - 2 * pads[axis] + dilation[axis] * (kernel[axis] - 1) + 1)
        for axis in (0, 1)
    ]
