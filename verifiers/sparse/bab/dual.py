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
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.arrays import LANES32, BoolArray, Float32Array, Int8Array, Int32Array, Int64Array
from prunecert.verifiers.sparse.bab import ascent
from prunecert.verifiers.sparse.bab.ascent_state import AscentProblem, AscentSchedule, Sight, Subdomains, room
from prunecert.verifiers.sparse.bab.reduced_network import Reduced


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

    disjunct: Int64Array
    sign: Int8Array
    alpha: Float32Array
    beta: Float32Array
    weights: Float32Array
    bound: Float32Array
    place: Int64Array

    def __len__(self) -> int:
        return len(self.bound)

    @property
    def megabytes(self) -> float:
        """Size of the arrays."""
        return float(sum(getattr(self, name).nbytes for name in FIELDS)) / 2**20

    def take(self, index: npt.ArrayLike) -> Batch:
        """Returns some of them, copied."""
        i = np.asarray(index)
        return Batch(*(getattr(self, name)[i] for name in FIELDS))

    def put(self, index: npt.ArrayLike, part: Batch) -> None:
        """Overwrites some of them."""
        i = np.asarray(index)
        for name in FIELDS:
            getattr(self, name)[i] = getattr(part, name)

    @staticmethod
    def join(parts: list[Batch]) -> Batch:
        """Returns all of several batches."""
        return Batch(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))


#: Of `Batch`, in its order.
FIELDS = ("disjunct", "sign", "alpha", "beta", "weights", "bound", "place")


def equal_weights(disjuncts: list[tuple[int, int]], chosen: Int64Array, rows: int | None = None) -> Float32Array:
    """Returns equal weights of each disjunct's rows, [D, R].

    Args:
        disjuncts: Rows (start, stop) of each disjunct.
        chosen: Indices among them, [D].
        rows: R; None: as many as the disjuncts have.
    """
    spans = np.array(disjuncts, dtype=np.int64).reshape(-1, 2)
    row = np.arange(spans[:, 1].max(initial=0) if rows is None else rows)
    member = (row >= spans[chosen, :1]) & (row < spans[chosen, 1:])
    weights: Float32Array = (member / member.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights


def root(slopes: Float32Array, disjuncts: list[tuple[int, int]], chosen: Int64Array, rows: int | None = None) -> Batch:
    """Returns the whole box for some disjuncts, with equal weights of their rows and no bounds yet.

    Args:
        slopes: CROWN's lower slopes of the unstable neurons, [U].
        disjuncts: Rows (start, stop) of each disjunct.
        chosen: Indices among them.
        rows: Of the specification; None: as many as the disjuncts have.
    """
    count, width = len(chosen), len(slopes)
    return Batch(
        chosen,
        np.zeros((count, width), dtype=np.int8),
        np.tile(slopes, (count, 1)),
        np.zeros((count, width), dtype=np.float32),
        equal_weights(disjuncts, chosen, rows),
        np.full(count, -np.inf, dtype=np.float32),
        np.full(count, -1, dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class Look:
    """What the walk of a bound saw, for branching, for the attack and for the gradient.

    Args:
        lam: [D, U] coefficients that reached the ReLUs.
        z: [D, U] their inputs when the chosen lines are followed from the minimiser.
        t: [D, P] the minimiser.
        rows: [D, R] the specification's rows there.
    """

    lam: Float32Array
    z: Float32Array
    t: Float32Array
    rows: Float32Array

    def take(self, index: npt.ArrayLike) -> Look:
        """Returns what was seen of some subdomains, copied."""
        i = np.asarray(index)
        return Look(self.lam[i], self.z[i], self.t[i], self.rows[i])


class Dual:
    """Bounds batches of subdomains of one reduced network.

    Args:
        net: The network.
        disjuncts: For each disjunct the rows (start, stop) of the specification.
        threads: For the loops.
    """

    def __init__(self, net: Reduced, disjuncts: list[tuple[int, int]], threads: int = 1) -> None:
        self.net = net
        self.disjuncts = disjuncts
        self.rows = len(net.c) - net.unstable
        self.several = any(stop - start > 1 for start, stop in disjuncts)
        self.threads = threads
        m, mt = _both(net.M)
        n, nt = _both(net.N)
        slope = (net.upper / (net.upper - net.lower)).astype(np.float32)
        self._problem = AscentProblem(*mt, *m, *nt, *n, net.c, net.lower, slope)
        self._size = room(net.unstable, self.rows, len(net.pixels))
        raw = np.empty(threads * self._size + LANES32, dtype=np.float32)
        # Vectors that cross a cache line take two loads.
        skip = (-raw.ctypes.data // raw.itemsize) % LANES32
        self._work = raw[skip : skip + threads * self._size]
        #: Multiplications of a walk forwards and backwards, for one subdomain.
        self.cost = 2 * (len(m[1]) + len(n[1]))
        self._spans = np.array(disjuncts, dtype=np.int64).reshape(-1, 2)

    @property
    def problem(self) -> AscentProblem:
        """The network as kernels take it."""
        return self._problem

    @property
    def megabytes(self) -> float:
        """What it has beside the network."""
        arrays = (value for value in self._problem if isinstance(value, np.ndarray))
        return (self._work.nbytes + sum(array.nbytes for array in arrays)) / 2**20

    @property
    def slope(self) -> Float32Array:
        """Slopes of the chords of the unstable neurons, [U]."""
        return self._problem.slope

    @property
    def matrices(self) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
        """Rows of M and of N: (starts, columns, values) of each."""
        p = self._problem
        return (p.m_starts, p.m_columns, p.m_values), (p.n_starts, p.n_columns, p.n_values)

    def start(self, disjunct: npt.ArrayLike) -> Batch:
        """Returns the whole box for each disjunct, with CROWN's slopes and equal weights of its rows."""
        crown = (self.net.upper >= -self.net.lower).astype(np.float32)
        return root(crown, self.disjuncts, np.asarray(disjunct, dtype=np.int64), self.rows)

    def member(self, batch: Batch) -> BoolArray:
        """Returns which rows belong to each subdomain's disjunct, [D, R]."""
        spans = self._spans[batch.disjunct]
        row = np.arange(self.rows)
        inside: BoolArray = (row >= spans[:, :1]) & (row < spans[:, 1:])
        return inside

    def _walk(
        self,
        batch: Batch,
        steps: int = 0,
        rates: tuple[float, float] = (0.0, 0.0),
        decay: float = 1.0,
        target: float = np.inf,
        look: bool = False,
    ) -> Look:
        """Overwrites a batch's dual variables and bounds by the best of so many steps."""
        net, count = self.net, len(batch)
        viewed = count if look else 0
        sizes = (net.unstable, net.unstable, len(net.pixels), self.rows)
        sight = Sight(*(np.empty((viewed, size), dtype=np.float32) for size in sizes))
        variables = Subdomains(batch.sign, self.member(batch), batch.alpha, batch.beta, batch.weights, batch.bound)
        schedule = AscentSchedule(steps, *rates, decay, target, self.several, look)
        numba.set_num_threads(self.threads if count > LANES32 else 1)
        ascent.walk(self._problem, variables, sight, schedule, self._work, self._size)
        return Look(*sight)

    def bound(self, batch: Batch) -> Float32Array:
        """Returns the bounds [D] that the batch's dual variables give; they become the batch's."""
        if len(batch):
            self._walk(batch)
        return batch.bound

    def look(self, batch: Batch) -> Look:
        """Bounds a batch, and returns what branching and attack need."""
        return self._walk(batch, look=True)

    def gradient(self, batch: Batch) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Returns derivatives of the bounds by α, β [D, U] and weights [D, R]; 0 for variables without effect."""
        look = self.look(batch)
        free = batch.sign == 0
        by_alpha = np.where(free & (look.lam > 0), look.lam * look.z, 0).astype(np.float32)
        by_beta = np.where(free, 0, -batch.sign * look.z).astype(np.float32)
        return by_alpha, by_beta, np.where(self.member(batch), look.rows, 0).astype(np.float32)

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
            steps: Gradient steps (Adam, Kingma and Ba 2015, with projection); bounds are computed once more than that.
            rates: Of α, and of β relative to the coefficient of its neuron in the first walk.
            decay: Of both, a step.
            target: Subdomains end when they and those beside them are above this.
            deadline: Value of `time.monotonic` after which the subdomains whose turn has not come are left as they are.
        """
        best = batch.take(np.arange(len(batch)))
        if not self.net.unstable and not self.several:
            steps = 0
        # About a tenth of a second at a time.
        some = max(1, int(2e8 * self.threads / (max(self.cost, 1) * (steps + 1)) / LANES32)) * LANES32
        for begin in range(0, len(best), some):
            if deadline is not None and begin and time.monotonic() > deadline:
                break
            part = best.take(np.arange(begin, min(begin + some, len(best))))
            self._walk(part, steps, rates, decay, target)
            for name in ("alpha", "beta", "weights", "bound"):
                getattr(best, name)[begin : begin + some] = getattr(part, name)
        return best


@numba.njit(cache=True)
def _list(
    dense: Float32Array,
    rows: Int64Array,
    columns: Int64Array,
    row_index: Int32Array,
    row_value: Float32Array,
    column_index: Int32Array,
    column_value: Float32Array,
) -> int:
    """Lists a matrix's numbers that are not 0 by row and by column, and returns how many there are."""
    at = 0
    for i in range(dense.shape[0]):
        for j in range(dense.shape[1]):
            # Written always, and overwritten if it was 0: a branch would be mispredicted.
            row_index[at], row_value[at] = j, dense[i, j]
            at += dense[i, j] != 0
        rows[i + 1] = at
    for entry in range(at):
        columns[row_index[entry] + 1] += 1
    for j in range(dense.shape[1]):
        columns[j + 1] += columns[j]
    place = columns.copy()
    for i in range(dense.shape[0]):
        for entry in range(rows[i], rows[i + 1]):
            to = place[row_index[entry]]
            place[row_index[entry]] = to + 1
            column_index[to], column_value[to] = i, row_value[entry]
    return at


def _both(dense: Float32Array) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """Returns rows and columns of a matrix's non-zeros: (starts, indices, values) of each."""
    rows, columns = (np.zeros(size + 1, dtype=np.int64) for size in dense.shape)
    indices = [np.empty(dense.size + 1, dtype=np.int32) for _ in range(2)]
    values = [np.empty(dense.size + 1, dtype=np.float32) for _ in range(2)]
    count = _list(dense, rows, columns, indices[0], values[0], indices[1], values[1])
    return (rows, indices[0][:count].copy(), values[0][:count].copy()), (
        columns,
        indices[1][:count].copy(),
        values[1][:count].copy(),
    )
