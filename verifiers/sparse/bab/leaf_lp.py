"""The end of a branch: every ReLU has a phase; one linear programme gives the best multipliers and a minimiser."""

from __future__ import annotations

import numpy as np

from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int8Array
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.reduced_network import Reduced

#: Prices of a violated phase constraint, relative to the rows' scale; a higher one is tried where the region is empty
#: or nearly so.
_PRICES = (1e2, 1e5, 1e8)
_LARGEST = 1e20


def affine(net: Reduced, sign: Int8Array) -> tuple[Float64Array, Float64Array]:
    """Returns matrix [U + R, P] and constants [U + R] of z and the rows when every neuron has the phase of `sign`."""
    width = net.unstable
    matrix, constant = net.M.astype(np.float64), net.c.astype(np.float64)
    active = sign > 0
    for start, stop in (*net.levels, (width, len(constant))):
        weights = net.N[start:stop, :start].astype(np.float64)[:, active[:start]]
        matrix[start:stop] += weights @ matrix[:start][active[:start]]
        constant[start:stop] += weights @ constant[:start][active[:start]]
    return matrix, constant


def settle(
    net: Reduced, leaf: Batch, rows: tuple[int, int], seconds: float
) -> tuple[Float32Array, Float32Array, Float64Array] | None:
    """Solves a leaf.

    Minimises v + K w over t in the box, w >= 0 and v, where every row of the disjunct is at most v and every phase
    constraint is violated by at most w. The multipliers of these are β and the rows' weights.

    Args:
        net: The network.
        leaf: One subdomain, all of whose neurons are split.
        rows: The rows (start, stop) of its disjunct.
        seconds: Limit of each programme.

    Returns:
        β [U], weights [R], and a minimiser t [P]; None where the solver fails, or where
        numbers are too large for it.
    """
    # A fifth of a second, which few questions need: most searches end before any branch does.
    from scipy.optimize import linprog

    sign = leaf.sign[0]
    width, pixels = net.unstable, len(net.pixels)
    matrix, constant = affine(net, sign)
    first, last = width + rows[0], width + rows[1]
    turned = -sign.astype(np.float64)[:, None] * matrix[:width]
    A = np.zeros((width + last - first, pixels + 2))
    A[:width, :pixels], A[:width, pixels + 1] = turned, -1.0
    A[width:, :pixels], A[width:, pixels] = matrix[first:last], -1.0
    b = np.concatenate([sign * constant[:width], -constant[first:last]])
    scale = float(np.abs(matrix[first:last]).sum(axis=1).max() + np.abs(constant[first:last]).max() + 1e-9)
    # HiGHS takes numbers from 1e20 on for infinite; with the prices, these are the largest that it is given.
    if not (
        np.isfinite(A).all()
        and np.isfinite(b).all()
        and max(scale, np.abs(A).max(), np.abs(b).max(initial=0)) < _LARGEST
    ):
        return None
    limits = [*[(-1.0, 1.0)] * pixels, (None, None), (0.0, None)]
    answer = None
    for price in _PRICES:
        cost = np.zeros(pixels + 2)
        cost[pixels], cost[pixels + 1] = 1.0, price * scale
        solution = linprog(
            cost, A_ub=A, b_ub=b, bounds=limits, method="highs", options={"time_limit": max(seconds, 0.01)}
        )
        if solution.status != 0:
            break
        multipliers = np.maximum(-solution.ineqlin.marginals, 0.0)
        weights = np.zeros(len(constant) - width)
        weights[rows[0] : rows[1]] = multipliers[width:]
        t = np.clip(solution.x[:pixels], -1.0, 1.0)
        with np.errstate(over="ignore"):
            beta = multipliers[:width].astype(np.float32)
        if not np.isfinite(beta).all():
            break
        answer = (beta, weights.astype(np.float32), t)
        if solution.fun > 0 or solution.x[pixels + 1] <= 1e-9:
            break
    return answer
