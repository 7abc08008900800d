"""Walks of rows back through a network over an l2 ball, in torch's float64, with all that rounding may do counted.

Rows of a tensor are replaced by rows of what it is computed from, down to the input; what becomes of ReLUs is for the
caller to say. As in `verifiers.rounding.lirpa`, computed coefficients are exact from the moment when they are computed:
what a layer's products are off is charged by the magnitudes that they multiply, and sums by theirs (Higham 2002,
section 3.1). What underflows is covered by 1e-200 as long as nothing is above 1e50.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from prunecert.verifiers.formats.onnx_torch import OnnxModule, _Combine, _Reshape
from prunecert.verifiers.rounding.absolute_layers import AbsoluteLayer, absolute

UNIT = 2.0**-53
#: Coefficients and magnitudes beyond which what underflows is no longer covered by `_TINY`.
HUGE, _TINY = 1e50, 1e-200
#: Operations on a number besides the sum of products.
_BESIDES = 16

#: Bounds of a tensor, lower and upper.
Corners = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class CutBall:
    """An input set: what of a ball lies in a box, flat float64.

    Args:
        center: Of the ball, in the box.
        radius: Its radius, at least 0.
        low: Lower corner.
        high: Upper corner.
    """

    center: torch.Tensor
    radius: float
    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, center: torch.Tensor, radius: float, low: torch.Tensor, high: torch.Tensor) -> CutBall:
        """Returns the set |x - center| <= radius, low <= x <= high; all is flat and exact."""
        # Of a centre outside of the box, the box's nearest point is no farther from any point of the box.
        center = torch.minimum(torch.maximum(center, low), high)
        return cls(center, float(radius) * (1 + 8 * UNIT) + 1e-300, low, high)


@dataclass(eq=False)
class KnownValues:
    """What is known of a tensor's values over the ball, each [1, ...], float64.

    Args:
        center: The value at the centre of the ball, as computed.
        drift: How far the true one may be from it.
        size: No value is larger.
        charge: What computing the coefficients of what it is made of may be off, for one unit of its own.
    """

    center: torch.Tensor
    drift: torch.Tensor
    size: torch.Tensor
    charge: torch.Tensor | None = None


@dataclass(eq=False)
class Sums:
    """Of each row of a walk, [rows]: its value so far, magnitudes, error, and the largest coefficient.

    The true value is above this one less `error` and what sums round; it alone has gradients.
    """

    value: torch.Tensor
    size: torch.Tensor
    error: torch.Tensor
    largest: torch.Tensor

    @classmethod
    def of(cls, constant: torch.Tensor) -> Sums:
        """Begins with a constant of each row, which is exact."""
        return cls(constant, constant.abs(), *(torch.zeros_like(constant) for _ in range(2)))

    def add(self, value: torch.Tensor, size: torch.Tensor) -> None:
        """Adds a summand and its magnitude."""
        self.value, self.size = self.value + value, self.size + size

    def lower(self, terms: float) -> torch.Tensor:
        """Returns lower bounds, [rows]: sums of so many terms, less what rounding may have raised them by."""
        value = self.value.detach()
        slack = 1.01 * (2.0 * gamma(terms + _BESIDES) * self.size + self.error) + _TINY
        bound = value - slack - 4 * UNIT * (value.abs() + slack)
        fine = (self.largest < HUGE) & (self.size < HUGE) & bound.isfinite()
        return torch.where(fine, bound, torch.full_like(bound, -torch.inf))


#: What becomes of a ReLU's input: of its name, coefficients of the ReLU, [rows, n], and the rows' sums; returns
#: coefficients of the input itself.
Relax = Callable[[str, torch.Tensor, Sums], torch.Tensor]


def takes(module: OnnxModule) -> bool:
    """Whether all of a network's layers can be walked through: those that have no maximum."""
    kinds = nn.Conv2d | nn.Linear | nn.AvgPool2d | nn.ReLU | nn.Identity | _Combine | _Reshape
    return module.starts_linear() and all(isinstance(layer, kinds) for layer in module.layers.values())


class BallWalk:
    """One network over one ball.

    Args:
        module: The network, see `takes`; its numbers are exact unless a layer is marked as rounded.
        ball: The input set.
        corners: Bounds of the inputs of ReLUs that hold in real arithmetic, by name, [1, ...] each.

    Attributes:
        values: What is known of each tensor, by name.
        terms: Summands of a walk at most.
    """

    def __init__(self, module: OnnxModule, ball: CutBall, corners: Mapping[str, Corners]) -> None:
        self.ball = ball
        self.module = copy.deepcopy(module).double()
        self._layers: dict[str, AbsoluteLayer] = {
            key: absolute(layer)
            for key, layer in self.module.layers.items()
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.AvgPool2d)
        }
        self._place = {result: place for place, (result, _, _) in enumerate(module.steps)}
        with torch.no_grad():
            self.values = self._forward(corners)
        self.terms = 4.0 * sum(own.size.numel() for own in self.values.values())

    def back(self, name: str, rows: torch.Tensor, sums: Sums, relax: Relax) -> torch.Tensor | None:
        """Walks rows of a tensor back to the input.

        Args:
            name: The tensor.
            rows: Coefficients of it, [rows, ...], exact.
            sums: Where biases and errors are added.
            relax: What becomes of ReLUs.

        Returns:
            Coefficients of the input, [rows, inputs]; None where nothing leads there.
        """
        linear: dict[str, torch.Tensor] = {name: rows}
        relu: dict[str, torch.Tensor] = {}
        for result, key, arguments in reversed(self.module.steps[: self._place[name] + 1]):
            if result not in linear and result not in relu:
                continue
            own, through = linear.pop(result, None), relu.pop(result, None)
            if through is not None:
                part = relax(result, through.flatten(1), sums).reshape(through.shape)
                own = part if own is None else self._sum(result, own, part, sums)
            assert own is not None
            _reach(sums, own)
            layer = self.module.layers[key]
            if isinstance(layer, nn.ReLU):
                self._add(relu, arguments[0], own, sums)
            elif isinstance(layer, _Combine):
                for argument in arguments:
                    self._add(linear, argument, own, sums)
            else:
                if key in self._layers:
                    self._charge(result, layer, own, sums)
                shape = (len(own), *self.values[arguments[0]].size.shape[1:])
                self._add(linear, arguments[0], _transposed(layer, own, shape), sums)
        end = linear.get(self.module.input_name)
        if end is None:
            return None
        _reach(sums, end)
        return end.flatten(1)

    def interval(self, name: str, corners: Mapping[str, Corners]) -> Corners:
        """Returns interval bounds of a tensor that hold in real arithmetic, [1, ...].

        Args:
            name: The tensor.
            corners: Bounds of inputs of ReLUs before it, by name, of any shape.
        """
        module, shape = self.module, (1, *self.module.input_shape)
        intervals: dict[str, Corners] = {
            module.input_name: (self.ball.low.reshape(shape), self.ball.high.reshape(shape))
        }
        for result, key, arguments in module.steps[: self._place[name] + 1]:
            layer, (low, high) = module.layers[key], intervals[arguments[0]]
            if key in self._layers:
                low, high = _interval(layer, self._layers[key], low, high)
            elif isinstance(layer, _Combine):
                other = intervals[arguments[1]]
                low, high = layer(low, other[0]), layer(high, other[1])
                low, high = low - 2 * UNIT * low.abs(), high + 2 * UNIT * high.abs()
            else:
                low, high = layer(low), layer(high)
            if result in corners:
                ends = (end.reshape(low.shape) for end in corners[result])
                low, high = torch.maximum(low, next(ends)), torch.minimum(high, next(ends))
            intervals[result] = low, high
        return intervals[name]

    def _forward(self, corners: Mapping[str, Corners]) -> dict[str, KnownValues]:
        """Runs the centre through the network, with errors and magnitudes."""
        module, ball = self.module, self.ball
        start = ball.center.reshape(1, *module.input_shape)
        size = torch.maximum(ball.low.abs(), ball.high.abs()).reshape(start.shape)
        values = {module.input_name: KnownValues(start, torch.zeros_like(start), size)}
        for result, key, arguments in module.steps:
            layer, first = module.layers[key], values[arguments[0]]
            if key in self._layers:
                values[result] = _weighted(layer, self._layers[key], first)
            elif isinstance(layer, _Combine):
                second = values[arguments[1]]
                center = layer(first.center, second.center)
                drift = first.drift + second.drift + 2 * UNIT * center.abs()
                values[result] = KnownValues(center, 1.01 * drift, 1.01 * (first.size + second.size))
            elif isinstance(layer, nn.ReLU):
                values[result] = KnownValues(layer(first.center), first.drift, first.size)
            else:
                values[result] = KnownValues(layer(first.center), layer(first.drift), layer(first.size))
            if result in corners:
                low, high = corners[result]
                values[result].size = torch.maximum(low.abs(), high.abs())
        return values

    def _add(self, target: dict[str, torch.Tensor], name: str, part: torch.Tensor, sums: Sums) -> None:
        target[name] = self._sum(name, target[name], part, sums) if name in target else part

    def _sum(self, name: str, one: torch.Tensor, other: torch.Tensor, sums: Sums) -> torch.Tensor:
        """Adds coefficients of a tensor, and charges what that rounds."""
        total = one + other
        sizes = total.detach().abs().flatten(1)
        sums.error = sums.error + 2 * UNIT * (sizes @ self.values[name].size.reshape(-1))
        return total

    def _charge(self, name: str, layer: nn.Module, own: torch.Tensor, sums: Sums) -> None:
        """Adds a layer's biases, and what its products may be off."""
        charge = self.values[name].charge
        assert charge is not None
        sizes = own.detach().abs().flatten(1)
        sums.error = sums.error + sizes @ charge.reshape(-1)
        bias = getattr(layer, "bias", None)
        if bias is not None:
            shape = (1, -1, *(1 for _ in own.shape[2:]))
            biases = bias.reshape(shape).expand(1, *own.shape[1:]).reshape(-1)
            sums.add(own.flatten(1) @ biases, sizes @ biases.abs())


def gamma(terms: float) -> float:
    """Bounds the relative error of a sum of so many products."""
    share = terms * UNIT
    return share / (1 - share)


def lengths(rows: torch.Tensor) -> torch.Tensor:
    """Bounds the l2 norms of rows from above."""
    return (rows.pow(2).sum(1) + 1e-300).sqrt() * (1 + 4 * gamma(rows.shape[1] + _BESIDES))


def _reach(sums: Sums, coefficients: torch.Tensor) -> None:
    """Takes in the largest magnitudes of coefficients; what is no number stays so."""
    sums.largest = torch.maximum(sums.largest, coefficients.detach().abs().flatten(1).amax(1))


def _weighted(layer: nn.Module, weights: AbsoluteLayer, first: KnownValues) -> KnownValues:
    """Returns what is known of a convolution's, a linear layer's or an average's result."""
    center, reach = layer(first.center), weights(first.size)
    forwards = gamma(weights.forwards + _BESIDES) + weights.rounded
    at = weights(first.center.abs() + first.drift)
    drift = 1.01 * (weights(first.drift) + forwards * (at + weights.bias)) + _TINY
    backwards = gamma(weights.backwards + _BESIDES) + weights.rounded
    charge = 1.01 * (backwards * reach + weights.rounded * weights.bias)
    return KnownValues(center, drift, 1.01 * (reach + weights.bias), charge)


def _interval(layer: nn.Module, weights: AbsoluteLayer, low: torch.Tensor, high: torch.Tensor) -> Corners:
    """Bounds a convolution's, a linear layer's or an average's result over a box."""
    center = 0.5 * low + 0.5 * high
    half = torch.maximum(high - center, center - low)
    middle, reach = layer(center), weights(center.abs() + half)
    rate = 2 * gamma(weights.forwards + _BESIDES) + weights.rounded
    slack = 1.01 * rate * (reach + weights.bias) + _TINY
    slack = slack + weights(half) * (1 + 2 * gamma(weights.forwards + _BESIDES))
    slack = slack + 4 * UNIT * (middle.abs() + slack)
    return middle - slack, middle + slack


def _transposed(layer: nn.Module, own: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Multiplies coefficients of a layer's result with its weights: [rows, ...] of its argument, of that shape."""
    if isinstance(layer, nn.Linear):
        return (own @ layer.weight).reshape(shape)
    if isinstance(layer, nn.Conv2d):
        weight, dilation, groups = layer.weight, _pair(layer.dilation), layer.groups
        padding = _pair(layer.padding)
    elif isinstance(layer, nn.AvgPool2d):
        area = _pair(layer.kernel_size)
        weight = torch.full((shape[1], 1, *area), 1.0 / (area[0] * area[1]), dtype=own.dtype, device=own.device)
        dilation, groups, padding = (1, 1), shape[1], (0, 0)
    else:
        return own.reshape(shape)
    stride = _pair(layer.stride)
    # What a pass forwards leaves over at the far edges.
    rest = [
        size - ((count - 1) * step - 2 * pad + spread * (kernel - 1) + 1)
        for size, count, step, pad, spread, kernel in zip(
            shape[2:], own.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True
        )
    ]
    return functional.conv_transpose2d(own, weight, None, stride, padding, rest, groups, dilation)


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, tuple):
        return int(value[0]), int(value[1])
    assert isinstance(value, int)
    return value, value
