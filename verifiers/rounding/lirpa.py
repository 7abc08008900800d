r"""How much rounding can raise a bound that auto_LiRPA has computed: a running error bound of that very computation.

Let u be the unit roundoff and γ_n = n u / (1 - n u); a sum of n products in any order errs by at most γ_n times the sum
of their magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1), and products with a
weight of 0 are exact and don't count. The bounds are of layers z = W a + b and ReLUs a = max(z, 0); [l, h] are the
computed bounds of z, and every magnitude below is that of the box's own numbers (a running analysis, section 3.3),
which is why it is thousands of times smaller than products of γ's and norms would be.

For each tensor of the network there are, neuron by neuron,

* m, which no true value over the input set exceeds in magnitude, nor a computed end of an interval;
* H: its true values lie in the computed bounds, widened by H to both sides.

*Intervals.* From bounds of a, those of z are fl(W c + b) ∓ fl(|W| d) with centre c and radius d, |c| + d <= m. So H
of z is |W| H + γ_n (|W| m + |b|), n the products of a row and 16 more for c, d and the last sum. A ReLU keeps H where
h > -H, and is 0 in truth and in the bounds elsewhere: H = 0, and m = max(h + H, 0).

*CROWN.* A bound of a row is a sum of terms that comes about backwards. Let Λ_z and Λ_a be the coefficients as they were
computed, whatever error they have. At a true point, each step may lower Λ·values + sum too little, by at most:

* a layer: |Λ_z| (γ_n |W| m_a + γ_N |b|), n the products that meet in a coefficient of a, N the neurons, whose biases
  are summed. Only the rounding of this step counts, as what follows continues with the computed Λ_a;
* a ReLU: |Λ_a| (v + γ_16 m_z + γ_N t), t the largest intercept, min(-l, h). The line below has a slope in [0, 1] and
  goes through 0, so it holds everywhere; the line above was made for [l, h] and is on the wrong side of the ReLU by at
  most H on [l - H, h + H]: a chord's slope s is in [0, 1], and it is off by s H or (1 - s) H. So v = H, but 0 where the
  neuron is so stable that H changes nothing;
* a maximum: no element of its window is above it; what is taken to be the largest, or the largest h, may be too low by
  2 H of the window;
* the input: γ_N |Λ| m.

Each N has the number of steps added, for the sum over steps. Where the coefficients are known the charge of a row is
the sum of all that. Where they aren't, |Λ_a| <= |Λ_z| |W| and |Λ_z| <= |Λ_a| (0 for a dead neuron) turn the sums into
one walk forwards: G of the input is γ_N m, G of z is |W| G_a + γ_n |W| m_a + γ_N |b|, and likewise for the others.
Both hold up to the rounding of Λ itself, so that G is multiplied with the product of all steps' (1 + γ_n).
Hidden bounds by CROWN are such rows, too, of whatever tensor, so that then H is the larger of H and G. They may also be
looser than intervals, and intervals of later layers are made from them; so m is no less than their ends and H.

All this is monotone in m, H, h and -l. So one walk does for many images, over the hull of their bounds.

Weights that the reader has rounded add 2**-23 to γ. Products that underflow add 2**-126 (2**-1022) each, times what a
coefficient is multiplied with, and squares in the norm of a ball the root of that. Fast convolutions (Winograd, FFT)
don't keep to γ_n: they are not used in float64, nor on the CPU (`verifiers.adapters.lirpa.engine` switches NNPACK off),
so that on a GPU only a float64 bound is a proof.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prunecert.verifiers.base import Instance
from prunecert.verifiers.formats.onnx_torch import OnnxModule, _Combine, _Reshape
from prunecert.verifiers.rounding.absolute_layers import AbsoluteLayer, absolute

#: Unit roundoff, and the smallest normal number.
UNITS = {torch.float32: (2.0**-24, 2.0**-126), torch.float64: (2.0**-53, 2.0**-1022)}
#: Operations on a number besides the sum of products; also, how many layers may use one tensor.
_BESIDES = 16
#: Covers the rounding of this walk.
_OWN = 1.01
#: auto_LiRPA moves bounds by 1e-8 where a chord would have no length.
_NEAR = 1e-7

_Float64 = npt.NDArray[np.float64]


class Apart(enum.Enum):
    """Where images are walked each by itself: the tighter, the slower."""

    NOWHERE = enum.auto()
    #: In linear layers, where a walk costs little, and sums are long.
    LINEAR = enum.auto()
    EVERYWHERE = enum.auto()


@dataclass(frozen=True)
class Computed:
    """What a computation of bounds has left behind, for a batch of images.

    Args:
        bounds: Of the inputs of ReLUs, by the name of the ReLU's result: lower and upper, [n, ...].
        reaches: The larger magnitude of the bounds of whatever tensor has some, by its name, [n, ...].
        coefficients: Λ of each tensor, by its name: [rows, n, ...]; None where they aren't known, or where there are
            none.
        backward: Whether the rows are bounded backwards (CROWN), and not as intervals.
        hidden_backward: Whether bounds of hidden neurons may be so, too.
    """

    bounds: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    reaches: Mapping[str, torch.Tensor]
    coefficients: Mapping[str, torch.Tensor] | None
    backward: bool
    hidden_backward: bool


@dataclass(frozen=True)
class _Values:
    """What is known of a tensor, each [1, ...] or [n, ...], float64; see the module for the letters."""

    size: torch.Tensor
    hidden: torch.Tensor
    chain: torch.Tensor


class ChargeWalk:
    """Bounds the rounding errors of bounds of a network.

    Args:
        module: The network; its weights are taken as exact but where a layer has the attribute `rounded`.
    """

    def __init__(self, module: OnnxModule) -> None:
        self._module = module
        self._layers = {
            key: absolute(layer)
            for key, layer in module.layers.items()
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.AvgPool2d)
        }
        #: Results that linear layers alone use, if in another shape.
        self._linear: set[str] = set()
        for result, _, _ in reversed(module.steps):
            layers = [(name, module.layers[key]) for name, key, arguments in module.steps if result in arguments]
            if layers and all(
                isinstance(layer, nn.Linear) or (isinstance(layer, _Reshape) and name in self._linear)
                for name, layer in layers
            ):
                self._linear.add(result)
        users: dict[str, list[nn.Module]] = {}
        for _, key, arguments in module.steps:
            for name in arguments:
                users.setdefault(name, []).append(module.layers[key])
        self._crowded = {name for name, layers in users.items() if len(layers) > 1}
        #: Tensors that only ReLUs use, which have bounds of their own.
        self._bounded = {
            name
            for name, layers in users.items()
            if all(isinstance(layer, nn.ReLU) for layer in layers) and name != module.output_name
        }
        self._most_users = max((len(layers) for layers in users.values()), default=0)

    def charges(
        self,
        instances: Sequence[Instance],
        matrix: _Float64,
        offsets: _Float64,
        computed: Computed,
        dtype: torch.dtype,
        indices: Sequence[int] | None = None,
        apart: Apart = Apart.EVERYWHERE,
    ) -> _Float64:
        """Returns what bounds in a type may be too high by, [images, rows]; infinite where nothing is known.

        Args:
            instances: Their input sets.
            matrix: Rows of the specification, [images, rows, classes].
            offsets: [images, rows].
            computed: What bounding them has left behind.
            dtype: ``torch.float32`` or ``torch.float64``.
            indices: The images that are meant; None: all of them.
            apart: Where each image is walked by itself, and not with the others over their hull.
        """
        if self._most_users > _BESIDES:
            return np.full(offsets.shape, np.inf)
        with torch.no_grad(), np.errstate(all="ignore"):
            charges = _Charges(self, instances, matrix, offsets, computed, dtype, indices, apart).run()
        charges = np.asarray(_OWN * charges, dtype=np.float64)
        charges[~np.isfinite(charges)] = np.inf
        return charges

    def widths(self, instances: Sequence[Instance], computed: Computed, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Returns how far true values may lie outside of the bounds of ReLUs' inputs, by their names, [n, ...].

        Args:
            instances: Their input sets.
            computed: What bounding them has left behind.
            dtype: Type of the bounds.

        Returns:
            H of each; empty where nothing is known.
        """
        if self._most_users > _BESIDES:
            return {}
        count = len(instances)
        rows, offsets = np.zeros((count, 0, self._module.outputs)), np.zeros((count, 0))
        hidden = replace(computed, coefficients=None)
        with torch.no_grad(), np.errstate(all="ignore"):
            charges = _Charges(self, instances, rows, offsets, hidden, dtype, None, Apart.EVERYWHERE)
            charges.run()
        return {
            arguments[0]: _OWN * charges.values[arguments[0]].hidden
            for _, key, arguments in self._module.steps
            if isinstance(self._module.layers[key], nn.ReLU)
        }


class _Charges:
    """One walk; the arguments are those of `ChargeWalk.charges`."""

    def __init__(
        self,
        walk: ChargeWalk,
        instances: Sequence[Instance],
        matrix: _Float64,
        offsets: _Float64,
        computed: Computed,
        dtype: torch.dtype,
        indices: Sequence[int] | None,
        apart: Apart,
    ) -> None:
        self._walk, self._module, self._computed = walk, walk._module, computed
        self._device = next(iter((*self._module.parameters(), torch.zeros(0)))).device
        self._apart = apart
        self._index = None if indices is None else torch.tensor(list(indices), device=self._device)
        chosen = slice(None) if indices is None else list(indices)
        self._weights = torch.from_numpy(np.abs(matrix[chosen])).to(self._device)
        self._offsets = torch.from_numpy(np.abs(offsets[chosen])).to(self._device)
        reach = _reach(instances if indices is None else [instances[i] for i in indices])
        reach = reach if apart is Apart.EVERYWHERE else reach.max(axis=0, keepdims=True)
        self._reach = torch.from_numpy(reach).reshape(-1, *self._module.input_shape).to(self._device).double()
        self._unit, self._tiny = UNITS[dtype]
        balls = [item.eps or 0.0 for item in instances if item.norm == "l2"]
        if balls:
            self._tiny = float(np.sqrt(self._tiny)) * max(1.0, *balls)
        #: Of coefficients that underflow, [1 or n].
        self._lost = torch.zeros(1, dtype=torch.float64, device=self._device)
        #: How much larger computed coefficients may be than products of the layers' absolute weights.
        self._growth = 1 + self._gamma(_BESIDES)
        #: Additions in the sum over steps.
        self._steps = len(self._module.steps) + _BESIDES
        self._sum: torch.Tensor | None = None
        #: By tensor, once the walk has come to it.
        self.values: dict[str, _Values] = {}
        self._chained = computed.backward and (computed.coefficients is None or computed.hidden_backward)

    def run(self) -> _Float64:
        module, computed, size = self._module, self._computed, self._reach
        zero = torch.zeros_like(size)
        chain = self._gamma(size[0].numel() + self._steps) * size + size[0].numel() * self._tiny
        values = self.values = {module.input_name: _Values(size, zero, chain)}
        self._charge(module.input_name, chain)
        self._lose(1, size)
        for result, key, arguments in module.steps:
            step = self._step(result, key, arguments, [values[name] for name in arguments])
            values[result] = step if isinstance(module.layers[key], nn.ReLU) else self._hidden(result, step)
        end = values[module.output_name]
        rows = self._gamma(end.size[0].numel() + self._steps) * (self._rows(end.size) + self._offsets)
        if not computed.backward:
            rows = rows + self._rows(end.hidden)
        elif computed.coefficients is None:
            rows = rows + self._growth * self._rows(end.chain) + self._lost.unsqueeze(1)
        else:
            assert self._sum is not None
            rows = rows + self._sum.T + self._lost.unsqueeze(1)
        charges: _Float64 = rows.cpu().numpy()
        return charges

    def _gamma(self, terms: int) -> float:
        share = terms * self._unit
        return share / (1 - share) if share < 0.5 else float("inf")

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        """Multiplies the rows' absolute weights with [1 or n, classes]: [n, rows]."""
        return (self._weights * values.unsqueeze(1)).sum(2)

    def _charge(self, name: str, error: torch.Tensor) -> None:
        """Adds |Λ| error of a tensor to the rows' charges."""
        coefficients = self._computed.coefficients
        if not self._computed.backward or coefficients is None:
            return
        sizes = coefficients[name].detach()
        sizes = (sizes if self._index is None else sizes[:, self._index]).abs().flatten(2)
        # Rounded upwards by what the sum in the bounds' own type may lose; nothing is negative.
        factor = 1 + 4 * self._gamma(sizes.shape[2] + _BESIDES)
        vector = (factor * error).to(sizes.dtype).flatten(1)
        product = sizes @ vector[0] if len(vector) == 1 else torch.einsum("rnk,nk->rn", sizes, vector)
        product = product.double() + sizes.shape[2] * self._tiny
        self._sum = product if self._sum is None else self._sum + product

    def _lose(self, products: int, size: torch.Tensor) -> None:
        """Adds what coefficients may lose by underflow, of so many products each, over what they multiply."""
        if self._computed.backward:
            self._lost = self._lost + (products + _BESIDES) * self._tiny * (1 + size).flatten(1).sum(1)

    def _step(self, result: str, key: str, arguments: Sequence[str], values: list[_Values]) -> _Values:
        layer, first = self._module.layers[key], values[0]
        if isinstance(layer, nn.Identity | _Reshape):
            chain = layer(first.chain)
            if arguments[0] in self._walk._crowded:
                error = self._gamma(_BESIDES) * layer(first.size)
                self._charge(result, error)
                self._growth *= 1 + self._gamma(_BESIDES)
                chain = chain + error
            return _Values(layer(first.size), layer(first.hidden), chain)
        if isinstance(layer, nn.ReLU):
            return self._relu(result, first)
        if isinstance(layer, nn.MaxPool2d):
            size, hidden = layer(first.size), layer(first.hidden)
            area = int(np.prod(layer.kernel_size))
            rate = self._gamma(area + _BESIDES)
            self._growth *= 1 + rate
            error = 2 * hidden + (rate + self._gamma(size[0].numel() + self._steps)) * size
            self._charge(result, error)
            self._lose(area, first.size)
            self._lose(1, size)
            return _Values(size, hidden, layer(first.chain) + error)
        if isinstance(layer, _Combine):
            second = values[1]
            size = first.size + second.size
            error = self._gamma(_BESIDES) * size
            self._charge(result, error)
            self._growth *= 1 + self._gamma(_BESIDES)
            return _Values(size, first.hidden + second.hidden + error, first.chain + second.chain + error)
        if key in self._walk._layers:
            return self._linear(result, self._walk._layers[key], first)
        # What this walk has no rule for has no bound of its rounding.
        infinite = torch.full_like(layer(first.size), torch.inf)
        self._charge(result, infinite)
        return _Values(infinite, infinite, infinite)

    def _hidden(self, name: str, values: _Values) -> _Values:
        """Counts in that CROWN may have bounded a tensor; of ReLUs' results it only takes the bounds before over."""
        if not self._computed.hidden_backward:
            return values
        lost = self._lost.reshape(-1, *(1 for _ in values.chain.shape[1:]))
        hidden, size = torch.maximum(values.hidden, self._growth * values.chain + lost), values.size
        reach = self._computed.reaches.get(name)
        if reach is not None:
            reach = reach if self._index is None else reach[self._index]
            reach = reach.amax(0, keepdim=True) if len(size) == 1 else reach
            size = torch.maximum(size, reach.double() + hidden)
        return _Values(size, hidden, values.chain)

    def _linear(self, result: str, layer: AbsoluteLayer, first: _Values) -> _Values:
        rate = self._gamma(layer.forwards + _BESIDES) + layer.rounded
        tiny = (2 * layer.forwards + _BESIDES) * self._tiny
        if not self._computed.backward and result in self._walk._bounded:
            hidden = layer(first.hidden + rate * first.size) + rate * layer.bias + tiny
            return _Values(hidden, hidden, hidden)
        product = layer(first.size)
        hidden = layer(first.hidden) + rate * (product + layer.bias) + tiny
        size = product + layer.bias + hidden
        if not self._computed.backward:
            return _Values(size, hidden, hidden)
        back = self._gamma(layer.backwards + _BESIDES) + layer.rounded
        neurons = product[0].numel()
        self._growth *= 1 + back
        error = back * product + (self._gamma(neurons + self._steps) + layer.rounded) * layer.bias
        self._charge(result, error)
        self._lose(layer.backwards, first.size)
        self._lose(1, layer.bias + torch.zeros_like(product[:1]))
        # Without a chain this isn't read.
        chain = layer(first.chain) + error if self._chained else error
        return _Values(size, hidden, chain)

    def _relu(self, result: str, first: _Values) -> _Values:
        lower, upper = self._computed.bounds[result]
        if self._index is not None:
            lower, upper = lower[self._index], upper[self._index]
        if self._apart is Apart.NOWHERE or (self._apart is Apart.LINEAR and result not in self._walk._linear):
            lower, upper = lower.amin(0, keepdim=True), upper.amax(0, keepdim=True)
        lower, upper, hidden = lower.double(), upper.double(), first.hidden
        alive = (upper > -(hidden + _NEAR)) | (lower > -_NEAR)
        zero = torch.zeros((), dtype=torch.float64, device=upper.device)
        # What is no number stays none.
        after = torch.where(alive, hidden, zero) + 0 * (lower + upper)
        reach = (upper + hidden).clamp(min=0)
        if not self._computed.backward:
            return _Values(reach, after, after)
        size = torch.where(alive, torch.maximum(lower.abs(), upper.abs()) + hidden, zero)
        crossing = alive & (lower < hidden + _NEAR)
        neurons = upper[0].numel()
        intercept = torch.where(crossing, torch.minimum(-lower, upper).clamp(min=0) + _NEAR, zero)
        self._growth *= 1 + self._gamma(_BESIDES)
        error = (
            torch.where(crossing, after, zero)
            + self._gamma(_BESIDES) * size
            + self._gamma(neurons + self._steps) * intercept
        )
        self._charge(result, error)
        self._lose(2, size)
        chain = torch.where(alive, first.chain, zero) + error if self._chained else error
        return _Values(reach, after, chain)


def _reach(instances: Sequence[Instance]) -> npt.NDArray[np.floating]:
    """Returns the largest magnitude of each input, [n, ...]."""
    if instances[0].norm == "l2":
        # The ball isn't cut with the box.
        centers = np.stack([item.center for item in instances if item.center is not None]).astype(np.float64)
        return np.abs(centers) + 1.001 * max(item.eps or 0.0 for item in instances)
    lower, upper = np.stack([item.lower for item in instances]), np.stack([item.upper for item in instances])
    return np.maximum(np.abs(lower), np.abs(upper))


def certain(lower: _Float64, charges: _Float64) -> _Float64:
    """Returns bounds less what they are charged; minus infinity where either is no number."""
    with np.errstate(invalid="ignore"):
        less = lower - charges
    less[np.isnan(less)] = -np.inf
    return less
