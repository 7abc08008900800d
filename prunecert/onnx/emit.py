"""Values into nodes of the normal network: a convolution where the rearrangement is one, else a linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prunecert.onnx.layers import DENSE, Layers, ReorderError, check_dense
from prunecert.onnx.normal import Array
from prunecert.onnx.rearranged import find_spread, find_window, image_shape, per_channel, present_per_channel
from prunecert.onnx.rounding import STEP, keeps_digits
from prunecert.onnx.sums import NOTHING, Constant, by_source, loosest, onto_channels, onto_elements, with_constant
from prunecert.onnx.values import Float64Array, Shape, Term, Value, check_products

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
        value = with_constant(value)
        if shape is None and value.terms and all(term.index is None for term in value.terms):
            target = self.layers.nodes[value.terms[0].source].shape
        if not value.terms:
            shift = np.zeros(value.size) if value.shift is None else value.shift
            return self.layers.constant(shift.reshape(target), value.error)
        left, parts = Constant(value.shift, value.error), []
        for group in by_source(value):
            number, left = self._group(group, left, target)
            parts.append(self.layers.reshape(number, target))
        if left.shift is not None:
            parts.append(self.layers.constant(left.shift.reshape(target), left.error))
        result = parts[0]
        for part in parts[1:]:
            result = self.layers.add(result, part)
        return result

    def _group(self, terms: Sequence[Term], constant: Constant, target: Shape) -> tuple[int, Constant]:
        """Writes terms of one source; returns the node and the constant that isn't in it yet."""
        term, shift = terms[0], constant.shift
        source = self.layers.nodes[term.source]
        if len(terms) == 1 and term.index is None:
            if term.scale is None and shift is None:
                return term.source, NOTHING
            rescaled = self._rescaled(term, constant)
            if rescaled is not None:
                return rescaled
            if term.scale is None:
                size = math.prod(target)
                if len(target) == 4 and shift is not None and source.shape == target:
                    channels = per_channel(shift, target)
                    if channels is not None:
                        error = constant.per_channel(target)
                        return self._diagonal(term.source, np.ones(target[1]), channels, 0.0, error), NOTHING
                if size > 1:
                    return term.source, constant
            elif len(source.shape) == 4:
                factor = per_channel(term.scale, source.shape)
                if factor is not None:
                    bias = None if shift is None else per_channel(shift, source.shape)
                    if bias is None:
                        return self._diagonal(term.source, factor, np.zeros(len(factor)), term.loose, None), constant
                    error = constant.per_channel(source.shape)
                    return self._diagonal(term.source, factor, bias, term.loose, error), NOTHING
        if len(target) == 4 and len(source.shape) == 4:
            written = self._windows(terms, constant, target, source.shape)
            if written is not None:
                return written
            if len(terms) == 1 and math.prod(target) * math.prod(source.shape) > SPREAD:
                spread = self._spread(term, target, source.shape)
                if spread is not None:
                    return spread, constant
        if len(target) == 4:
            self._consider_reorder(terms, target)
        return self._selected(terms, constant, math.prod(target)), NOTHING

    def _rescaled(self, term: Term, constant: Constant) -> tuple[int, Constant] | None:
        """Folds scale and shift into the node that nothing else reads, if it has weights."""
        node, shift = self.layers.nodes[term.source], constant.shift
        if not term.exclusive or node.operator not in ("Conv", "Gemm"):
            return None
        shape = node.shape if len(node.shape) == 4 else (*node.shape, 1, 1)
        factor = np.ones(shape[1]) if term.scale is None else per_channel(term.scale, shape)
        addend = np.zeros(shape[1]) if shift is None else per_channel(shift, shape)
        if factor is None or (addend is None and term.scale is None):
            return None
        if addend is None:
            return self.layers.rescaled(term.source, factor, np.zeros(shape[1]), term.loose), constant
        return self.layers.rescaled(term.source, factor, addend, term.loose, constant.per_channel(shape)), NOTHING

    def _diagonal(
        self, source: int, factor: Float64Array, shift: Float64Array, loose: float, error: Float64Array | None
    ) -> int:
        channels = len(factor)
        if channels**2 <= _GROUPED:
            return self.layers.conv(source, np.diag(factor)[:, :, None, None], shift, loose=loose, error=error)
        weight = factor.reshape(-1, 1, 1, 1)
        return self.layers.conv(source, weight, shift, groups=channels, loose=loose, error=error)

    def _windows(
        self, terms: Sequence[Term], constant: Constant, target: Shape, source: Shape
    ) -> tuple[int, Constant] | None:
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
        if 1 in target[2:]:
            # Along an axis of one place any stride does; equal ones are what every reader takes.
            longest = max(strides)
            strides = (longest if target[2] == 1 else strides[0], longest if target[3] == 1 else strides[1])
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
        bias = None if constant.shift is None else per_channel(constant.shift, target)
        number = self.layers.conv(
            terms[0].source,
            weight,
            np.zeros(target[1]) if bias is None else bias,
            strides,
            (*pads, *pads),
            groups=source[1] if grouped else 1,
            loose=loosest(terms),
            error=None if bias is None else constant.per_channel(target),
        )
        return number, constant if bias is None else NOTHING

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
            number = self.layers.conv(0, ones, np.zeros(channels), groups=channels)
        factor = np.ones(size) if spread.factor is None else spread.factor
        if len(spread.across) > 1 or spread.factor is not None:
            weight = np.outer(factor, spread.across).reshape(-1, 1, 1, 1)
            places = self.layers.reshape(number, (1, size, 1, 1))
            number = self.layers.conv(places, weight, np.zeros(len(weight)), groups=size, loose=term.loose)
        number = self.layers.reshape(number, (1, channels * height, 1, target[3]))
        if len(spread.down) > 1:
            weight = np.tile(spread.down.astype(np.float64), channels * height).reshape(-1, 1, 1, 1)
            number = self.layers.conv(number, weight, np.zeros(len(weight)), groups=channels * height)
        return self.layers.reshape(number, target)

    def _consider_reorder(self, terms: Sequence[Term], target: Shape) -> None:
        index = terms[0].index
        if not self.layers.reorder or len(terms) != 1 or terms[0].source != 0 or index is None:
            return
        if len(index) == math.prod(self.layers.shape) and np.array_equal(np.sort(index), np.arange(len(index))):
            raise ReorderError(index, target)

    def _selected(self, terms: Sequence[Term], constant: Constant, size: int) -> int:
        """Writes terms of one source as a linear layer."""
        source = terms[0].source
        inputs = math.prod(self.layers.nodes[source].shape)
        check_dense(self.layers, size, inputs, "A rearranged value")
        weight = np.zeros((size, inputs))
        for term in terms:
            index = np.arange(size) if term.index is None else term.index
            kept = np.flatnonzero(index >= 0)
            np.add.at(weight, (kept, index[kept]), 1.0 if term.scale is None else term.scale[kept])
        shift = np.zeros(size) if constant.shift is None else constant.shift
        return self.layers.gemm(source, weight, shift, loosest(terms), constant.error)

    def linear(self, value: Value, weight: Array, bias: Float64Array, loose: float = 0.0) -> Value:
        """Returns weight @ value + bias, flat: permutations, factors and constants go into the weights.

        Args:
            value: [..., n], read flat.
            weight: [out, n].
            bias: [out].
            loose: Relative error of the weights.
        """
        value = with_constant(value)
        error: Float64Array | None = None
        if value.shift is not None:
            wide = weight.astype(np.float64)
            addend, size = wide @ value.shift, np.abs(wide) @ np.abs(value.shift)
            error = (STEP * (value.size + 2) + loose) * (size + np.abs(bias)) + 2.0**-1000
            if value.error is not None:
                error = (error + np.abs(wide) @ value.error) * (1 + 2.0**-20)
            bias = bias + addend
        terms = value.terms
        if len(terms) > 1 and all(term.index is None and term.scale is None for term in terms):
            terms = (Term(self.node(replace(value, shift=None, error=None))),)
        matrices = [self._onto(term, weight, loose) for term in terms]
        if None in matrices:
            terms = (Term(self.node(replace(value, shift=None, error=None))),)
            matrices = [self._onto(term, weight, loose) for term in terms]
        numbers: list[int] = []
        for term, product in zip(terms, matrices, strict=True):
            assert product is not None
            first = not numbers
            addend, off = (bias, error) if first else (np.zeros(len(bias)), None)
            numbers.append(self.layers.gemm(term.source, product[0], addend, product[1], off))
        if not numbers:
            return Value((1, len(bias)), (), bias, error=error)
        result = numbers[0]
        for number in numbers[1:]:
            result = self.layers.add(result, number)
        return Value((1, len(bias)), (Term(result, exclusive=len(numbers) == 1),))

    def _onto(self, term: Term, weight: Array, loose: float) -> tuple[Array, float] | None:
        """Returns the weights of a term's node for weights of the term, and their error; None where they cancel."""
        matrix: Array = weight
        loose += term.loose
        if term.scale is not None:
            matrix = weight.astype(np.float64) * term.scale
            check_products(matrix, weight, term.scale)
            loose += 0.0 if keeps_digits(term.scale) else STEP
        if term.index is None:
            return matrix, loose
        inputs = math.prod(self.layers.nodes[term.source].shape)
        check_dense(self.layers, len(weight), inputs, "A rearranged value before a linear layer")
        return onto_elements(matrix, term.index, inputs, loose)

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
        value = with_constant(value)
        parts = self._before(value, weight, bias, pads, groups)
        if parts is None:
            source = self.node(value, value.shape)
            parts = [(source, weight, pads, 0.0)], bias, None
        numbers: list[int] = []
        for source, kernel, padding, loose in parts[0]:
            first = not numbers
            numbers.append(
                self.layers.conv(
                    source,
                    kernel,
                    parts[1] if first else np.zeros(len(bias)),
                    strides,
                    padding,
                    dilations,
                    groups,
                    loose=loose,
                    error=parts[2] if first else None,
                )
            )
        result = numbers[0]
        for number in numbers[1:]:
            result = self.layers.add(result, number)
        return Value(self.layers.nodes[result].shape, (Term(result, exclusive=len(numbers) == 1),))

    def _before(
        self, value: Value, weight: Array, bias: Float64Array, pads: tuple[int, int, int, int], groups: int
    ) -> tuple[list[tuple[int, Array, tuple[int, int, int, int], float]], Float64Array, Float64Array | None] | None:
        """Returns what convolves the sources themselves: nodes, kernels, pads, their errors; the bias and its error."""
        if not value.terms or (len(value.terms) > 1 and all(term.index is None for term in value.terms)):
            return None
        error: Float64Array | None = None
        if value.shift is not None:
            channels = per_channel(value.shift, value.shape)
            if channels is None or any(pads):
                return None
            share = weight.shape[1]
            inputs = channels.reshape(groups, share)
            wide = weight.astype(np.float64)
            outs, sizes = (part.sum(axis=(2, 3)).reshape(groups, -1, share) for part in (wide, np.abs(wide)))
            most = np.einsum("goi,gi->go", sizes, np.abs(inputs)).reshape(-1)
            error = STEP * (math.prod(weight.shape[1:]) + 4) * (most + np.abs(bias)) + 2.0**-1000
            if value.error is not None:
                off = value.error.reshape(groups, share, -1).max(axis=2)
                error = (error + np.einsum("goi,gi->go", sizes, off).reshape(-1)) * (1 + 2.0**-20)
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
            loose = term.loose
            if not np.all(factor[window.channels >= 0] == 1):
                spread = np.repeat(factor.reshape(groups, -1), len(weight) // groups, axis=0)
                kernel = weight.astype(np.float64) * spread[:, :, None, None]
                check_products(kernel, weight, np.broadcast_to(spread[:, :, None, None], kernel.shape))
                loose += 0.0 if keeps_digits(factor) else STEP
            if not same:
                spread_out = onto_channels(kernel, window.channels, shape[1], loose)
                if spread_out is None:
                    return None
                kernel, loose = spread_out
            parts.append(
                (
                    term.source,
                    kernel,
                    (pads[0] + grown[0], pads[1] + grown[1], pads[2] + grown[2], pads[3] + grown[3]),
                    loose,
                )
            )
        return parts, bias, error
