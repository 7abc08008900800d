"""Rigorous lower bounds of a smooth network's values over a part of a box, by one walk back through its layers.

It is CROWN (Zhang et al. 2018) in float64 with each activation between two lines (`curves`), and with multipliers: in a
region in which l <= z <= u holds for a neuron, be it by a split or by a bound, v z - max(v l, v u) is at most 0 for any
real v, so that it may be added to what is bounded (β-CROWN: Wang et al. 2021, theorem 3.2, for cuts at any value).

Why the result holds in real arithmetic: coefficients are sums of K products, which err by at most γ_K times the sum of
their magnitudes in any order of summation (Higham 2002, section 3.1); the computed ones are taken as exact from there
on, and the error is charged to the constant (`Checker.charge`). So are the products with slopes, one rounding each, by
the largest value of what they multiply, and additions of two coefficients. Sums of constants are charged γ times their
magnitudes (`verifiers.sparse.walks`, which says what underflow does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from prunecert.verifiers.sparse.smooth import curves
from prunecert.verifiers.sparse.smooth.curves import Lines
from prunecert.verifiers.sparse.smooth.network import SmoothNetwork
from prunecert.verifiers.sparse.walks import UNIT, RowSums


class SmoothChecker(Checker):
    """A smooth network made ready for intervals and walks.

    Args:
        smooth: The network.
    """

    def __init__(self, smooth: SmoothNetwork) -> None:
        super().__init__(smooth.affine)
        self.smooth = smooth
        #: Roundings of a walk's constant, at most.
        self.roundings = 4.0 * sum(node.size for node in smooth.affine.nodes) + 4.0 * len(smooth.affine.nodes) + 8.0

    def activation(self, node: int, low: Float64Array, high: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Bounds a node's activation where its value is in [low, high]."""
        return curves.bounds(self.smooth.curves[node], low, high)


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the input box, and what holds there.

    Args:
        bounds: Of all nodes but the output, with charges of all.
        lines: Of the activations, by node.
    """

    bounds: CheckedBounds
    lines: dict[int, Lines]


@dataclass(frozen=True, eq=False)
class Walk:
    """What a walk has come to, for R rows.

    Args:
        lower: Lower bounds over the region, [R].
        inputs: Coefficients of the input, [R, inputs].
        coefficients: Of the activations, by node, [R, size].
    """

    lower: Float64Array
    inputs: Float64Array
    coefficients: dict[int, Float64Array] = field(default_factory=dict)


def walk(
    checker: SmoothChecker,
    start: int,
    rows: Float64Array,
    constant: Float64Array,
    region: Region,
    multipliers: Mapping[int, Float64Array] | None = None,
) -> Walk:
    """Bounds rows of a node's value from below.

    Args:
        checker: Of the network.
        start: The node.
        rows: Coefficients of its value, [R, size], exact.
        constant: What is added, [R], exact.
        region: Where.
        multipliers: v of the values of nodes before it that have activations, by node, [R, size].
    """
    with np.errstate(all="ignore"):
        return _walked(checker, start, rows, constant, region, multipliers or {})


def _walked(
    checker: SmoothChecker,
    start: int,
    rows: Float64Array,
    constant: Float64Array,
    region: Region,
    multipliers: Mapping[int, Float64Array],
) -> Walk:
    bounds = region.bounds
    linear: dict[int, Float64Array] = {start: rows}
    curved: dict[int, Float64Array] = {}
    coefficients: dict[int, Float64Array] = {}
    sums = RowSums.of(constant)
    for node in range(start, 0, -1):
        mu, lam = linear.pop(node, None), curved.pop(node, None)
        if lam is not None:
            low, high = bounds.lower[node], bounds.upper[node]
            reach = np.maximum(np.abs(low), np.abs(high))
            coefficients[node] = lam
            slope, shift = chosen(region.lines[node], lam)
            part, moved = lam * slope, lam * shift
            sums.add(moved.sum(axis=1), np.abs(moved).sum(axis=1))
            sums.charge(2 * UNIT * (np.abs(part) @ reach))
            sums.reach(np.abs(lam).max(axis=1, initial=0.0))
            v = multipliers.get(node)
            if v is not None:
                pull = np.where(v > 0, v * high, np.where(v < 0, v * low, 0.0))
                sums.add(-pull.sum(axis=1), np.abs(pull).sum(axis=1))
                part = part + v
                sums.charge(2 * UNIT * (np.abs(part) @ reach))
            if mu is None:
                mu = part
            else:
                mu = mu + part
                sums.charge(2 * UNIT * (np.abs(mu) @ reach))
        if mu is None:
            continue
        bias = checker.network.nodes[node].bias.astype(np.float64)
        sums.add(mu @ bias, np.abs(mu) @ np.abs(bias))
        sums.charge(np.abs(mu) @ bounds.charges[node])
        sums.reach(np.abs(mu).max(axis=1, initial=0.0))
        for product in checker.products[node]:
            target = curved if product.activated else linear
            back = np.asarray(mu @ product.matrix)
            before = target.get(product.source)
            target[product.source] = back if before is None else before + back
    inputs = linear.get(0, np.zeros((len(rows), len(bounds.lower[0]))))
    ends = np.where(inputs > 0, inputs * bounds.lower[0], inputs * bounds.upper[0])
    sums.add(ends.sum(axis=1), np.abs(ends).sum(axis=1))
    sums.reach(np.abs(inputs).max(axis=1, initial=0.0))
    return Walk(sums.lower(checker.roundings), inputs, coefficients)


def chosen(lines: Lines, coefficients: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Returns slopes and shifts of the lines that bound coefficient times curve from below: [R, n] each."""
    rising = coefficients > 0
    return (
        np.where(rising, lines.lower_slope, lines.upper_slope),
        np.where(rising, lines.lower_shift, lines.upper_shift),
    )


def follow(checker: SmoothChecker, region: Region, current: Walk, points: Float64Array) -> dict[int, Float64Array]:
    """Returns the values of nodes with activations when the walk's lines are followed from inputs, by node, [R, size].

    Args:
        checker: Of the network.
        region: Where.
        current: The walk.
        points: One input for each of its rows, [R, inputs].
    """
    with np.errstate(all="ignore"):
        values: dict[int, Float64Array] = {0: points}
        after: dict[int, Float64Array] = {}
        for node in range(1, checker.last):
            total = np.tile(checker.network.nodes[node].bias.astype(np.float64), (len(points), 1))
            for product in checker.products[node]:
                inputs = after.get(product.source) if product.activated else values[product.source]
                if inputs is not None:
                    total = total + inputs @ product.matrix.T
            values[node] = total
            if node in current.coefficients:
                slope, shift = chosen(region.lines[node], current.coefficients[node])
                after[node] = slope * total + shift
        return {node: values[node] for node in current.coefficients}
