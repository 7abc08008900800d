"""How much rounding can raise a bound that auto_LiRPA has computed: an a-priori bound over the instance's input set.

Let u be the unit roundoff, γ_n = n u / (1 - n u) (Higham 2002, section 3.1), and m_l >= 0 a vector that no value of
layer l, and no computed bound of one, exceeds in magnitude. A bound by intervals or by CROWN is a sum along the layers:
of biases, intercepts and ends of intervals, times coefficients Λ_l. Slopes of ReLU's relaxations are in [0, 1] and
intercepts at most as large as the neuron's bounds, so |Λ_l| <= |A| |W_L| ... |W_(l+1)|. Three things go wrong:

* Λ_(l-1) = Λ_l W_l is a sum of as many products as a neuron has successors, and a forward pass one of as many as it has
  predecessors: either errs by γ_n |Λ_l| |W_l|, and what that multiplies is at most m_(l-1); likewise for biases and
  intercepts. Together r_l = γ_n (|W_l| m_(l-1) + |b_l|) for each layer, n the larger number and 16 more for what is
  done with a slope, an intercept, a centre and a radius. Weights that the reader has rounded (normalisation) add 2**-23
  to γ_n.
* The bounds of the hidden neurons, from which the relaxations are made, are such bounds themselves, too tight by E_l at
  most. A line made for [l, u] is on the wrong side of the ReLU on [l - E, u + E] by at most E: a chord's slope is at
  most 1, and so is that of the identity, or of 0, which stands for a neuron that seems stable. So E_l is r_l and what
  comes along |W_l| ... |W_(k+1)| from r_k and from E_k of every k < l, which by induction is r_l + 2 |W_l| E_(l-1).
* Bounds of hidden neurons by CROWN may exceed intervals; the same induction gives m_l = |b_l| + 2 |W_l| m_(l-1).

So one walk forwards with absolute weights, doubled at each ReLU, gives m and E, and |A| E_L + γ (|A| m_L + |b|) is what
a bound of a row is charged. Sums and residual branches are walked likewise; an optimised slope is in [0, 1] as any
other. Products that underflow add 2**-126 (2**-1022) each. Fast convolutions (Winograd, FFT) don't keep to γ_n: they
are not used in float64, nor on the CPU, so that on a GPU only a float64 bound is a proof.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prunecert.verifiers.base import Instance
from prunecert.verifiers.formats.onnx_torch import OnnxModule, _Combine, _Reshape

#: Unit roundoff, and the smallest normal number.
UNITS = {torch.float32: (2.0**-24, 2.0**-126), torch.float64: (2.0**-53, 2.0**-1022)}
#: Operations on a coefficient besides the sum of products.
_BESIDES = 16
#: Covers the rounding of this walk, in float64.
_OWN = 1.01

_Pair = tuple[torch.Tensor, torch.Tensor]


class Walk:
    """Absolute weights of a network, in float64.

    Args:
        module: The network; its weights are taken as exact but where a layer has the attribute `rounded`.
    """

    def __init__(self, module: OnnxModule) -> None:
        self._module = copy.deepcopy(module).double()
        for layer in self._module.modules():
            for parameter in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                parameter.data = parameter.data.abs()

    def charges(
        self,
        instances: Sequence[Instance],
        matrix: npt.NDArray[np.float64],
        offsets: npt.NDArray[np.float64],
        dtype: torch.dtype,
    ) -> npt.NDArray[np.float64]:
        """Returns what bounds in a type may be too high by, [images, rows]; infinite where nothing is known.

        Args:
            instances: Their input sets.
            matrix: Rows of the specification, [images, rows, classes].
            offsets: [images, rows].
            dtype: ``torch.float32`` or ``torch.float64``.
        """
        device = next(iter((*self._module.parameters(), *self._module.buffers(), torch.zeros(0)))).device
        reach = torch.from_numpy(np.stack([_reach(item) for item in instances])).to(device)
        reach = reach.reshape(len(instances), *self._module.input_shape)
        values: dict[str, _Pair] = {self._module.input_name: (reach, torch.zeros_like(reach))}
        with torch.no_grad():
            for result, key, arguments in self._module.steps:
                layer = self._module.layers[key]
                values[result] = self._step(layer, [values[name] for name in arguments], dtype)
        size, error = (item.cpu().numpy() for item in values[self._module.output_name])
        unit, _ = UNITS[dtype]
        with np.errstate(all="ignore"):
            weights = np.abs(matrix)
            summed = np.einsum("nrk,nk->nr", weights, size) + np.abs(offsets)
            charges = np.einsum("nrk,nk->nr", weights, error) + _gamma(matrix.shape[2] + _BESIDES, unit) * summed
        charges = np.asarray(_OWN * charges, dtype=np.float64)
        charges[~np.isfinite(charges)] = np.inf
        return charges

    def _step(self, layer: nn.Module, pairs: list[_Pair], dtype: torch.dtype) -> _Pair:
        unit, tiny = UNITS[dtype]
        size, error = pairs[0]
        if isinstance(layer, nn.Identity | _Reshape):
            return layer(size), layer(error)
        if isinstance(layer, nn.ReLU):
            return 2 * size, 2 * error
        if isinstance(layer, nn.MaxPool2d):
            return 2 * layer(size), 2 * layer(error)
        if isinstance(layer, _Combine):
            size, error = size + pairs[1][0], error + pairs[1][1]
            return size, error + _gamma(_BESIDES, unit) * size
        if isinstance(layer, nn.Linear | nn.Conv2d):
            terms = _terms(layer)
            grown = layer(size)
            error = layer(error) - (0 if layer.bias is None else layer(torch.zeros_like(error)))
        elif isinstance(layer, nn.AvgPool2d):
            terms = int(np.prod(layer.kernel_size))
            grown, error = layer(size), layer(error)
        else:
            # What this walk has no rule for has no bound of its rounding.
            infinite = torch.full_like(layer(size), torch.inf)
            return infinite, infinite
        rate = _gamma(terms + _BESIDES, unit) + (2.0**-23 if getattr(layer, "rounded", False) else 0.0)
        return grown, error + rate * grown + (terms + _BESIDES) * tiny


def _reach(instance: Instance) -> npt.NDArray[np.float64]:
    """Returns the largest magnitude of each input."""
    if instance.norm == "l2":
        # The ball isn't cut with the box.
        assert instance.center is not None
        return np.abs(instance.center.astype(np.float64)) + 1.001 * (instance.eps or 0.0)
    return np.maximum(np.abs(instance.lower), np.abs(instance.upper)).astype(np.float64)


def _terms(layer: nn.Linear | nn.Conv2d) -> int:
    """Returns the most products in a sum of a pass forwards or backwards."""
    if isinstance(layer, nn.Linear):
        return max(layer.in_features, layer.out_features) + 1
    area = int(np.prod(layer.kernel_size))
    return max(layer.in_channels, layer.out_channels) // layer.groups * area + 1


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit) if terms * unit < 0.5 else float("inf")


def certain(lower: npt.NDArray[np.float64], charges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns bounds less what they are charged; minus infinity where either is no number."""
    with np.errstate(invalid="ignore"):
        less = lower - charges
    less[np.isnan(less)] = -np.inf
    return less
