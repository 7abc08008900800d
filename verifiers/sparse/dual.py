"""Lower bounds of many subdomains at once from their dual variables, and gradients written by hand.

A bound is the minimum over the box of the linear function that is left when every unstable ReLU, from the last to the
first, is replaced by a line below its contribution: slope α for a free one with a coefficient above 0, the chord for
one with a coefficient below 0, the phase and a multiplier β >= 0 of its constraint for a split one (α-CROWN: Xu et al.
2021; β-CROWN: Wang et al. 2021, section 3). By the envelope theorem the derivative by a variable is that of the linear
function at its minimiser t: for α of a neuron λ z, for β -z (active) or z (inactive), with λ the coefficient that
reached the neuron and z its input when the chosen lines are followed forwards from t. So a step of an optimiser is one
walk backwards and one forwards, each a few products of matrices over all subdomains.

A disjunct of several rows is excluded if a convex combination of its rows is positive; the weights are dual variables
like the others, with the rows' values as gradient.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from verifiers.sparse.reduce import Reduced

Single = npt.NDArray[np.float32]
Signs = npt.NDArray[np.int8]
Indices = npt.NDArray[np.int64]

#: Numbers below which a loop isn't worth several threads.
_SMALL = 30_000

_jit = numba.njit(cache=True, parallel=True, fastmath={"nnan", "ninf", "nsz", "contract", "reassoc", "arcp"})


@_jit
def _relax(
    lam: Single,
    mu: Single,
    sign: Signs,
    alpha: Single,
    beta: Single,
    slope: Single,
    low: Single,
    bias: Single,
    total: Single,
    start: int,
    stop: int,
) -> None:
    """Turns coefficients of relu(z) into those of z, neurons start to stop, adding constants to total."""
    for d in numba.prange(lam.shape[0]):
        add = np.float32(0.0)
        for i in range(start, stop):
            value = lam[d, i]
            if sign[d, i] == 0:
                if value >= 0:
                    m = alpha[d, i] * value
                else:
                    m = slope[i] * value
                    add -= m * low[i]
            elif sign[d, i] > 0:
                m = value - beta[d, i]
            else:
                m = beta[d, i]
            mu[d, i] = m
            add += m * bias[i]
        total[d] += add


@_jit
def _concretise(coefficients: Single, total: Single, t: Single) -> None:
    """Subtracts the sum of magnitudes from total, and writes the minimiser."""
    for d in numba.prange(coefficients.shape[0]):
        add = np.float32(0.0)
        for p in range(coefficients.shape[1]):
            value = coefficients[d, p]
            add += abs(value)
            t[d, p] = np.float32(-1.0) if value > 0 else np.float32(1.0)
        total[d] -= add


@_jit
def _follow(
    z: Single,
    more: Single,
    a: Single,
    lam: Single,
    sign: Signs,
    alpha: Single,
    slope: Single,
    low: Single,
    bias: Single,
    start: int,
    stop: int,
) -> None:
    """Completes z of neurons start to stop and puts the chosen line's value at it into a."""
    for d in numba.prange(z.shape[0]):
        for i in range(start, stop):
            value = z[d, i] + bias[i]
            if start > 0:
                value += more[d, i - start]
            z[d, i] = value
            if sign[d, i] == 0:
                if lam[d, i] >= 0:
                    a[d, i] = alpha[d, i] * value
                else:
                    a[d, i] = slope[i] * (value - low[i])
            elif sign[d, i] > 0:
                a[d, i] = value
            else:
                a[d, i] = np.float32(0.0)


@_jit
def _adam(
    z: Single,
    lam: Single,
    sign: Signs,
    alpha: Single,
    beta: Single,
    scale: Single,
    first: Single,
    second: Single,
    rate_alpha: float,
    rate_beta: float,
    step: int,
) -> None:
    """One ascent step of Adam (Kingma and Ba 2015) with projection; β is measured in units of scale."""
    c1 = np.float32(1.0 / (1.0 - 0.9**step))
    c2 = np.float32(1.0 / (1.0 - 0.99**step))
    ra, rb = np.float32(rate_alpha), np.float32(rate_beta)
    m1, m2, n1, n2 = np.float32(0.9), np.float32(0.1), np.float32(0.99), np.float32(0.01)
    tiny = np.float32(1e-12)
    for d in numba.prange(z.shape[0]):
        for i in range(z.shape[1]):
            s = sign[d, i]
            if s == 0:
                g = lam[d, i] * z[d, i] if lam[d, i] > 0 else np.float32(0.0)
            elif s > 0:
                g = -z[d, i] * scale[d, i]
            else:
                g = z[d, i] * scale[d, i]
            m = m1 * first[d, i] + m2 * g
            v = n1 * second[d, i] + n2 * g * g
            first[d, i] = m
            second[d, i] = v
            move = c1 * m / (np.sqrt(c2 * v) + tiny)
            if s == 0:
                alpha[d, i] = min(max(alpha[d, i] + ra * move, np.float32(0.0)), np.float32(1.0))
            else:
                beta[d, i] = max(beta[d, i] + rb * scale[d, i] * move, np.float32(0.0))


@_jit
def _keep(
    bound: Single,
    best: Single,
    alpha: Single,
    best_alpha: Single,
    beta: Single,
    best_beta: Single,
    weights: Single,
    best_weights: Single,
) -> None:
    """Copies the dual variables of the subdomains whose bound has improved."""
    for d in numba.prange(len(bound)):
        if bound[d] > best[d]:
            best[d] = bound[d]
            for i in range(alpha.shape[1]):
                best_alpha[d, i] = alpha[d, i]
                best_beta[d, i] = beta[d, i]
            for i in range(weights.shape[1]):
                best_weights[d, i] = weights[d, i]


@dataclass(frozen=True, eq=False)
class Batch:
    """Subdomains with their dual variables: D of them, U neurons, R specification rows.

    Args:
        disjunct: [D] which disjunct is to be excluded.
        sign: [D, U] 1 split active, -1 split inactive, 0 free.
        alpha: [D, U] in [0, 1].
        beta: [D, U] 0 or more.
        weights: [D, R] of the disjunct's rows, summing to 1; 0 elsewhere.
        bound: [D] lower bound of the weighted rows that these give.
        place: [D] node of the search tree; -1 where there is none.
    """

    disjunct: Indices
    sign: Signs
    alpha: Single
    beta: Single
    weights: Single
    bound: Single
    place: Indices

    def __len__(self) -> int:
        return len(self.bound)

    def take(self, index: npt.ArrayLike) -> Batch:
        """Returns some of them, copied."""
        i = np.asarray(index)
        return Batch(*(getattr(self, name)[i] for name in FIELDS))

    @staticmethod
    def join(parts: list[Batch]) -> Batch:
        """Returns all of several batches."""
        return Batch(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))


#: Of `Batch`, in its order.
FIELDS = ("disjunct", "sign", "alpha", "beta", "weights", "bound", "place")


@dataclass(frozen=True, eq=False)
class Look:
    """What the last walk saw, for branching and for the attack.

    Args:
        lam: [D, U] coefficients that reached the ReLUs.
        z: [D, U] their inputs when the chosen lines are followed from the minimiser.
        t: [D, P] the minimiser.
    """

    lam: Single
    z: Single
    t: Single


class Dual:
    """Bounds batches of subdomains of one reduced network.

    Args:
        net: The network.
        disjuncts: For each disjunct the rows (start, stop) of the specification.
        threads: For the loops; BLAS has its own number.
    """

    def __init__(self, net: Reduced, disjuncts: list[tuple[int, int]], threads: int = 1) -> None:
        self.net = net
        self.disjuncts = disjuncts
        self.rows = len(net.c) - net.unstable
        self.slope = (net.upper / (net.upper - net.lower)).astype(np.float32)
        self.several = any(stop - start > 1 for start, stop in disjuncts)
        self._bias = net.c[: net.unstable]
        self._threads = threads
        self._room: dict[str, Single] = {}

    def start(self, disjunct: npt.ArrayLike) -> Batch:
        """Returns the whole box for each disjunct, with CROWN's slopes and all weight on no row in particular."""
        index = np.asarray(disjunct, dtype=np.int64)
        count, width = len(index), self.net.unstable
        weights = np.zeros((count, self.rows), dtype=np.float32)
        for d, k in enumerate(index):
            first, last = self.disjuncts[k]
            weights[d, first:last] = 1.0 / (last - first)
        crown = (self.net.upper >= -self.net.lower).astype(np.float32)
        return Batch(
            index,
            np.zeros((count, width), dtype=np.int8),
            np.tile(crown, (count, 1)),
            np.zeros((count, width), dtype=np.float32),
            weights,
            np.full(count, -np.inf, dtype=np.float32),
            np.full(count, -1, dtype=np.int64),
        )

    def _space(self, name: str, count: int, width: int) -> Single:
        """Returns a work array: fresh pages cost more than the arithmetic on them."""
        room = self._room.get(name)
        if room is None or room.size < count * width:
            room = np.empty(count * width, dtype=np.float32)
            self._room[name] = room
        return room[: count * width].reshape(count, width)

    def _backward(self, batch: Batch, name: str = "") -> tuple[Single, Single, Single]:
        """Returns bounds [D], coefficients λ [D, U] and minimisers [D, P]; the last two are work arrays."""
        net, count, width = self.net, len(batch), self.net.unstable
        numba.set_num_threads(self._threads if count * (width + len(net.pixels)) > _SMALL else 1)
        lam = self._space("lam" + name, count, width)
        mu = self._space("mu" + name, count, width + self.rows)
        mu[:, width:] = batch.weights
        total = batch.weights @ net.c[width:]
        for start, stop in reversed(net.levels):
            lam[:, start:stop] = mu[:, stop:] @ net.N[stop:, start:stop]
            _relax(lam, mu, batch.sign, batch.alpha, batch.beta, self.slope, net.lower, self._bias, total, start, stop)
        coefficients = self._space("coefficients", count, len(net.pixels))
        np.matmul(mu, net.M, out=coefficients)
        t = self._space("t" + name, count, len(net.pixels))
        _concretise(coefficients, total, t)
        return total, lam, t

    def _forward(self, batch: Batch, lam: Single, t: Single, rows: bool) -> tuple[Single, Single]:
        """Follows the chosen lines from t: z [D, U] and, if asked for, the rows' values [D, R]; work arrays."""
        net, count, width = self.net, len(batch), self.net.unstable
        z = self._space("z", count, width + self.rows)
        a = self._space("a", count, width)
        np.matmul(t, net.M.T, out=z)
        for start, stop in net.levels:
            more = a[:, :start] @ net.N[start:stop, :start].T if start else a[:, :0]
            _follow(z, more, a, lam, batch.sign, batch.alpha, self.slope, net.lower, self._bias, start, stop)
        if rows:
            z[:, width:] += a @ net.N[width:].T + net.c[width:]
        return z[:, :width], z[:, width:]

    def bound(self, batch: Batch) -> Single:
        """Returns the bounds [D] that the batch's dual variables give."""
        return self._backward(batch)[0]

    def look(self, batch: Batch) -> tuple[Single, Look]:
        """Returns bounds, and what branching and attack need; copies."""
        total, lam, t = self._backward(batch)
        z, _ = self._forward(batch, lam, t, rows=False)
        return total, Look(lam.copy(), z.copy(), t.copy())

    def gradient(self, batch: Batch) -> tuple[Single, Single, Single]:
        """Returns derivatives of the bounds by α, β [D, U] and weights [D, R]; 0 for variables without effect."""
        _, lam, t = self._backward(batch)
        z, rows = self._forward(batch, lam, t, rows=True)
        free = batch.sign == 0
        by_alpha = np.where(free & (lam > 0), lam * z, 0).astype(np.float32)
        by_beta = np.where(free, 0, -batch.sign * z).astype(np.float32)
        return by_alpha, by_beta, np.where(self._member(batch), rows, 0).astype(np.float32)

    def _member(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Returns which rows belong to each subdomain's disjunct, [D, R]."""
        spans = np.array(self.disjuncts).reshape(-1, 2)[batch.disjunct]
        row = np.arange(self.rows)
        member: npt.NDArray[np.bool_] = (row >= spans[:, :1]) & (row < spans[:, 1:])
        return member

    def optimise(
        self,
        batch: Batch,
        steps: int,
        rates: tuple[float, float] = (0.2, 0.2),
        decay: float = 0.95,
        target: float = 0.0,
        deadline: float | None = None,
    ) -> Batch:
        """Ascends from the batch's dual variables and returns the best ones seen, with their bounds.

        Args:
            batch: Where to start; not changed.
            steps: Gradient steps; bounds are computed once more than that.
            rates: Of α, and of β relative to the neuron's coefficient.
            decay: Of both, a step.
            target: Rows above this stop.
            deadline: Value of `time.monotonic` after which no further step is begun.
        """
        best = batch.take(np.arange(len(batch)))
        best.bound[:] = -np.inf
        if not self.net.unstable and not self.several:
            # Nothing to optimise.
            steps = 0
        active = np.arange(len(batch))
        now = best.take(active)
        kept = best.take(active)
        first, second = np.zeros_like(now.alpha), np.zeros_like(now.alpha)
        scale = np.zeros_like(now.alpha)
        rate_alpha, rate_beta = rates
        member = self._member(now) if self.several else None
        for step in range(steps + 1):
            bound, lam, t = self._backward(now)
            _keep(bound, kept.bound, now.alpha, kept.alpha, now.beta, kept.beta, now.weights, kept.weights)
            if step == steps or (deadline is not None and time.monotonic() > deadline):
                break
            going = ~(kept.bound > target)
            alive = int(going.sum())
            if alive == 0:
                break
            if alive <= 0.75 * len(now):
                _store(best, active, kept)
                active = active[going]
                now, kept = now.take(going), kept.take(going)
                first, second, scale = first[going], second[going], scale[going]
                lam, t = lam[going], t[going]
                member = None if member is None else member[going]
            if step == 0:
                size = np.abs(lam)
                scale[:] = np.maximum(size, 0.1 * size.sum(axis=1, keepdims=True) / max(size.shape[1], 1) + 1e-9)
            z, rows = self._forward(now, lam, t, rows=self.several)
            _adam(z, lam, now.sign, now.alpha, now.beta, scale, first, second, rate_alpha, rate_beta, step + 1)
            if member is not None:
                self._reweigh(now, rows, member, rate_alpha)
            rate_alpha, rate_beta = rate_alpha * decay, rate_beta * decay
        _store(best, active, kept)
        return best

    def _reweigh(self, now: Batch, rows: Single, member: npt.NDArray[np.bool_], rate: float) -> None:
        """Exponentiated-gradient ascent on the weights of a disjunct's rows."""
        inside = np.where(member, rows, np.nan)
        spread = np.nanmax(inside, axis=1, keepdims=True) - np.nanmin(inside, axis=1, keepdims=True)
        step = np.where(member, (rows - np.nanmax(inside, axis=1, keepdims=True)) / (spread + 1e-12), 0)
        now.weights[:] = np.where(member, np.maximum(now.weights, 1e-4) * np.exp(2 * rate * step), 0)
        now.weights[:] /= now.weights.sum(axis=1, keepdims=True)


def _store(best: Batch, places: npt.NDArray[np.int64], part: Batch) -> None:
    best.alpha[places] = part.alpha
    best.beta[places] = part.beta
    best.weights[places] = part.weights
    best.bound[places] = part.bound
