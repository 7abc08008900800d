r"""Values of a network over a box as affine functions of numbers in [-1, 1], with all rounding on the safe side.

An input is x = c + r t with t in [-1, 1], and each unstable ReLU before the last hidden layer is kept on one line,
whatever the sign of its coefficient:

    relu(z) = a z + (h / 2) (1 + e),        e in [-1, 1],        h = max(-a l, (1 - a) u).

For a in [0, 1] relu(z) - a z is 0 or more, convex, and so at most h on [l, u]: such an e exists for every z. With
w = (t, e), one vector for each input and the same for all rows, a row of a node's value is

    row · z  =  coefficients · w + constant + error,        |error| <= errors.

The walk is that of `certify`, and so are its charges: computed coefficients are taken as exact, and what they may be
off is charged by what they multiply. ReLUs of one node, the last hidden one, may be left apart: what the walk has for
them then are coefficients of relu(z), and the function goes on without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int8Array, Int64Array
from prunecert.verifiers.sparse.certify import LANES64, Checker, grouped, push, sum_up
from prunecert.verifiers.sparse.live import Live
from prunecert.verifiers.sparse.node_bounds import TINY, CheckedBounds, gamma

_UNIT = 2.0**-53
_HUGE = 1e50


@dataclass(frozen=True, eq=False)
class NodeLines:
    """Lines of the unstable neurons before the last hidden layer, by node, in the order of `CheckedBounds.unstable`.

    Args:
        slopes: a, in [0, 1].
        halves: h / 2, rounded up; 0 where a neuron's phase is fixed, and its line exact.
    """

    slopes: dict[int, Float64Array]
    halves: dict[int, Float64Array]


def lines(bounds: CheckedBounds, slopes: dict[int, Float64Array], signs: dict[int, Int8Array]) -> NodeLines:
    """Returns the lines over the part of a box where some neurons' phases are fixed.

    Args:
        bounds: Of all nodes over the box.
        slopes: By node, those that free neurons' lines are to have.
        signs: By node: 1 active, -1 inactive, 0 free.

    Raises:
        ValueError: There are more or fewer of them than a node has unstable neurons.
    """
    all_slopes, halves = {}, {}
    for node, chosen in slopes.items():
        free, sign = bounds.unstable(node), signs[node]
        low, high = bounds.lower[node][free], bounds.upper[node][free]
        if chosen.shape != free.shape or sign.shape != free.shape:
            raise ValueError(f"slopes and phases of {chosen.shape} and {sign.shape} for {len(free)} unstable neurons")
        slope = np.where(sign == 0, np.clip(chosen, 0.0, 1.0), sign > 0)
        above = 0.5 * np.maximum(-slope * low, (1.0 - slope) * high) * (1.0 + 8 * _UNIT) + TINY
        all_slopes[node], halves[node] = slope, np.where(sign == 0, above, 0.0)
    return NodeLines(all_slopes, halves)


@dataclass(frozen=True, eq=False)
class AffineForms:
    """Rows as affine functions of W numbers in [-1, 1]: those of the inputs that vary, then those of ReLUs.

    Args:
        coefficients: [rows, W].
        constants: [rows].
        errors: [rows], how far a row may be from that; infinite where float64 doesn't hold it.
        apart: [rows, unstable neurons of the node that is left apart] coefficients of their ReLUs.
    """

    coefficients: Float64Array
    constants: Float64Array
    errors: Float64Array
    apart: Float64Array


def affine_forms(
    checker: Checker, bounds: CheckedBounds, start: int, rows: Float64Array, lines: NodeLines, apart: int
) -> AffineForms:
    """Walks rows of a node's value back to the inputs.

    Args:
        checker: Of the network.
        bounds: Of all nodes before `start`; they hold over the box. Without cuts.
        start: The node.
        rows: Coefficients of its value, [rows, size], taken as exact.
        lines: Of all unstable neurons before it, but for those of `apart`.
        apart: The node whose unstable neurons' ReLUs are left apart; -1: none.
    """
    count = len(rows)
    live = checker.live(bounds)
    if np.delete(rows, live.kept[start], axis=1).any():
        live = Live(checker.products, checker.raw | {start}, bounds.upper)
    linear = {start: grouped(rows[:, live.kept[start]])}
    relu: dict[int, Float64Array] = {}
    groups = linear[start].shape[0]
    numba.set_num_threads(checker.threads if groups > 1 else 1)
    # Value, magnitude and error of the constants, and the largest coefficient.
    sums = np.zeros((4, groups, LANES64))
    apart_lam = np.zeros((groups, len(bounds.unstable(apart)) if apart >= 0 else 0, LANES64))
    columns: dict[int, Float64Array] = {}
    with np.errstate(all="ignore"):
        for node in range(start, 0, -1):
            if node not in linear and node not in relu:
                continue
            mu, kept = linear.pop(node, None), live.kept[node]
            low, high = bounds.lower[node][kept], bounds.upper[node][kept]
            reach = np.maximum(np.abs(low), np.abs(high))
            if node in relu:
                through = relu.pop(node) * (high > 0)[:, None]
                free = np.flatnonzero((low < 0) & (high > 0))
                lam = through[:, free]
                if node == apart:
                    apart_lam, through[:, free] = lam, 0.0
                elif len(free):
                    kind = through[:, free] = lam * lines.slopes[node][:, None]
                    above = lam * lines.halves[node][:, None]
                    columns[node] = above
                    size = np.abs(above)
                    sums[0] += above.sum(axis=1)
                    sums[1] += size.sum(axis=1)
                    # `above` and what the slope leaves are rounded, each once.
                    sums[2] += 4 * _UNIT * (size.sum(axis=1) + np.einsum("gnk,n->gk", np.abs(kind), reach[free]))
                if mu is not None:
                    through = mu + through
                    sums[2] += 2 * _UNIT * np.einsum("gnk,n->gk", np.abs(through), reach)
                mu = through
            assert mu is not None
            sum_up(mu, checker.biases[node][kept], bounds.charges[node][kept], sums)
            for factor in live.factors(node):
                push(factor, mu, relu if factor.activated else linear)
        varying, inputs = _inputs(bounds, linear.get(0), groups, sums)
        parts = [inputs]
        for node in (node for node in checker.activated if node != apart):
            free = bounds.unstable(node)
            parts.append(columns.get(node, np.zeros((groups, len(free), LANES64))))
        flat = [part.transpose(0, 2, 1).reshape(groups * LANES64, -1)[:count] for part in parts]
        errors = 1.01 * (gamma(checker.terms) * sums[1] + sums[2]) + TINY
        errors[~(sums[3] < _HUGE) | ~(sums[1] < _HUGE) | ~np.isfinite(errors)] = np.inf
    assert len(varying) == inputs.shape[1]
    return AffineForms(
        np.concatenate(flat, axis=1),
        sums[0].reshape(-1)[:count].copy(),
        errors.reshape(-1)[:count].copy(),
        apart_lam.transpose(0, 2, 1).reshape(groups * LANES64, -1)[:count].copy(),
    )


def _inputs(
    bounds: CheckedBounds, coefficients: Float64Array | None, groups: int, sums: Float64Array
) -> tuple[Int64Array, Float64Array]:
    """Returns which inputs vary and the coefficients of their t, and adds the box's centre to the constants."""
    low, high = bounds.lower[0], bounds.upper[0]
    varying = np.flatnonzero(low < high)
    if coefficients is None:
        return varying, np.zeros((groups, len(varying), LANES64))
    center = 0.5 * low + 0.5 * high
    # At least the distance of either end from the computed centre.
    radius = np.maximum(high - center, center - low) * (1.0 + 4 * _UNIT)
    middle, ends = coefficients * center[:, None], coefficients * radius[:, None]
    sums[0] += middle.sum(axis=1)
    sums[1] += np.abs(middle).sum(axis=1) + np.abs(ends).sum(axis=1)
    return varying, ends[:, varying]
