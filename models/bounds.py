"""Differentiable intervals for training, and the margins that follow from them.

Written for networks of convolutions, linear layers, batch norm, ReLUs, average pooling, sums and Flatten (see
`models.graph`), where it is several times faster than a general graph library. `models.crown` goes back through the
same networks. Nothing here is a certificate: verification runs on the ONNX file, elsewhere.

Batch norm is an affine map. In training mode its statistics are those of the clean images of the step, which ride along
(Shi et al. 2021, section 4.2); in evaluation the running ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunecert.errors import UserError
from prunecert.models.graph import ModuleGraph, ModuleNode, graph_of, refuse_uneven
from prunecert.models.networks.grafted import GraftedReLU
from prunecert.models.norms import apply_affine, chunks, folded, frozen_affine, normalise, per_channel, weights_of


@dataclass
class Intervals:
    """What one forward pass of intervals gives.

    Args:
        logits: Logits [N, classes] of the images that ride along.
        center: Centre of the last affine layer's input [M, features].
        radius: Its radius, at least 0.
        boxes: Centre and radius of the input of each ReLU, in order.
        last: The last affine layer.
        graph: The network's nodes.
        count: M, the number of images whose boxes were bounded: the first ones.
        points: Logits [N, classes] of further points, if there were any.
        weights: Weight and bias of each affine node before the last, batch norms behind them folded in.
        scales: Factor and offset of the channels of each batch norm that isn't folded.
        shapes: Shape of each node's output, without the batch axis.
    """

    logits: Tensor
    center: Tensor
    radius: Tensor
    boxes: list[tuple[Tensor, Tensor]]
    last: nn.Linear
    graph: ModuleGraph
    count: int
    points: Tensor | None = None
    weights: dict[int, tuple[Tensor, Tensor | None]] = field(default_factory=dict)
    scales: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    shapes: dict[int, torch.Size] = field(default_factory=dict)

    @property
    def pre(self) -> list[tuple[Tensor, Tensor]]:
        """Lower and upper pre-activations of each ReLU, in order; 0 for a grafted neuron, which isn't one."""
        bounds = []
        for index, (center, radius) in zip(self.graph.relus, self.boxes, strict=False):
            module = self.graph.nodes[index].module
            lower, upper = center - radius, center + radius
            if isinstance(module, GraftedReLU):
                lower, upper = (bound.masked_fill(module.grafted, 0.0) for bound in (lower, upper))
            bounds.append((lower, upper))
        return bounds


def boundable(model: nn.Module, shape: Sequence[int] | None = None) -> ModuleGraph:
    """Returns the network's graph if it can be bounded.

    Args:
        model: The network.
        shape: Of an image, if what only that shows is to be checked, too.

    Raises:
        UserError: It has a layer that these bounds don't handle; the message names it.
    """
    graph = graph_of(model)
    last = graph.nodes[-1]
    if not isinstance(last.module, nn.Linear):
        raise UserError(
            f"Training bounds networks that end in a linear layer; this one ends in {last.name!r} "
            f"({type(last.module).__name__})."
        )
    if shape is not None:
        refuse_uneven(model, shape)
    return graph


class _IntervalRelu(torch.autograd.Function):
    """ReLU of points, of centres and of radii: the first `count` of the batch are points, the rest are centres.

    One pass over a few images at a time: written as single operations on the whole batch it is bound by memory.
    """

    @staticmethod
    def forward(ctx: Any, carried: Tensor, radius: Tensor, count: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(carried, radius)
        ctx.count = count
        out, out_radius = torch.empty_like(carried), torch.empty_like(radius)
        torch.clamp_min(carried[:count], 0, out=out[:count])
        parts = (chunks(one) for one in (carried[count:], radius, out[count:], out_radius))
        for center, spread, out_center, out_spread in zip(*parts, strict=True):
            high, low = (center + spread).clamp_min_(0), (center - spread).clamp_min_(0)
            torch.add(high, low, out=out_center).mul_(0.5)
            torch.sub(high, low, out=out_spread).mul_(0.5)
        return out, out_radius

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        carried, radius = ctx.saved_tensors
        count, (grad, radius_grad) = ctx.count, grads
        out, out_radius = torch.empty_like(carried), torch.empty_like(radius)
        if count:
            out[:count] = torch.ops.aten.threshold_backward(grad[:count], carried[:count], 0)
        tensors = (carried[count:], radius, grad[count:], radius_grad, out[count:], out_radius)
        for center, spread, above, beside, out_center, out_spread in zip(*map(chunks, tensors), strict=True):
            high = torch.ops.aten.threshold_backward((above + beside).mul_(0.5), center + spread, 0)
            low = torch.ops.aten.threshold_backward((above - beside).mul_(0.5), center - spread, 0)
            torch.add(high, low, out=out_center)
            torch.sub(high, low, out=out_spread)
        return out, out_radius, None


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


def propagate(
    model: nn.Module,
    x: Tensor,
    eps: float,
    *,
    clean: Tensor | None = None,
    points: Tensor | None = None,
    count: int | None = None,
) -> Intervals:
    """Propagates the box [x - eps, x + eps] within [0, 1] (Gowal et al. 2018, section 3).

    Args:
        model: The network.
        x: Images [N, C, H, W] in [0, 1].
        eps: Radius in pixels of [0, 1].
        clean: The images that ride along: they give the logits, and in training mode batch norm's statistics; `x` by
            default.
        points: Further images that ride along, with the statistics of `clean`.
        count: How many boxes to bound, the first ones; all by default.

    Raises:
        UserError: The network has a layer that these bounds don't handle; see `boundable`.
    """
    shared = _shared.get()
    for one, images, radius, intervals in shared or ():
        if one is model and images is x and radius == eps:
            return intervals
    intervals = _propagate(model, x, eps, x if clean is None else clean, points, count)
    if shared is not None:
        shared.append((model, x, eps, intervals))
    return intervals


@dataclass
class _Carried:
    """What stands at a node: images that give statistics, points and centres as one batch, and radii."""

    rider: Tensor | None
    batch: Tensor
    radius: Tensor


def _propagate(
    model: nn.Module, x: Tensor, eps: float, clean: Tensor, points: Tensor | None, count: int | None
) -> Intervals:
    graph = boundable(model)
    boxed = x[:count]
    lower, upper = (boxed - eps).clamp_min(0), (boxed + eps).clamp_max(1)
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    # Without statistics to take, the clean images ride along with the centres: one product instead of two.
    apart = any(isinstance(node.module, _BatchNorm) and node.module.training for node in graph.nodes)
    beside = [one for one in (None if apart else clean, points) if one is not None]
    ahead = sum(map(len, beside))
    start = _Carried(clean if apart else None, torch.cat([*beside, center]) if beside else center, radius)
    last = graph.nodes[-1].module
    assert isinstance(last, nn.Linear)
    intervals = Intervals(clean, center, radius, [], last, graph, len(boxed))
    values: list[_Carried] = []
    for index, node in enumerate(graph.nodes[:-1]):
        values.append(_step(intervals, index, node, values, ahead, start))
        intervals.shapes[index] = values[-1].batch.shape[1:]
    end = values[graph.nodes[-1].inputs[0]]
    intervals.center, intervals.radius = end.batch[ahead:], end.radius
    intervals.logits = last(end.batch[: len(clean)] if end.rider is None else end.rider)
    if points is not None:
        intervals.points = last(end.batch[ahead - len(points) : ahead])
    return intervals


def _step(
    intervals: Intervals, index: int, node: ModuleNode, values: list[_Carried], ahead: int, start: _Carried
) -> _Carried:
    """Returns what stands behind a node; notes in `intervals` what going back will need."""
    if node.kind == "input":
        return start
    inputs = [values[one] for one in node.inputs]
    one, module = inputs[0], node.module
    rider = one.rider
    if node.kind == "add":
        two = inputs[1]
        sum_rider = None if rider is None or two.rider is None else rider + two.rider
        return _Carried(sum_rider, one.batch + two.batch, one.radius + two.radius)
    assert module is not None
    if node.kind == "relu":
        intervals.boxes.append((one.batch[ahead:], one.radius))
        batch, radius = _IntervalRelu.apply(one.batch, one.radius, ahead)  # type: ignore[no-untyped-call]
        if isinstance(module, GraftedReLU):
            grafted, (slope, offset) = module.grafted, module.lines()
            batch = torch.where(grafted, slope * one.batch + offset, batch)
            radius = torch.where(grafted, slope.abs() * one.radius, radius)
            return _Carried(None if rider is None else module(rider), batch, radius)
        if rider is not None:
            source = node.inputs[0]
            # Nobody else reads what an addition or a batch norm gave, nor do these keep it for their gradients.
            alone = intervals.graph.readers[source] == 1 and intervals.graph.nodes[source].kind in ("norm", "add")
            rider = rider.relu_() if alone else rider.relu()
        return _Carried(rider, batch, radius)
    if node.kind in ("flatten", "pool"):
        return _Carried(None if rider is None else module(rider), module(one.batch), module(one.radius))
    if node.kind == "affine":
        if index in intervals.graph.folded:
            # Its batch norm does the work for both: the weights depend on the statistics.
            return one
        return _affine(intervals, index, module, one, *weights_of(module))
    assert isinstance(module, _BatchNorm)
    place = intervals.graph.folds.get(index)
    before = None if place is None else intervals.graph.nodes[place].module
    if before is not None and rider is not None:
        rider = apply_affine(before, rider, *weights_of(before))
    if rider is not None and module.training:
        rider, scale, shift = normalise(module, rider)
    else:
        scale, shift = frozen_affine(module)
        rider = None if rider is None else rider * per_channel(scale, rider) + per_channel(shift, rider)
    if place is not None and before is not None:
        weights = folded(*weights_of(before), scale, shift)
        moved = _affine(intervals, place, before, _Carried(None, one.batch, one.radius), *weights)
        intervals.shapes[place] = moved.batch.shape[1:]
        return _Carried(rider, moved.batch, moved.radius)
    intervals.scales[index] = scale, shift
    factor = per_channel(scale, one.batch)
    return _Carried(rider, one.batch * factor + per_channel(shift, one.batch), one.radius * factor.abs())


def _affine(
    intervals: Intervals, index: int, layer: nn.Module, at: _Carried, weight: Tensor, bias: Tensor | None
) -> _Carried:
    intervals.weights[index] = weight, bias
    rider = None if at.rider is None else apply_affine(layer, at.rider, weight, bias)
    batch = apply_affine(layer, at.batch, weight, bias)
    return _Carried(rider, batch, apply_affine(layer, at.radius, weight.abs(), None))


def margin_rows(last: nn.Linear, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows of y_label - y_j over the last layer: weights [N, classes, features], biases [N, classes].

    The row j = label is zero, so that its margin is exactly 0, as a logit of the worst case should be.
    """
    weight = last.weight
    bias = weight.new_zeros(len(weight)) if last.bias is None else last.bias
    return weight[y].unsqueeze(1) - weight.unsqueeze(0), bias[y].unsqueeze(1) - bias.unsqueeze(0)


def interval_margins(bounds: Intervals, y: Tensor) -> Tensor:
    """Returns lower bounds of y_label - y_j by intervals, [M, classes], with 0 at the label.

    Args:
        bounds: Of M images.
        y: Labels of these, or of more: the first M count.
    """
    rows, offset = margin_rows(bounds.last, y[: bounds.count])
    return (
        torch.bmm(rows, bounds.center.unsqueeze(2)).squeeze(2)
        - torch.bmm(rows.abs(), bounds.radius.unsqueeze(2)).squeeze(2)
        + offset
    )
