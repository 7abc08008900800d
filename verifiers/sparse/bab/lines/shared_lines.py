r"""A network over a box as affine functions of its pixels, with an error for each ReLU.

Near its leaves a tree's subdomains differ in a few splits, and to walk all layers for each of them is waste. Here they
share one line for each ReLU, whatever the sign of its coefficient: relu(z) = a z + e with 0 <= e <= h, h = max(-a l,
(1 - a) u), on [l, u]; a is the slope that α-CROWN's walks over the subtree's top have there on average, so that a
coefficient of the same sign loses nothing, and one that changes its sign little, as it is small. The last hidden
layer's neurons keep lines of their own. With these lines each neuron that may be split is

    z_j = rows_j · (pixels, errors) + offsets_j,

computed once. A subdomain gives the last hidden layer's neurons the coefficients μ_j that β-CROWN gives them. What an
earlier neuron's split changes, e = (1 - a) z or e = -a z, is its row times its own coefficient λ, and its multiplier:

    bound = constant + sum over w of min(0, V_w) + offsets · m,        V = base + m · rows,

m_j being μ_j less what is there without a split, or λ_j (1 - a_j) - β_j, or -λ_j a_j + β_j, and V_w = 0 for errors of
split neurons. |v| of a pixel's coefficient v is written as v - 2 min(0, v), and an error's column is scaled by h.
Nothing that follows from it is believed: leaves are certified from their dual variables as all others are.
"""

from __future__ import annotations

import numpy as np

from prunecert.verifiers.sparse.arrays import LANES32, BoolArray, Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Batch, Dual, Look
from prunecert.verifiers.sparse.bab.lines import kernels
from prunecert.verifiers.sparse.bab.lines.kernels import LineProblem, Splits

#: Earlier neurons that may be split, beside those that are. With more of them trees become larger: what a split far
#: from the outputs gains is seen poorly along fixed lines.
_EARLIER = 16


class SharedLines:
    """The lines below some open subdomains of one disjunct.

    Args:
        dual: Of the reduced network, with at least one unstable neuron.
        batch: The subdomains.
        look: What the walk of their bounds saw.
    """

    def __init__(self, dual: Dual, batch: Batch, look: Look) -> None:
        net = dual.net
        first = net.levels[-1][0]
        self._like = batch.take([0])
        lam, alpha = look.lam.mean(axis=0), batch.alpha.mean(axis=0)
        self._like.sign[0], self._like.beta[0] = 0, 0
        self._like.alpha[0], self._like.weights[0] = alpha, batch.weights.mean(axis=0)
        slopes = np.where(lam < 0, dual.slope, alpha).astype(np.float32)
        heights = np.maximum(-slopes * net.lower, (1 - slopes) * net.upper)[:first]
        earlier = self._earlier(lam[:first], heights, (batch.sign[:, :first] != 0).any(axis=0))
        #: [N] the neurons' places in the reduced network.
        self.neurons = np.concatenate([np.arange(first, net.unstable), earlier])
        rows, pixels, totals = self._trace(dual, slopes, np.append(self.neurons, net.unstable))
        coefficients = np.concatenate([rows[-1, first:], np.zeros(len(earlier), dtype=np.float32)])
        falling = coefficients < 0
        last = self.neurons
        whole = np.where(falling, dual.slope[last], alpha[last]) * coefficients
        shifts = np.where(falling, -whole.astype(np.float64) * net.lower[last], 0.0)
        matters = (heights > 0) & rows[:, :first].any(axis=0)
        matters[earlier] = True
        columns = np.concatenate([2 * pixels, (rows[:, :first] * heights)[:, matters]], axis=1)
        totals -= pixels.sum(axis=1, dtype=np.float64)
        column = np.full(first, -1, dtype=np.int64)
        column[matters] = pixels.shape[1] + np.arange(int(matters.sum()))
        none = np.full(net.unstable - first, -1, dtype=np.int64)
        size = np.concatenate([np.abs(coefficients[: len(none)]), np.abs(lam[earlier])])
        self.problem = LineProblem(
            rows=np.ascontiguousarray(columns[:-1], dtype=np.float32),
            base=(columns[-1] + whole @ columns[:-1]).astype(np.float32),
            offsets=totals[:-1].copy(),
            constant=float(totals[-1] + whole @ totals[:-1] + shifts.sum()),
            columns=np.concatenate([none, column[earlier]]),
            heights=np.concatenate([np.ones(len(none), dtype=np.float32), heights[earlier]]).astype(np.float32),
            slopes=np.concatenate([np.zeros(len(none), dtype=np.float32), slopes[earlier]]).astype(np.float32),
            coefficients=coefficients,
            whole=whole.astype(np.float32),
            shifts=shifts,
            scale=np.maximum(size, 0.1 * np.abs(lam).mean()).astype(np.float32),
        )

    def _earlier(self, lam: Float32Array, heights: Float32Array, split: BoolArray) -> Int64Array:
        """Returns the earlier neurons that may be split, from the last to the first."""
        scores = np.where(lam < 0, -lam, 0.5 * lam) * heights
        scores[split] = np.inf
        order = np.argsort(-scores, kind="stable")[: int(split.sum()) + _EARLIER]
        return np.sort(order[scores[order] > 0])[::-1].astype(np.int64)

    def _trace(
        self, dual: Dual, slopes: Float32Array, seeds: Int64Array
    ) -> tuple[Float32Array, Float32Array, Float64Array]:
        """Returns coefficients behind ReLUs [seeds, U], of pixels [seeds, P] and constants."""
        net, count = dual.net, len(seeds)
        groups = -(-count // LANES32)
        lam = np.zeros((groups, net.unstable, LANES32), dtype=np.float32)
        pixels = np.zeros((groups, len(net.pixels), LANES32), dtype=np.float32)
        totals = np.zeros((groups, LANES32))
        padded = np.full(groups * LANES32, -1, dtype=np.int64)
        padded[:count] = seeds
        for group, some in enumerate(padded.reshape(groups, LANES32)):
            kernels.trace(
                dual.problem,
                slopes,
                self._like.weights[0],
                net.levels[-1][0],
                some,
                lam[group],
                pixels[group],
                totals[group],
            )
        flat = [part.transpose(0, 2, 1).reshape(groups * LANES32, -1)[:count] for part in (lam, pixels)]
        return flat[0], flat[1], totals.reshape(-1)[:count]

    def splits(self, batch: Batch, room: int) -> Splits:
        """Returns what is split in the subdomains that the lines are for.

        Args:
            batch: The subdomains.
            room: How many more splits are to fit.
        """
        sign, beta = batch.sign[:, self.neurons], batch.beta[:, self.neurons]
        count = (sign != 0).sum(axis=1).astype(np.int32)
        places = np.argsort(sign == 0, axis=1, kind="stable")[:, : count.max(initial=0)]
        rows = np.arange(len(batch))[:, None]
        signs, beta = sign[rows, places], beta[rows, places]
        last = (self.problem.columns[places] < 0) & (signs > 0)
        values = np.where(last, self.problem.coefficients[places] - beta, beta)
        wide = ((0, 0), (0, room))
        neurons = np.pad(places.astype(np.int32), wide)
        return Splits(count, neurons, np.pad(signs, wide), np.pad(values.astype(np.float32), wide))

    def batch(self, splits: Splits, bounds: Float64Array, places: Int64Array) -> Batch:
        """Returns subdomains with their dual variables.

        Args:
            splits: What is split.
            bounds: [D].
            places: [D] nodes of the search tree.
        """
        batch = self._like.take(np.zeros(len(bounds), dtype=np.int64))
        row, k = np.nonzero(np.arange(splits.neurons.shape[1]) < splits.counts[:, None])
        number, sign, value = splits.neurons[row, k], splits.signs[row, k], splits.values[row, k]
        batch.sign[row, self.neurons[number]] = sign
        last = (self.problem.columns[number] < 0) & (sign > 0)
        beta = np.where(last, self.problem.coefficients[number] - value, value)
        batch.beta[row, self.neurons[number]] = np.maximum(beta, 0)
        batch.bound[:], batch.place[:] = bounds, places
        return batch
