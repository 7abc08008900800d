"""One walk back through the layers over an l2 ball: rows of a node in, lower bounds over the input set out.

For each unstable ReLU any coefficient μ of its input will do: what c relu(z) + a z - μ z costs at least over all that z
can be, which lies in a box and in a ball, goes into the bound (`minimum`), and μ z goes on. So the bound is a
Lagrangian dual of the network, concave in μ, and μ = a + s c + t with slopes s and shifts t, [rows, neurons] each. s is
CROWN's slope where nothing else is said, t is 0; a split of a ReLU does nothing but make its z's box smaller.

Rounding is accounted for as in `verifiers.sparse.walks`: computed coefficients are exact from the moment when they
are computed, and `Checker.charge` says what the products behind them may be off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.balls.minimum import minimise
from prunecert.verifiers.sparse.balls.products import pull, weighed
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from prunecert.verifiers.sparse.walks import UNIT, RowSums


@dataclass(frozen=True, eq=False)
class Ball:
    """An input set: what of a ball lies in a box.

    Args:
        center: Of the ball, flat float64, in the box.
        radius: Its radius, at least 0.
        low: Lower corner of the box, flat float64.
        high: Upper corner.
    """

    center: Float64Array
    radius: float
    low: Float64Array
    high: Float64Array


@dataclass(eq=False)
class Ranges:
    """What is known of the nodes' values over a ball, in real arithmetic; built node by node.

    Args:
        ball: The input set.
        bounds: Of the nodes so far.
        centers: A point near each node's value at the centre of the ball, [size].
        drifts: How far it may be from that value, likewise.
        radii: By node: how far its unstable neurons' values may be from there, in the l2 norm.
        unstable: By node: these neurons.
    """

    ball: Ball
    bounds: CheckedBounds
    centers: list[Float64Array]
    drifts: list[Float64Array]
    radii: dict[int, float] = field(default_factory=dict)
    unstable: dict[int, Int64Array] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Unstable ReLUs."""
        return sum(len(neurons) for neurons in self.unstable.values())


@dataclass(frozen=True, eq=False)
class Slopes:
    """Of the unstable neurons of a node: μ = a + slope c + shift, each [rows, neurons]."""

    slope: Float64Array
    shift: Float64Array


@dataclass(frozen=True, eq=False)
class Boxes:
    """Smaller boxes of unstable neurons' values, for subdomains.

    Args:
        domain: Which of them is a row's, [rows].
        low: By node, [boxes, neurons].
        high: Likewise.
    """

    domain: Int64Array
    low: Mapping[int, Float64Array]
    high: Mapping[int, Float64Array]


@dataclass(eq=False)
class Trace:
    """What a walk did, for a gradient: by node, the ReLUs' coefficients, slopes and minimisers, each [rows, neurons].

    Args:
        coefficients: c.
        slopes: s and t.
        points: Minimisers z of the node's part.
        inputs: Minimisers of the input's part, [rows, inputs].
    """

    coefficients: dict[int, Float64Array] = field(default_factory=dict)
    slopes: dict[int, Slopes] = field(default_factory=dict)
    points: dict[int, Float64Array] = field(default_factory=dict)
    inputs: Float64Array = field(default_factory=lambda: np.zeros((0, 0)))


class Walker:
    """Walks back over one ball.

    Args:
        checker: Of the network.
        ranges: Of the nodes before those that walks start from.
        balls: Whether hidden values are known to lie in balls, too; without, this is CROWN over an l2 ball.
    """

    def __init__(self, checker: Checker, ranges: Ranges, *, balls: bool = True) -> None:
        self.checker, self.ranges, self._balls = checker, ranges, balls
        nodes = checker.network.nodes
        self._biases = [node.bias.astype(np.float64) for node in nodes]
        self._terms = 4.0 * sum(node.size for node in nodes)

    def lower(
        self,
        start: int,
        rows: sparse.csr_array,
        constant: Float64Array,
        slopes: Mapping[int, Slopes] | None = None,
        boxes: Boxes | None = None,
        trace: Trace | None = None,
    ) -> Float64Array:
        """Bounds rows of a node's value from below.

        Args:
            start: The node; `ranges` knows all before it.
            rows: Coefficients of its value, [rows, size], taken as exact.
            constant: Added to each, [rows].
            slopes: By node; for one that is missing, CROWN's slopes.
            boxes: Of subdomains; None: none.
            trace: Filled, if there is one.

        Returns:
            Lower bounds over the ball, or a row's part of it, [rows].
        """
        count = rows.shape[0]
        domain = np.zeros(count, dtype=np.int64) if boxes is None else boxes.domain
        sums = RowSums.of(constant)
        linear: dict[int, Float64Array] = {}
        relu: dict[int, Float64Array] = {}
        with np.errstate(all="ignore"):
            self._through(start, rows, sums, linear, relu)
            for node in range(start - 1, 0, -1):
                if node not in linear and node not in relu:
                    continue
                own, through = linear.pop(node, None), relu.pop(node, None)
                if through is not None:
                    own = self._relaxed(node, own, through, sums, domain, slopes, boxes, trace)
                assert own is not None
                self._through(node, own, sums, linear, relu)
            self._input(linear.get(0), sums, domain, trace)
        return sums.lower(self._terms)

    def _through(
        self,
        node: int,
        rows: Float64Array | sparse.csr_array,
        sums: RowSums,
        linear: dict[int, Float64Array],
        relu: dict[int, Float64Array],
    ) -> None:
        """Replaces a node's value by what it is computed from."""
        value, size, error, largest = weighed(rows, self._biases[node], self.ranges.bounds.charges[node])
        sums.add(value, size)
        sums.charge(error)
        sums.reach(largest)
        pull(self.checker, node, rows, linear, relu)

    def _relaxed(
        self,
        node: int,
        own: Float64Array | None,
        through: Float64Array,
        sums: RowSums,
        domain: Int64Array,
        slopes: Mapping[int, Slopes] | None,
        boxes: Boxes | None,
        trace: Trace | None,
    ) -> Float64Array:
        """Returns coefficients of a node's value in place of those of it, `own`, and of its ReLU, `through`."""
        bounds, free = self.ranges.bounds, self.ranges.unstable[node]
        low, high = bounds.lower[node], bounds.upper[node]
        c = np.ascontiguousarray(through[:, free])
        # The rows are the walk's own.
        mu = np.multiply(through, (high > 0).astype(np.float64), out=through)
        chosen = self._crown(c, low[free], high[free]) if slopes is None or node not in slopes else slopes[node]
        part = chosen.slope * c + chosen.shift
        d = -part
        mu[:, free] = part
        if own is not None:
            mu += own
            d = np.ascontiguousarray(own[:, free] - mu[:, free])
            reach = np.maximum(np.abs(low), np.abs(high))
            sums.charge(4 * UNIT * ((np.abs(mu) + np.abs(own)) @ reach))
        if len(free):
            center = self.ranges.centers[node][free]
            radius = self.ranges.radii.get(node, np.inf) if self._balls else np.inf
            whole = low[free][None], high[free][None]
            corners = whole if boxes is None else (boxes.low[node], boxes.high[node])
            points = np.empty_like(c if trace is not None else c[:0])
            values, sizes = np.empty(len(c)), np.empty(len(c))
            minimise(c, d, domain, *corners, center, radius, values, sizes, points, trace is not None)
            sums.add(values, sizes)
            if trace is not None:
                trace.coefficients[node], trace.slopes[node], trace.points[node] = c, chosen, points
        return mu

    @staticmethod
    def _crown(c: Float64Array, low: Float64Array, high: Float64Array) -> Slopes:
        slope = np.where(c < 0, high / (high - low), (high > -low).astype(np.float64))
        return Slopes(slope, np.zeros_like(c))

    def _input(self, rows: Float64Array | None, sums: RowSums, domain: Int64Array, trace: Trace | None) -> None:
        ball = self.ranges.ball
        count = len(sums.value)
        rows = np.zeros((count, len(ball.center))) if rows is None else np.ascontiguousarray(rows)
        points = np.empty_like(rows if trace is not None else rows[:0])
        values, sizes = np.empty(count), np.empty(count)
        nothing = np.zeros((1, len(ball.center)))
        corners = ball.low[None], ball.high[None]
        whole = np.zeros_like(domain)
        minimise(
            nothing, rows, whole, *corners, ball.center, ball.radius, values, sizes, points, trace is not None
        )  # fmt: skip
        sums.add(values, sizes)
        if trace is not None:
            trace.inputs = points
