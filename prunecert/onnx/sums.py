"""Which terms of a value may become one layer: sums of weights that cancel would lose digits that nobody charges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunecert.onnx.normal import Array, IntArray
from prunecert.onnx.rounding import STEP, summed
from prunecert.onnx.values import Float64Array, Shape, Term, Value


@dataclass(frozen=True, eq=False)
class Constant:
    """What is to be added to terms: numbers in C order and how far they may be off; None: 0."""

    shift: Float64Array | None
    error: Float64Array | None

    def per_channel(self, shape: Shape) -> Float64Array | None:
        """Returns the largest error of each channel of an image of this shape."""
        return None if self.error is None else self.error.reshape(shape[1], -1).max(axis=1)


NOTHING = Constant(None, None)


def with_constant(value: Value) -> Value:
    """Returns the value with a constant, if only of zeros, where there is an error of one."""
    return replace(value, shift=np.zeros(value.size)) if value.error is not None and value.shift is None else value


def by_source(value: Value) -> list[list[Term]]:
    """Returns the terms of each source; those that would cancel in one weight are kept apart."""
    groups: dict[int, list[Term]] = {}
    for term in value.terms:
        groups.setdefault(term.source, []).append(term)
    parts: list[list[Term]] = []
    for group in groups.values():
        parts += [group] if len(group) == 1 or _adds_up(group, value.size) else [[term] for term in group]
    return parts


def _adds_up(terms: Sequence[Term], size: int) -> bool:
    """Whether no weight is a sum of terms that loses digits."""
    if len(terms) == 2 and not any(term.loose for term in terms):
        return True
    scales = [np.ones(size) if term.scale is None else term.scale for term in terms]
    if all((scale >= 0).all() for scale in scales) or all((scale <= 0).all() for scale in scales):
        return True
    entries = []
    for term in terms:
        index = np.arange(size) if term.index is None else term.index
        kept = np.flatnonzero(index >= 0)
        entries.append(index[kept] * size + kept)
    weights = np.concatenate(entries)
    return len(np.unique(weights)) == len(weights)


def loosest(terms: Sequence[Term]) -> float:
    """Returns the relative error of weights that are such terms' scales, or sums of them."""
    return max(term.loose for term in terms) + (0.0 if len(terms) == 1 else STEP * len(terms))


def onto_elements(matrix: Array, index: IntArray, inputs: int, loose: float) -> tuple[Array, float] | None:
    """Returns weights [out, inputs] of a node's elements for weights of elements that are taken from it.

    Args:
        matrix: [out, n].
        index: Which element of the node each of the n is, -1 for none.
        inputs: Elements of the node.
        loose: Relative error of the weights.

    Returns:
        The weights and their relative error; None where weights of one element cancel.
    """
    kept = np.flatnonzero(index >= 0)
    chosen = index[kept]
    wide = np.zeros((inputs, len(matrix)), matrix.dtype)
    if len(np.unique(chosen)) == len(chosen):
        wide[chosen] = matrix.T[kept]
        return wide.T, loose
    wide, sizes = wide.astype(np.float64), wide.astype(np.float64)
    np.add.at(wide, chosen, matrix.T[kept])
    np.add.at(sizes, chosen, np.abs(matrix.T[kept]))
    total = summed(wide, sizes, int(np.bincount(chosen).max()), loose)
    return None if total is None else (wide.T, total)


def onto_channels(weight: Array, channels: IntArray, inputs: int, loose: float) -> tuple[Array, float] | None:
    """Returns the kernel over a source's channels, of which channel i of the value reads ``channels[i]``.

    Args:
        weight: [out, n, kh, kw].
        channels: The source's channel for each of the n, -1 for none.
        inputs: Channels of the source.
        loose: Relative error of the weights.

    Returns:
        The kernel and its relative error; None where weights of one channel cancel.
    """
    flat = np.moveaxis(weight, 1, -1).reshape(-1, weight.shape[1])
    spread = onto_elements(flat, channels, inputs, loose)
    if spread is None:
        return None
    shape = (weight.shape[0], *weight.shape[2:], inputs)
    return np.moveaxis(spread[0].reshape(shape), -1, 1), spread[1]
