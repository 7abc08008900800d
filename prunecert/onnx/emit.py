"""Values into nodes of the normal network: a convolution where the rearrangement is one, else a linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prunecert.onnx.layers import DENSE, Layers, ReorderError
from prunecert.onnx.normal import Array, IntArray, UnsupportedNetworkError
from prunecert.onnx.rearranged import find_spread, find_window, image_shape, per_channel, present_per_channel
from prunecert.onnx.values import Float64Array, Shape, Term, Value, check_size

#: From this many weights on, a convolution that treats each channel alone is written in groups.
_GROUPED = 2**14
#: From this many weights on, places are repeated by two convolutions of a channel each, rather than by one matrix.
SPREAD = 2**20


class Emitter:
    """Writes values as nodes.

    Args:
        layers: The network so far.
    """

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    def node(self, value: Value, shape: Shape | None = None) -> int:
        """Returns a node that holds a value.

        Args:
            value: The value.
            shape: Shape that the node is to have, [1, ...]; default: an image if the value is one, else flat.
        """
        target = shape or image_shape(value.shape) or (1, value.size)
        if shape is None and value.terms and all(term.index is None for term in value.terms):
            target = self.layers.nodes[value.terms[0].source].shape
        if not value.terms:
            zeros = np.zeros(value.size)
            return self.layers.constant((zeros if value.shift is None else value.shift).reshape(target))
        shift, parts = value.shift, []
        for group in _by_source(value.terms):
            number, shift = self._group(group, shift, target)
            parts.append(self.layers.reshape(number, target))
        if shift is not None:
            parts.append(self.layers.constant(shift.reshape(target)))
        result = parts[0]
        for part in parts[1:]:
            result = self.layers.add(result, part)
        return result

    def _group(
        self, terms: Sequence[Term], shift: Float64Array | None, target: Shape
    ) -> tuple[int, Float64Array | None]:
        """Writes terms of one source; returns the node and the constant that isn't in it yet."""
        term = terms[0]
        source = self.layers.nodes[term.source]
        if len(terms) == 1 and term.index is None:
            if term.scale is None and shift is None:
                return term.source, None
            rescaled = self._rescaled(term, shift)
            if rescaled is not None:
                return rescaled
            if term.scale is None:
                size = math.prod(target)
                if len(target) == 4 and shift is not None and source.shape == target:
                    channels = per_channel(shift, target)
                    if channels is not None:
                        return self._diagonal(term.source, np.ones(target[1]), channels), None
                if size > 1:
                    return term.source, shift
            elif len(source.shape) == 4:
                factor = per_channel(term.scale, source.shape)
                if factor is not None:
                    bias = None if shift is None else per_channel(shift, source.shape)
                    made_bias = np.zeros(len(factor)) if bias is None else bias
                    return self._diagonal(term.source, factor, made_bias), shift if bias is None else None
        if len(target) == 4 and len(source.shape) == 4:
            made_conv = self._windows(terms, shift, target, source.shape)
            if made_conv is not None:
                return made_conv
            if len(terms) == 1 and math.prod(target) * math.prod(source.shape) > SPREAD:
                spread = self._spread(term, target, source.shape)
                if spread is not None:
                    return spread, shift
        if len(target) == 4:
            self._consider_reorder(terms, target)
        return self._selected(terms, shift, math.prod(target)), None

    def _rescaled(self, term: Term, shift: Float64Array | None) -> tuple[int, Float64Array | None] | None:
        """Folds scale and shift into the node that nothing else reads, if it has weights."""
        node = self.layers.nodes[term.source]
        if not term.exclusive or node.operator not in ("Conv", "Gemm"):
            return None
        shape = node.shape if len(node.shape) == 4 else (*node.shape, 1, 1)
        factor = np.ones(shape[1]) if term.scale is None else per_channel(term.scale, shape)
        addend = np.zeros(shape[1]) if shift is None else per_channel(shift, shape)
        if factor is None or (addend is None and term.scale is None):
            return None
        zeros = np.zeros(shape[1])
        number = self.layers.rescaled(term.source, factor, zeros if addend is None else addend)
        return number, shift if addend is None else None

    def _diagonal(self, source: int, factor: Float64Array, shift: Float64Array) -> int:
        channels = len(factor)
        if channels**2 <= _GROUPED:
            return self.layers.conv(source, np.diag(factor)[:, :, None, None], shift)
        return self.layers.conv(source, factor.reshape(-1, 1, 1, 1), shift, groups=channels)

    def _windows(
        self, terms: Sequence[Term], shift: Float64Array | None, target: Shape, source: Shape
    ) -> tuple[int, Float64Array | None] | None:
        """Writes terms of one image as one convolution, if they are one."""
        candidates = [find_window(term, target, source) for term in terms]
        factors = [np.ones(math.prod(target)) if t.scale is None else t.scale for t in terms]
        scales = []
        for term, factor, window in zip(terms, factors, candidates, strict=True):
            if window is None:
                return None
            present = np.ones(len(factor), bool) if term.index is None else term.index >= 0
            channels = present_per_channel(factor, present, target)
            if channels is None:
                return None
            scales.append(channels)
        windows = [window for window in candidates if window is not None]
        if len({w.down.stride for w in windows} | {1}) > 2 or len({w.across.stride for w in windows} | {1}) > 2:
            return None
        strides = (max(w.down.stride for w in windows), max(w.across.stride for w in windows))
        if any(
            (w.down.stride != strides[0] and w.down.outputs > 1)
            or (w.across.stride != strides[1] and w.across.outputs > 1)
            for w in windows
        ):
            return None
        pads = (max(w.down.padding for w in windows), max(w.across.padding for w in windows))
        places = [[w.down.start + pads[0] for w in windows], [w.across.start + pads[1] for w in windows]]
        # The smallest kernel that holds all places and gives as many outputs, no more.
        kernel = (
            max(*places[0], source[2] + 2 * pads[0] - strides[0] * target[2]) + 1,
            max(*places[1], source[3] + 2 * pads[1] - strides[1] * target[3]) + 1,
        )
        same = all(np.array_equal(w.channels, np.arange(source[1])) for w in windows) and target[1] == source[1]
        grouped = same and target[1] * source[1] * math.prod(kernel) > _GROUPED
        inner = 1 if grouped else source[1]
        if min(kernel) < 1 or target[1] * inner * math.prod(kernel) > DENSE:
            return None
        weight = np.zeros((target[1], inner, *kernel))
        for window, factor in zip(windows, scales, strict=True):
            out = np.flatnonzero(window.channels >= 0)
            into = np.zeros(len(out), np.int64) if grouped else window.channels[out]
            weight[out, into, window.down.start + pads[0], window.across.start + pads[1]] += factor[out]
        bias = None if shift is None else per_channel(shift, target)
        number = self.layers.conv(
            terms[0].source,
            weight,
            np.zeros(target[1]) if bias is None else bias,
            strides,
            (*pads, *pads),
            groups=source[1] if grouped else 1,
        )
        return number, shift if bias is None else None

    def _spread(self, term: Term, target: Shape, source: Shape) -> int | None:
        """Repeats an image's places along both axes, or sets zeros between them.

        In C order each place is followed by what is put beside it, so that places are channels of one place, and each
        makes some channels; then rows are, [1, C * H, 1, W'].
        """
        spread = find_spread(term, target, source)
        if spread is None:
            return None
        _, channels, height, _ = source
        number, size = term.source, math.prod(source)
        if number == 0:
            # The input stays as it is: what is put together anew is a copy.
            ones = np.ones((channels, 1, 1, 1))
            number = self.layers.conv(0, ones, np.zeros(channels), groups=channels, exact=True)
        factor = np.ones(size) if spread.factor is None else spread.factor
        if len(spread.across) > 1 or spread.factor is not None:
            weight = np.outer(factor, spread.across).reshape(-1, 1, 1, 1)
            places = self.layers.reshape(number, (1, size, 1, 1))
            number = self.layers.conv(places, weight, np.zeros(len(weight)), groups=size, exact=spread.factor is None)
        number = self.layers.reshape(number, (1, channels * height, 1, target[3]))
        if len(spread.down) > 1:
            weight = np.tile(spread.down.astype(np.float64), channels * height).reshape(-1, 1, 1, 1)
            number = self.layers.conv(number, weight, np.zeros(len(weight)), groups=channels * height, exact=True)
        return self.layers.reshape(number, target)

    def _consider_reorder(self, terms: Sequence[Term], target: Shape) -> None:
        index = terms[0].index
        if not self.layers.reorder or len(terms) != 1 or terms[0].source != 0 or index is None:
            return
        if len(index) == math.prod(self.layers.shape) and np.array_equal(np.sort(index), np.arange(len(index))):
            raise ReorderError(index, target)

    def _selected(self, terms: Sequence[Term], shift: Float64Array | None, size: int) -> int:
        """Writes terms of one source as a linear layer."""
        source = terms[0].source
        inputs = math.prod(self.layers.nodes[source].shape)
        check_dense(self.layers, size, inputs, "A rearranged value")
        weight = np.zeros((size, inputs))
        for term in terms:
            index = np.arange(size) if term.index is None else term.index
            kept = np.flatnonzero(index >= 0)
            np.add.at(weight, (kept, index[kept]), 1.0 if term.scale is None else term.scale[kept])
        return self.layers.gemm(source, weight, np.zeros(size) if shift is None else shift)

    def linear(self, value: Value, weight: Array, bias: Float64Array) -> Value:
        """Returns weight @ value + bias, flat: permutations, factors and constants go into the weights.

        Args:
            value: [..., n], read flat.
            weight: [out, n].
            bias: [out].
        """
        if value.shift is not None:
            bias = bias + weight.astype(np.float64) @ value.shift
        terms = value.terms
        if len(terms) > 1 and all(term.index is None and term.scale is None for term in terms):
            terms = (Term(self.node(replace(value, shift=None))),)
        numbers: list[int] = []
        for term in terms:
            inputs = math.prod(self.layers.nodes[term.source].shape)
            matrix: Array = weight if term.scale is None else weight.astype(np.float64) * term.scale
            if term.index is not None:
                check_dense(self.layers, len(weight), inputs, "A rearranged value before a linear layer")
                kept = np.flatnonzero(term.index >= 0)
                chosen = term.index[kept]
                wide = np.zeros((inputs, len(weight)), matrix.dtype)
                if len(np.unique(chosen)) == len(chosen):
                    wide[chosen] = matrix.T[kept]
                else:
                    wide = wide.astype(np.float64)
                    np.add.at(wide, chosen, matrix.T[kept])
                matrix = wide.T
            numbers.append(self.layers.gemm(term.source, matrix, bias if not numbers else np.zeros(len(bias))))
        if not numbers:
            return Value((1, len(bias)), (), bias)
        result = numbers[0]
        for number in numbers[1:]:
            result = self.layers.add(result, number)
        return Value((1, len(bias)), (Term(result, exclusive=len(numbers) == 1),))

    def convolution(
        self,
        value: Value,
        weight: Array,
        bias: Float64Array,
        strides: tuple[int, int],
        pads: tuple[int, int, int, int],
        dilations: tuple[int, int],
        groups: int,
    ) -> Value:
        """Returns a convolution of an image; padding, selected channels and factors go into it where they can.

        Args:
            value: Of shape [1, C, H, W].
            weight: [out, C / groups, kh, kw].
            bias: [out].
            strides: Of both axes.
            pads: At the top, left, bottom, right.
            dilations: Of both axes.
            groups: Number of groups.
        """
        parts = self._before(value, weight, bias, pads, groups)
        if parts is None:
            source = self.node(value, value.shape)
            parts = [(source, weight, pads, groups)], bias
        numbers: list[int] = []
        for source, kernel, padding, parted in parts[0]:
            addend = parts[1] if not numbers else np.zeros(len(bias))
            numbers.append(self.layers.conv(source, kernel, addend, strides, padding, dilations, parted))
        result = numbers[0]
        for number in numbers[1:]:
            result = self.layers.add(result, number)
        return Value(self.layers.nodes[result].shape, (Term(result, exclusive=len(numbers) == 1),))

    def _before(
        self, value: Value, weight: Array, bias: Float64Array, pads: tuple[int, int, int, int], groups: int
    ) -> tuple[list[tuple[int, Array, tuple[int, int, int, int], int]], Float64Array] | None:
        """Returns what convolves the sources themselves: nodes, kernels, pads, groups; and the bias."""
        if not value.terms or (len(value.terms) > 1 and all(term.index is None for term in value.terms)):
            return None
        if value.shift is not None:
            channels = per_channel(value.shift, value.shape)
            if channels is None or any(pads):
                return None
            share = weight.shape[1]
            inputs = channels.reshape(groups, share)
            outs = weight.astype(np.float64).sum(axis=(2, 3)).reshape(groups, -1, share)
            bias = bias + np.einsum("goi,gi->go", outs, inputs).reshape(-1)
        parts = []
        for term in value.terms:
            shape = self.layers.nodes[term.source].shape
            window = find_window(term, value.shape, shape) if len(shape) == 4 else None
            if term.index is None and shape != value.shape:
                return None
            if window is None or (window.down.stride, window.across.stride) != (1, 1):
                return None
            down, across = window.down, window.across
            grown = (
                -down.start,
                -across.start,
                down.start + down.outputs - down.size,
                across.start + across.outputs - across.size,
            )
            if min(grown) < 0:
                return None
            present = np.ones(value.size, bool) if term.index is None else term.index >= 0
            factor = present_per_channel(
                np.ones(value.size) if term.scale is None else term.scale, present, value.shape
            )
            same = np.array_equal(window.channels, np.arange(shape[1])) and shape[1] == value.shape[1]
            if factor is None or (groups > 1 and not same):
                return None
            kernel: Array = weight
            if not np.all(factor[window.channels >= 0] == 1):
                spread = np.repeat(factor.reshape(groups, -1), len(weight) // groups, axis=0)
                kernel = weight.astype(np.float64) * spread[:, :, None, None]
            if not same:
                kernel = _onto_channels(kernel, window.channels, shape[1])
            parts.append(
                (
                    term.source,
                    kernel,
                    (pads[0] + grown[0], pads[1] + grown[1], pads[2] + grown[2], pads[3] + grown[3]),
                    groups,
                )
            )
        return parts, bias


def check_dense(layers: Layers, outputs: int, inputs: int, what: str) -> None:
    """Refuses a matrix that is too large, or is so together with those before.

    Args:
        layers: The network so far.
        outputs: Its rows.
        inputs: Its columns.
        what: What it would be for.
    """
    check_size(outputs)
    layers.dense += outputs * inputs
    if layers.dense > DENSE:
        raise UnsupportedNetworkError(
            f"{what} of {outputs:,} elements would need a matrix of {outputs * inputs:,} weights; allowed in all are "
            f"{DENSE:,}. Export the network without that operator, or with smaller layers."
        )


def _by_source(terms: Sequence[Term]) -> list[list[Term]]:
    groups: dict[int, list[Term]] = {}
    for term in terms:
        groups.setdefault(term.source, []).append(term)
    return list(groups.values())


def _onto_channels(weight: Array, channels: IntArray, inputs: int) -> Array:
    """Returns the kernel over the source's channels, of which channel i of the value reads ``channels[i]``."""
    wide = np.zeros((weight.shape[0], inputs, *weight.shape[2:]), np.float64)
    kept = np.flatnonzero(channels >= 0)
    np.add.at(wide.swapaxes(0, 1), channels[kept], weight[:, kept].swapaxes(0, 1))
    return wide.astype(weight.dtype) if len(np.unique(channels[kept])) == len(kept) else wide
