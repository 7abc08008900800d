"""IBP, CROWN-IBP and CROWN of a sparse network, with bounds that hold in real arithmetic.

IBP: Gowal et al. 2018. CROWN: Zhang et al. 2018, with the lower slope 1 where u > -l and else 0. CROWN-IBP: Zhang et
al. 2020, section 3. `verifiers.sparse.kernels` says how rounding is accounted for, `verifiers.sparse.program` how the
network is laid out. Hidden bounds are the better of CROWN's and the interval's, and CROWN's are computed only for
neurons that intervals leave unstable.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from verifiers.sparse import kernels
from verifiers.sparse.affine import dense, diagonal
from verifiers.sparse.kernels import LANES, Image, Scratch
from verifiers.sparse.network import WEIGHT_ERROR, Network, Node, Term
from verifiers.sparse.program import FUSED, Layout, lay_out

Float64Array = npt.NDArray[np.float64]
Method = Literal["ibp", "crown-ibp", "crown"]
METHODS: tuple[Method, ...] = ("ibp", "crown-ibp", "crown")

#: Blocks that a thread takes at once, while there are many.
_BLOCKS = 8
_U53 = 2.0**-53


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds for one input box.

    Args:
        rows: Lower bounds of the specification's rows, float64; -inf where nothing is known.
        lower: By node (index in `Network.nodes`): lower bounds of its values before ReLU, in the file's order; empty
            where they weren't asked for.
        upper: Likewise.
        unstable: ReLUs that the bounds leave unstable.
    """

    rows: Float64Array
    lower: dict[int, Float64Array]
    upper: dict[int, Float64Array]
    unstable: int


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of one image.

    Args:
        lower: Corner of the input box, any float type and shape, in the file's order.
        upper: Likewise.
        matrix: Rows of the specification over the outputs, float64 [rows, outputs].
        offsets: Subtracted from them: the bound is one of matrix @ y - offsets, float64 [rows].
    """

    lower: npt.NDArray[np.floating]
    upper: npt.NDArray[np.floating]
    matrix: Float64Array
    offsets: Float64Array


class Engine:
    """Bounds one network; safe to use from one thread at a time, and uses several itself.

    Args:
        network: The network.
        threads: Threads for images, or for blocks of rows of one image; None for NUMBA_NUM_THREADS or all cores.
        intersect: Whether CROWN's bounds are combined with those of intervals; without, they are what other
            implementations of CROWN compute.
    """

    def __init__(self, network: Network, threads: int | None = None, intersect: bool = True) -> None:
        self.intersect = intersect
        self.network = network
        self.layout: Layout = lay_out(network)
        self.threads = threads or int(os.environ.get("NUMBA_NUM_THREADS") or len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(self.threads)
        program = self.layout.program
        self._weights = int(sum(2 * nonzeros for nonzeros in np.diff(program.pointers[program.starts])))
        self._images: list[Image] = []
        self._scratches: list[Scratch] = []
        self._buffers: list[npt.NDArray[np.int64]] = []
        outputs = network.nodes[-1]
        self._last = _Last(self.layout, outputs.size)

    def multiplications(self) -> int:
        """Returns how many products of a weight and a coefficient the walks have taken since the start."""
        work = sum((scratch.work for scratch in self._scratches), np.zeros(3, dtype=np.int64))
        return int(work @ np.array([1, 4, 8])) * LANES

    def bound(self, question: Question, method: Method = "crown", hidden: bool = True) -> Bounds:
        """Bounds one image; CROWN's rows are shared by the threads. Without `hidden`, only the rows' are kept."""
        return self._bound(0, question, method, self.threads > 1 and method == "crown", hidden)

    def bound_many(self, questions: Sequence[Question], method: Method = "crown", hidden: bool = True) -> list[Bounds]:
        """Bounds many images, each in one thread, or one after the other where there are fewer than threads."""
        if len(questions) < self.threads:
            return [self.bound(question, method, hidden) for question in questions]
        results: list[Bounds | None] = [None] * len(questions)
        places = itertools.count()

        def work(slot: int) -> None:
            while (place := next(places)) < len(questions):
                results[place] = self._bound(slot, questions[place], method, False, hidden)

        for slot in range(self.threads):
            self._slot(slot)
        self._each(work)
        return [result for result in results if result is not None]

    def _each(self, work: Callable[[int], None]) -> None:
        if self.threads == 1:
            work(0)
            return
        for done in [self._pool.submit(work, slot) for slot in range(self.threads)]:
            done.result()

    def _slot(self, slot: int) -> tuple[Image, Scratch, npt.NDArray[np.int64]]:
        program = self.layout.program
        while len(self._images) <= slot:
            self._images.append(_image(self.layout, self._weights))
            self._scratches.append(_scratch(self.layout))
            self._buffers.append(np.empty(int(np.diff(program.starts).max()), dtype=np.int64))
        return self._images[slot], self._scratches[slot], self._buffers[slot]

    def _bound(self, slot: int, question: Question, method: Method, parallel: bool, hidden: bool) -> Bounds:
        order = self.layout.orders[0]
        outputs = self.network.nodes[-1].size
        if not np.size(question.lower) == np.size(question.upper) == len(order):
            raise ValueError(f"the box has {np.size(question.lower)} numbers; the network takes {len(order)}")
        if question.matrix.shape != (len(question.offsets), outputs):
            raise ValueError(f"rows of shape {question.matrix.shape} don't fit {outputs} outputs")
        low = np.asarray(question.lower, dtype=np.float64).reshape(-1)[order]
        high = np.asarray(question.upper, dtype=np.float64).reshape(-1)[order]
        tighten, walk = method == "crown", method != "ibp"
        while True:
            image, scratch, rows = self._slot(slot)
            if parallel:
                unstable = self._levels(image, low, high, rows)
            else:
                unstable = kernels.bound_network(
                    self.layout.program, image, scratch, low, high, tighten, walk, rows, self.intersect
                )
            if unstable >= 0:
                break
            self._weights *= 2
            self._images[slot] = _image(self.layout, self._weights)
        found = self._last.intervals(image, question.matrix) - question.offsets
        found -= 4 * _U53 * (np.abs(found) + np.abs(question.offsets))
        if walk:
            self._walk_rows(image, scratch, question, found)
        return self._collect(image, found, int(unstable), hidden)

    def _levels(self, image: Image, low: Float64Array, high: Float64Array, rows: npt.NDArray[np.int64]) -> int:
        """CROWN with each level's rows shared by the threads."""
        program = self.layout.program
        for slot in range(self.threads):
            self._slot(slot)
        kernels.start(program, image, low, high)
        for level in range(len(program.kinds)):
            kernels.open_level(program, image, level)
            count = kernels.unstable_rows(program, image, level, rows)
            if count:
                self._share(image, level, rows, count)
            if not kernels.finish_level(program, image, level):
                return -1
        return int(kernels.count_unstable(program, image))

    def _share(self, image: Image, level: int, rows: npt.NDArray[np.int64], count: int) -> None:
        half = LANES // 2
        blocks = -(-count // half)
        step = half * max(1, min(_BLOCKS, blocks // (4 * self.threads)))
        starts = itertools.count(0, step)

        def work(slot: int) -> None:
            while (begin := next(starts)) < count:
                kernels.bound_rows(
                    self.layout.program,
                    image,
                    self._scratches[slot],
                    level,
                    rows,
                    begin,
                    min(begin + step, count),
                    self.intersect,
                )

        if blocks == 1:
            work(0)
        else:
            self._each(work)

    def _walk_rows(self, image: Image, scratch: Scratch, question: Question, found: Float64Array) -> None:
        """Replaces interval bounds of rows by CROWN's where these are better."""
        # A block costs the same whatever it holds, so a few rows that are proved already cost nothing.
        few = len(found) <= LANES or not self.intersect
        chosen = np.arange(len(found)) if few else np.flatnonzero(~(found > 0))
        matrix = question.matrix[chosen][:, self.layout.orders[-1]]
        first = self.layout.values[-1]
        y, _, radius, _ = image.quantities[first : first + matrix.shape[1]].T
        row, column = np.nonzero(matrix)
        exact = matrix[row, column]
        values = exact.astype(np.float32)
        pointers = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(chosen)))]).astype(np.int64)
        out = np.empty(len(chosen))
        kernels.bound_functions(
            self.layout.program, image, scratch, pointers, first + column.astype(np.int64), values, 0, len(chosen), out
        )
        lost = np.zeros_like(matrix)
        lost[row, column] = np.abs(exact - values)
        offsets = question.offsets[chosen]
        # An output that isn't finite makes NaN here, and the bound is then the interval's.
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.abs(matrix) @ np.abs(y) + np.abs(offsets) + np.abs(out)
            error = lost @ radius * (1 + 2.0**-40) + 2 * (matrix.shape[1] + 8) * _U53 * size
            better = matrix @ y - offsets + out - error
        found[chosen] = np.fmax(found[chosen], better) if self.intersect else better

    def _collect(self, image: Image, rows: Float64Array, unstable: int, hidden: bool) -> Bounds:
        lower, upper = {}, {}
        for index in {*self.network.activated(), len(self.network.nodes) - 1} if hidden else ():
            first, order = self.layout.values[index], self.layout.orders[index]
            low, high = np.empty(len(order)), np.empty(len(order))
            low[order] = image.lower[first : first + len(order)]
            high[order] = image.upper[first : first + len(order)]
            lower[index], upper[index] = low, high
        return Bounds(np.where(np.isnan(rows), -np.inf, rows), lower, upper, unstable)


def warm_up() -> None:
    """Has every kernel compiled, or read from its cache, by bounding a small network in every way."""
    rng = np.random.default_rng(0)
    shapes = ((2, 3, 3), (8, 3, 3), (8, 3, 3), (3,))
    nodes = [Node("input", 18, shapes[0], (), np.zeros(18, dtype=np.float32), np.zeros(18, dtype=np.float32))]
    for index, shape in enumerate(shapes[1:]):
        size = int(np.prod(shape))
        matrix = dense(rng.standard_normal((size, nodes[-1].size)).astype(np.float32))
        terms = [Term(index, index > 0, matrix)]
        if index == 1:
            terms.append(Term(1, False, diagonal(np.ones(size, dtype=np.float32))))
        zeros = np.zeros(size, dtype=np.float32)
        nodes.append(Node(f"layer {index}", size, shape, tuple(terms), zeros, zeros))
    question = Question(np.zeros(18), np.ones(18), np.eye(3), np.zeros(3))
    for threads in (1, 2):
        engine = Engine(Network("warm-up", shapes[0], tuple(nodes)), threads)
        for method in METHODS:
            engine.bound(question, method)


class _Last:
    """The output node's weights, to bound rows over the outputs by intervals of what feeds them."""

    def __init__(self, layout: Layout, outputs: int) -> None:
        program, first = layout.program, layout.values[-1]
        begin, end = program.pointers[first], program.pointers[first + outputs]
        # Back in the file's order.
        rank = np.argsort(layout.orders[-1])
        self._columns, place = np.unique(program.columns[begin:end], return_inverse=True)
        self._weights = np.zeros((outputs, len(self._columns)))
        row = np.repeat(np.arange(outputs), np.diff(program.pointers[first : first + outputs + 1]))
        self._weights[row, place] = program.weights[begin:end]
        self._weights = self._weights[rank]
        self._bias = program.bias[first : first + outputs][rank]
        self._error = program.bias_error[first : first + outputs][rank]
        self._inexact = bool(program.inexact[-1])

    def intervals(self, image: Image, matrix: Float64Array) -> Float64Array:
        """Returns lower bounds of matrix @ y."""
        center, radius = image.quantities[self._columns, 0], image.quantities[self._columns, 2]
        merged = matrix @ self._weights
        size = np.abs(matrix) @ (np.abs(self._weights) @ (np.abs(center) + radius) + np.abs(self._bias))
        relative = 2 * (sum(self._weights.shape) + 16) * _U53 + (2 * WEIGHT_ERROR if self._inexact else 0.0)
        error = size * relative * (1 + 2.0**-20) + np.abs(matrix) @ self._error * (1 + 2.0**-40)
        found: Float64Array = merged @ center + matrix @ self._bias - np.abs(merged) @ radius - error
        return found


def _image(layout: Layout, weights: int) -> Image:
    program = layout.program
    variables, levels, entries = len(program.level), len(program.kinds), len(program.columns)
    places = 2 * variables + 16
    # Each level ends on a multiple of 8.
    units = places + 8 * levels
    # Rows without weights are constants, and keep these values for every image.
    quantities = np.zeros((variables, 4))
    quantities[:, 0] = np.where(program.kinds[program.level] >= FUSED, np.maximum(program.bias, 0.0), program.bias)
    quantities[:, 1] = np.abs(quantities[:, 0])
    return Image(
        quantities=quantities,
        centers=program.bias.copy(),
        lower=program.bias.copy(),
        upper=program.bias.copy(),
        slack=np.zeros(variables),
        slopes=np.full(variables, np.nan, dtype=np.float32),
        number=np.full(variables, -1, dtype=np.int32),
        planes=np.zeros((places, 4), dtype=np.float32),
        first=np.zeros(units, dtype=np.int64),
        height=np.zeros(units, dtype=np.int64),
        entries=np.zeros(units + 1, dtype=np.int64),
        offsets=np.zeros(units + 1, dtype=np.int64),
        feeders=np.zeros(units + 1, dtype=np.int64),
        columns=np.empty(entries, dtype=np.int32),
        weights=np.empty(weights, dtype=np.float32),
        fed=np.empty(entries, dtype=np.int32),
        unit=np.zeros(places, dtype=np.int32),
        begins=np.zeros(levels + 1, dtype=np.int64),
        mark=np.full(places, -1, dtype=np.int64),
        spot=np.zeros(places, dtype=np.int64),
        used=np.zeros(6, dtype=np.int64),
        tiny=np.zeros(levels + 1),
    )


def _scratch(layout: Layout) -> Scratch:
    program = layout.program
    places = 2 * len(program.level) + 16
    units = places + 8 * len(program.kinds)
    raw = np.zeros(places * LANES + 16, dtype=np.float32)
    # Vectors that cross a cache line take two loads.
    skip = (-raw.ctypes.data // 4) % 16
    flags = np.zeros(units + (-units) % 8, dtype=np.uint8)
    return Scratch(
        coefficients=raw[skip : skip + places * LANES].reshape(places, LANES),
        flags=flags,
        words=flags.view(np.uint64),
        sums=np.zeros(LANES, dtype=np.float32),
        totals=np.zeros(LANES),
        work=np.zeros(3, dtype=np.int64),
    )
