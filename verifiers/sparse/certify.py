"""Check a dual solution: one float64 pass through the original layers, with every rounding error on the safe side.

A search that runs in float32, over a network composed in floating point, proves nothing by itself. What it leaves
behind for each leaf is a dual solution: phases that were fixed, slopes α, multipliers β. From those alone, and from
hidden bounds that hold, a lower bound of the specification over the leaf follows by walking backwards through the
layers once (β-CROWN: Wang et al. 2021, theorem 3.2). That walk is here, apart from the search.

Why the result holds in real arithmetic, the weights being taken as the float64 numbers they are. Let μ be the computed
coefficients of the pre-activations of the nodes that use a source a, and λ the computed coefficients of that source:
λ_j is a sum of K_j products. In any order of summation, with or without fused multiply-add, it errs by at most
γ_K · Σ |μ_i| |W_ij|, γ_K = K u / (1 - K u), u = 2^-53 (Higham 2002, section 3.1). The computed λ is then taken as
exact, and the error, at most γ_K · Σ_i |μ_i| Σ_j |W_ij| m_j with m_j >= |a_j|, is charged to the constant; the inner
sum is one vector for each node and box. Relaxation adds no error to coefficients: any μ will do that keeps its side:

- fixed active (z >= 0, by bounds or by a split with multiplier β >= 0): any μ <= λ, as λ z >= μ z;
- fixed inactive (z <= 0, likewise): any μ >= 0, as 0 >= μ z;
- free, λ >= 0: any 0 <= μ <= λ, as λ max(z, 0) >= μ z;
- free, λ < 0: λ max(z, 0) is concave, so μ z + d is below it on [l, u] once it is at both ends; d is rounded down;
- cut (l >= 0, `CheckedBounds.cuts`): any μ, and d = (λ - μ) l or, where λ < μ, (λ - μ) u, rounded down;
- inactive by its bounds, as most are: μ = 0 whatever λ is, which is not even summed up (`sparse.live`).

Sums of constants are charged γ times the sum of their magnitudes. Underflow errs by less than 1e-323 a product, which
the constant 1e-200 covers as long as no magnitude exceeds 1e50, and no neuron's 1e100; where one does, the bound is
minus infinity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.live import Live, LiveFactor
from prunecert.verifiers.sparse.llvm.row_scatter import scatter
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.node_bounds import TINY, CheckedBounds, Flags, Product, gamma, intervals, weight_error

Array = npt.NDArray[np.float64]
Signs = npt.NDArray[np.int8]

#: Rows that are walked back together: two AVX-512 registers of float64.
LANES64 = 16
_UNIT = 2.0**-53
_HUGE = 1e50
_LARGEST = 1e100


class Planes(NamedTuple):
    """Dual variables of the unstable neurons of one node, for rows in groups of `LANES64`.

    Args:
        sign: [groups, neurons, LANES64]; 1: split active, -1: split inactive, 0: free.
        alpha: Slopes of free neurons in [0, 1], likewise.
        beta: Multipliers of split neurons, 0 or more, likewise.
    """

    sign: Signs
    alpha: Array
    beta: Array


@numba.njit(cache=True, parallel=True)
def back(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], data: Array, coefficients: Array, out: Array
) -> None:
    """Adds matrix.T @ coefficients to out; both are [groups, neurons, LANES64]."""
    for group in numba.prange(coefficients.shape[0]):
        _back(indptr, indices, data, coefficients[np.int64(group)], out[np.int64(group)])


@numba.njit(cache=True)
def _back(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], data: Array, coefficients: Array, out: Array
) -> None:
    """Adds matrix.T @ coefficients to out for one group; rows of zeros are left out."""
    values, sums = coefficients.reshape(-1), out.reshape(-1)
    for row in range(len(indptr) - 1):
        filled = False
        for lane in range(LANES64):
            # Not a number isn't 0.
            if coefficients[row, lane] != 0.0:
                filled = True
        if filled:
            scatter(values, row * LANES64, indices, data, indptr[row], indptr[row + 1], sums, 0)


@numba.njit(cache=True)
def _least(a: float, b: float) -> float:
    """Returns the smaller one, or what is not a number."""
    return a if a < b or a != a else b


@numba.njit(cache=True)
def _most(a: float, b: float) -> float:
    """Returns the larger one, or what is not a number."""
    return a if a > b or a != a else b


@numba.njit(cache=True, parallel=True)
def _replace(
    coefficients: Array, free: npt.NDArray[np.int64], low: Array, high: Array, planes: Planes, shift: Array
) -> None:
    """Replaces relu(z) by z for free neurons, [groups, kept, LANES64], and writes what that adds to the constants."""
    signs, alphas, betas = planes.sign, planes.alpha, planes.beta
    for group in numba.prange(coefficients.shape[0]):
        for k in range(len(free)):
            l, u = low[free[k]], high[free[k]]  # noqa: E741 (the field's letters)
            chord = u / (u - l)
            for lane in range(LANES64):
                lam, sign, moved = coefficients[group, free[k], lane], signs[group, k, lane], 0.0
                beta = _most(betas[group, k, lane], 0.0)
                if sign > 0:
                    mu = _least(lam - beta, lam)
                elif sign < 0:
                    mu = beta
                elif lam < 0:
                    mu = lam * chord
                    # At z = l: 0 >= μ l + d; at z = u: λ u >= μ u + d.
                    at_low, at_high = -mu * l, (lam - mu) * u
                    moved = _least(at_low, at_high)
                    moved -= 8 * _UNIT * (abs(at_low) + (abs(lam) + abs(mu)) * u) + TINY
                else:
                    mu = _least(lam * _least(_most(alphas[group, k, lane], 0.0), 1.0), lam)
                coefficients[group, free[k], lane] = mu
                shift[group, k, lane] = moved


@numba.njit(cache=True, parallel=True)
def sum_up(mu: Array, bias: Array, charge: Array, sums: Array) -> None:
    """Adds mu * bias, |mu * bias|, |mu| * charge to sums[0], [1], [2] [3, groups, LANES64]; the largest |mu| to [3]."""
    for group in numba.prange(mu.shape[0]):
        for neuron in range(mu.shape[1]):
            for lane in range(LANES64):
                value = mu[group, neuron, lane]
                sums[0, group, lane] += value * bias[neuron]
                sums[1, group, lane] += abs(value * bias[neuron])
                sums[2, group, lane] += abs(value) * charge[neuron]
                # A NaN is not below the largest either.
                if not abs(value) <= sums[3, group, lane]:
                    sums[3, group, lane] = abs(value)


@numba.njit(cache=True, parallel=True)
def _concretise(coefficients: Array, low: Array, high: Array, sums: Array) -> None:
    """Adds the minimum over the box to sums[0], and the magnitudes of its terms to sums[1]."""
    for group in numba.prange(coefficients.shape[0]):
        for neuron in range(coefficients.shape[1]):
            for lane in range(LANES64):
                value = coefficients[group, neuron, lane]
                end = value * low[neuron] if value > 0 else value * high[neuron]
                sums[0, group, lane] += end
                sums[1, group, lane] += abs(end)


def grouped(rows: npt.NDArray[Any], lanes: int = LANES64) -> npt.NDArray[Any]:
    """Returns [rows, neurons] as [groups, neurons, lanes]; what is not filled is 0."""
    count, width = rows.shape
    groups = -(-count // lanes)
    padded = np.zeros((groups * lanes, width), dtype=rows.dtype)
    padded[:count] = rows
    return np.ascontiguousarray(padded.reshape(groups, lanes, width).transpose(0, 2, 1))


def push(factor: LiveFactor, mu: Array, target: dict[int, Array]) -> None:
    """Adds what coefficients of a node's value, [groups, kept, LANES64], make of a term's source."""
    if factor.source not in target:
        target[factor.source] = np.zeros((mu.shape[0], factor.width, LANES64))
    back(factor.starts, factor.columns, factor.weights, mu, target[factor.source])


class Checker:
    """A network made ready for rigorous backward passes.

    Args:
        network: Its weights are taken as exact.
        threads: For the products.
    """

    def __init__(self, network: Network, threads: int = 1) -> None:
        self.network = network
        self.threads = threads
        self.last = len(network.nodes) - 1
        self.activated = network.activated()
        #: Nodes whose values are used without ReLU, the input and the last one among them.
        self.raw = frozenset({0, self.last, *network.raw()})
        self.products: list[list[Product]] = []
        self.biases: list[Array] = []
        linear = [np.zeros(node.size) for node in network.nodes]
        relu = [np.zeros(node.size) for node in network.nodes]
        #: As many numbers at most as a walk sums up for a row.
        self.terms = 0.0
        for node in network.nodes:
            terms = []
            for term in node.terms:
                if term.activated and term.source == 0:
                    raise UnsupportedError(f"{network.name}: a ReLU on the input itself isn't taken")
                matrix = term.matrix.astype(np.float64)
                matrix.indptr = matrix.indptr.astype(np.int64)
                terms.append(Product(term.source, term.activated, matrix, abs(matrix), term.exact))
                counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
                (relu if term.activated else linear)[term.source] += counts
            self.products.append(terms)
            self.biases.append(node.bias.astype(np.float64))
            self.terms += 3.0 * node.size
        self._gammas = [(gamma(a), gamma(b)) for a, b in zip(linear, relu, strict=True)]

    def activation(self, node: int, low: Array, high: Array) -> tuple[Array, Array]:
        """Bounds what follows a node whose value is in [low, high]: its ReLU."""
        return np.maximum(low, 0.0), np.maximum(high, 0.0)

    def intervals(self, node: int, bounds: CheckedBounds, live: Flags | None = None) -> tuple[Array, Array]:
        """Returns interval bounds of a node from bounds of the nodes before it.

        Args:
            node: The node.
            bounds: Of these.
            live: Of which neurons; others' are infinite. None: of all.
        """
        own = self.network.nodes[node]
        sources = [self._source(product, bounds) for product in self.products[node]]
        return intervals(own.bias, own.bias_error, self.products[node], sources, live)

    def charge(self, node: int, bounds: CheckedBounds, upper: Array | None = None) -> Array:
        """Returns what one unit of |μ| of each neuron of a node is charged for the products behind it, [size].

        Args:
            node: The node.
            bounds: Of the nodes before it.
            upper: Upper bounds of its values; those that are 0 behind their ReLUs are charged roughly, as no walk
                passes them.
        """
        every = np.ones(self.network.nodes[node].size, dtype=np.bool_)
        live = every if upper is None else self.living(node, upper)
        total = self.network.nodes[node].bias_error.astype(np.float64)
        for product in self.products[node]:
            low, high = self._source(product, bounds)
            # What a ReLU puts out isn't negative.
            size = np.maximum(np.abs(low), np.abs(high))
            if not size.max(initial=0.0) < _LARGEST:
                # What a coefficient that underflows loses is multiplied by this.
                total[:] = np.inf
            product.reach(self._gammas[product.source][int(product.activated)] * size, live, total)
            if not product.exact:
                total += weight_error(product.magnitude @ size, size)
        return total * 1.01

    def living(self, node: int, upper: Array) -> Flags:
        """Says which neurons matter, by upper bounds of their values: not those that are 0 behind their ReLUs."""
        # Not a number matters.
        return np.ones(len(upper), dtype=np.bool_) if node in self.raw else ~(upper <= 0)

    def _source(self, product: Product, bounds: CheckedBounds) -> tuple[Array, Array]:
        """Bounds what a term multiplies."""
        low, high = bounds.lower[product.source], bounds.upper[product.source]
        return self.activation(product.source, low, high) if product.activated else (low, high)

    def live(self, bounds: CheckedBounds) -> Live:
        """Returns the network without the neurons that are 0 behind their ReLUs over a box; kept with its bounds."""
        if not bounds.alive or not bounds.alive[0].holds(self.products, bounds.upper):
            bounds.alive[:] = [Live(self.products, self.raw, bounds.upper)]
        return bounds.alive[0]

    def lower(
        self,
        start: int,
        rows: Array,
        bounds: CheckedBounds,
        planes: dict[int, Planes] | None = None,
        constant: Array | None = None,
    ) -> Array:
        """Bounds rows of a node's value from below.

        Args:
            start: The node.
            rows: Coefficients of its value, [rows, size], taken as exact.
            bounds: Of all nodes before `start`; they hold over the box.
            planes: Dual variables of the unstable neurons of nodes before it, in the order of
                `CheckedBounds.unstable`; for a node that is missing, CROWN's slopes: 1 where u >= -l, else 0.
            constant: What is added to each row, [rows].

        Returns:
            Lower bounds over the box (with splits: over its part), [rows].
        """
        count = len(rows)
        live = self.live(bounds)
        if np.delete(rows, live.kept[start], axis=1).any():
            live = Live(self.products, self.raw | {start}, bounds.upper)
        linear: dict[int, Array] = {start: grouped(rows[:, live.kept[start]])}
        relu: dict[int, Array] = {}
        groups = linear[start].shape[0]
        numba.set_num_threads(self.threads if groups > 1 else 1)
        # Value, magnitude, error and largest coefficient of each row.
        sums = np.zeros((4, groups, LANES64))
        if constant is not None:
            sums[0].reshape(-1)[:count] = constant
            sums[1] += np.abs(sums[0])
        for node in range(start, 0, -1):
            if node not in linear and node not in relu:
                continue
            mu, kept = linear.pop(node, None), live.kept[node]
            if node in relu:
                plane = None if planes is None else planes.get(node)
                through, shift = self._relax(relu.pop(node), node, kept, bounds, plane)
                sums[0] += shift.sum(axis=1)
                sums[1] += np.abs(shift).sum(axis=1)
                if mu is None:
                    mu = through
                else:
                    # A sum of two: the error is charged on the node's own value.
                    mu = mu + through
                    reach = np.maximum(np.abs(bounds.lower[node]), np.abs(bounds.upper[node]))[kept]
                    sums[2] += 2 * _UNIT * np.einsum("gnk,n->gk", np.abs(mu), reach)
            assert mu is not None
            sum_up(mu, self.biases[node][kept], bounds.charges[node][kept], sums)
            for factor in live.factors(node):
                push(factor, mu, relu if factor.activated else linear)
        if 0 in linear:
            _concretise(linear[0], bounds.lower[0], bounds.upper[0], sums)
        slack = 1.01 * (gamma(self.terms) * sums[1] + sums[2]) + TINY
        bound = sums[0] - slack - 4 * _UNIT * (np.abs(sums[0]) + slack)
        bound[~(sums[3] < _HUGE) | ~(sums[1] < _HUGE) | ~np.isfinite(bound)] = -np.inf
        result: Array = bound.reshape(-1)[:count]
        return result

    # What is infinite or not a number stays so, up to the bound, which then is minus infinity.
    @np.errstate(invalid="ignore", over="ignore")
    def _relax(
        self, coefficients: Array, node: int, kept: npt.NDArray[np.int64], bounds: CheckedBounds, planes: Planes | None
    ) -> tuple[Array, Array]:
        """Replaces relu(z) by z: coefficients [groups, kept, LANES64] and constants [groups, …, LANES64]."""
        low, high = bounds.lower[node][kept], bounds.upper[node][kept]
        coefficients *= (high > 0)[:, None]
        fixed = np.zeros((coefficients.shape[0], 0, LANES64))
        if node in bounds.cuts:
            share = bounds.cuts[node][kept]
            cut = np.flatnonzero((share > 0) & (low >= 0))
            lam = coefficients[:, cut, :]
            mu = lam * (1.0 - share[cut])[:, None]
            rest = lam - mu  # Rounded once, and of the right sign.
            fixed = np.where(rest > 0, rest * low[cut][:, None], rest * high[cut][:, None])
            fixed -= 8 * _UNIT * np.abs(fixed) + np.where(rest == 0, 0.0, TINY)
            coefficients[:, cut, :] = mu
        free = np.flatnonzero((low < 0) & (high > 0))
        if not len(free):
            return coefficients, fixed
        shift = np.empty((coefficients.shape[0], len(free), LANES64))
        if planes is None:
            alpha = np.broadcast_to((high[free] >= -low[free]).astype(np.float64)[:, None], shift.shape)
            planes = Planes(np.zeros(shift.shape, dtype=np.int8), alpha.copy(), np.zeros(shift.shape))
        for part in planes:
            # The kernel would read beyond them.
            if part.shape != shift.shape:
                raise ValueError(f"dual variables of {part.shape} for {shift.shape} groups, neurons and rows")
        _replace(coefficients, free, low, high, planes, shift)
        return coefficients, np.concatenate([fixed, shift], axis=1)


def adopt(checker: Checker, lower: Array, upper: Array, hidden: Mapping[int, tuple[Array, Array]]) -> CheckedBounds:
    """Returns bounds of all nodes over a box: the better of intervals and of those that are given.

    Args:
        checker: Of the network.
        lower: Lower corner, flat float64.
        upper: Upper corner.
        hidden: Bounds of nodes that hold in real arithmetic.
    """
    bounds = CheckedBounds([lower.copy()], [upper.copy()], [np.zeros(len(lower))])
    for node in range(1, checker.last + 1):
        low, high = checker.intervals(node, bounds)
        if node in hidden:
            low, high = np.maximum(low, hidden[node][0]), np.minimum(high, hidden[node][1])
        bounds.charges.append(checker.charge(node, bounds))
        bounds.lower.append(low)
        bounds.upper.append(high)
    return bounds
