"""How much a matrix can lengthen a vector: an upper bound of its largest singular value, rounding accounted for.

The Gram matrix G of the shorter side is computed, its largest eigenvalue estimated, and σ I - G, with σ just above the
estimate, given to a Cholesky factorisation. Where that ends, G's eigenvalues are at most σ + 2 γ_{n+2} (n σ) (Rump,
"Verification of positive definiteness", BIT 2006, after Higham 2002, theorem 10.3: the trace of the matrix that is
factored is at most n σ). What computing G rounds is at most γ_m |A| |A|ᵀ, whose norm is at most γ_m |A|²_F.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.node_bounds import gamma

#: Rows and columns from which a cheaper bound is taken.
_LARGE = 2_500
#: Steps of the power iteration that estimates, and tries of σ, each so much above the one before.
_STEPS, _TRIES, _ABOVE = 20, 12, 1.02


def norm(matrix: Float64Array) -> float:
    """Bounds a matrix's largest singular value from above; infinite where it is not finite.

    Args:
        matrix: [m, n], taken as exact.
    """
    if not matrix.size:
        return 0.0
    flat = float(gamma(matrix.size))
    with np.errstate(all="ignore"):
        squares = float((matrix * matrix).sum()) * (1 + flat) + 1e-300
        if not math.isfinite(squares):
            return math.inf
        # The geometric mean of the largest sums of rows and of columns.
        sizes = np.abs(matrix)
        sums = float(sizes.sum(axis=0).max()) * float(sizes.sum(axis=1).max()) * (1 + 2 * flat) + 1e-300
        square = min(squares, sums)
        if min(matrix.shape) <= _LARGE:
            square = min(square, _gram(matrix, squares))
    return math.sqrt(square) * (1 + 1e-15)


def _gram(matrix: Float64Array, squares: float) -> float:
    """Bounds the square of the norm by a factorisation; `squares` is an upper bound of the sum of all squares."""
    side = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = side @ side.T
    count = len(gram)
    vector = np.random.default_rng(0).random(count) + 0.5
    for _ in range(_STEPS):
        length = float(np.linalg.norm(vector))
        if not 0 < length < math.inf:
            return math.inf
        vector = gram @ (vector / length)
    sigma = float(np.linalg.norm(vector)) * (1 + 1e-9)
    rounding = float(gamma(side.shape[1])) * squares
    for _ in range(_TRIES):
        if not sigma > 0 or sigma >= squares:
            break
        try:
            scipy.linalg.cholesky(sigma * np.eye(count) - gram, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            sigma *= _ABOVE
            continue
        # The diagonal of the difference rounds, too.
        slack = 2 * float(gamma(count + 4)) * count * sigma + rounding + 1e-300
        return (sigma + slack) * (1 + 1e-15)
    return math.inf
