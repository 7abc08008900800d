"""IBP, CROWN-IBP and CROWN of a sparse network, with bounds that hold in real arithmetic.

IBP: Gowal et al. 2018. CROWN: Zhang et al. 2018, with the lower slope 1 where u > -l and else 0, as the walk alone
bounds the neuron. CROWN-IBP: Zhang et al. 2020, section 3. `verifiers.sparse.crown.rounding` says how rounding is
accounted for and why slopes are chosen so, `verifiers.sparse.crown.program` and `verifiers.sparse.crown.rows.layout`
how the network is laid out. Hidden bounds are the better of CROWN's and the interval's, and CROWN's are computed only
for neurons that intervals leave unstable.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.crown.memory import walk_mb
from prunecert.verifiers.sparse.crown.passes import Pass, RowPass, UnitPass
from prunecert.verifiers.sparse.crown.units.blocks import LEAST_DENSITY
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.threads import threads as available
from prunecert.verifiers.sparse.threads import together

Method = Literal["ibp", "crown-ibp", "crown"]
METHODS: tuple[Method, ...] = ("ibp", "crown-ibp", "crown")

#: Up to so many entries of all matrices, walks prepare no units of several neurons: building them costs more than they
#: save. From ``python -m bench.engine.kernels bounds``.
FEW_ENTRIES = 170_000
#: From such a share of blocks on, intervals alone are taken through them, too.
_MOSTLY = 0.5


@dataclass(frozen=True, eq=False)
class CrownBounds:
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
        threads: Threads for images, or for blocks of rows of one image; None for those that the process may use
            (`verifiers.sparse.threads`).
        intersect: Whether CROWN's bounds are combined with those of intervals; without, they are what other
            implementations of CROWN compute.
        few_entries: Networks with at most so many entries are walked row by row, others in units.
        most: Work of a level that is left to one thread; None for what is worth handing over.
        least_density: As `units.blocks.find_blocks`, where networks are walked in units.
    """

    def __init__(
        self,
        network: Network,
        threads: int | None = None,
        intersect: bool = True,
        few_entries: int = FEW_ENTRIES,
        most: int | None = None,
        least_density: float = LEAST_DENSITY,
    ) -> None:
        self._most, self._least_density = most, least_density
        self.intersect = intersect
        self.network = network
        self.threads = threads or available()
        self._few = network.nonzeros <= few_entries
        self._input = len(network.nodes[0].bias)
        self._hidden = tuple(sorted({*network.activated(), len(network.nodes) - 1}))

    @property
    def walk_mb(self) -> float:
        """How much memory CROWN of one image takes at its peak, in MiB, as is known before (`crown.memory`)."""
        return walk_mb(self.network, self.threads, self._few)

    def fit(self, memory_mb: float) -> bool:
        """Gives up threads until CROWN of one image fits into so much memory; says whether it does.

        Each thread has a scratch of its own, so that a network that is refused with many may be walked with few. Before
        the first bound only: what is laid out for threads stays.

        Args:
            memory_mb: In MiB, as `walk_mb`.
        """
        while self.threads > 1 and self.walk_mb > memory_mb and not self.laid_out:
            self.threads -= 1
        return self.walk_mb <= memory_mb

    @property
    def laid_out(self) -> bool:
        """Whether it has taken the memory that it needs."""
        return not {"_by_rows", "_by_units"}.isdisjoint(vars(self))

    @functools.cached_property
    def _by_rows(self) -> RowPass:
        return RowPass(self.network, self.threads, functools.partial(_in_each, self.threads), self._most)

    @functools.cached_property
    def _by_units(self) -> UnitPass:
        each = functools.partial(_in_each, self.threads)
        return UnitPass(self.network, self.threads, each, self._most, self._least_density)

    def prepare(self, method: Method = "crown") -> None:
        """Lays the network out for a method, which the first question does otherwise."""
        self._pass(method)

    def _pass(self, method: Method) -> Pass:
        # Stripes of convolutions leave out weights that are 0; blocks leave out what is inactive, which is faster.
        if self._few or (method == "ibp" and self._by_units.block_share < _MOSTLY):
            return self._by_rows
        return self._by_units

    def multiplications(self) -> int:
        """Returns how many products of a weight and a coefficient the walks have taken since the start."""
        passes = [self.__dict__[name] for name in ("_by_rows", "_by_units") if name in self.__dict__]
        return sum(item.multiplications() for item in passes)

    def forward(self, x: npt.ArrayLike) -> list[Float64Array]:
        """Computes what `Network.forward` does, but for rounding; through blocks, where what is inactive costs nothing.

        Args:
            x: Inputs [n, ...], each of the input's size.

        Returns:
            For each node [n, size].
        """
        if self._few or self._by_units.block_share < _MOSTLY:
            return self.network.forward(x)
        points = np.asarray(x, dtype=np.float64)
        points = np.ascontiguousarray(points.reshape(len(points), self._input))
        values = [np.empty((len(points), node.size)) for node in self.network.nodes]
        for place, point in enumerate(points):
            for value, own in zip(values, self._by_units.forward(0, point), strict=True):
                value[place] = own
        return values

    def evaluate(self, x: npt.ArrayLike) -> Float64Array:
        """Computes the outputs: [n, ...] to [n, outputs]."""
        return self.forward(x)[-1]

    def bound(self, question: Question, method: Method = "crown", hidden: bool = True) -> CrownBounds:
        """Bounds one image; CROWN's rows are shared by the threads where that pays.

        Without `hidden`, only the rows' bounds are kept.
        """
        return self._bound(0, question, method, self.threads > 1, hidden)

    def bound_many(
        self, questions: Sequence[Question], method: Method = "crown", hidden: bool = True
    ) -> list[CrownBounds]:
        """Bounds many images, each in one thread, or one after the other where there are fewer than threads."""
        if len(questions) < self.threads or self.threads == 1:
            return [self.bound(question, method, hidden) for question in questions]
        results: list[CrownBounds | None] = [None] * len(questions)
        places = itertools.count()

        def work(slot: int) -> None:
            while (place := next(places)) < len(questions):
                results[place] = self._bound(slot, questions[place], method, False, hidden)

        self._pass(method).reserve(self.threads)
        _in_each(self.threads, work)
        return [result for result in results if result is not None]

    def _bound(self, slot: int, question: Question, method: Method, parallel: bool, hidden: bool) -> CrownBounds:
        outputs = self.network.nodes[-1].size
        if not np.size(question.lower) == np.size(question.upper) == self._input:
            raise ValueError(f"the box has {np.size(question.lower)} numbers; the network takes {self._input}")
        if question.matrix.shape != (len(question.offsets), outputs):
            raise ValueError(f"rows of shape {question.matrix.shape} don't fit {outputs} outputs")
        low = np.ascontiguousarray(question.lower, dtype=np.float64).reshape(-1)
        high = np.ascontiguousarray(question.upper, dtype=np.float64).reshape(-1)
        matrix = np.ascontiguousarray(question.matrix, dtype=np.float64)
        offsets = np.ascontiguousarray(question.offsets, dtype=np.float64)
        run = self._pass(method)
        rows, unstable = run.bound(
            slot, (low, high, matrix, offsets), method == "crown", method != "ibp", self.intersect, parallel
        )
        lower, upper = {}, {}
        for index in self._hidden if hidden else ():
            lower[index], upper[index] = run.hidden(slot, index)
        rows[np.isnan(rows)] = -np.inf
        return CrownBounds(rows, lower, upper, unstable)


def _in_each(threads: int, work: Callable[[int], None]) -> None:
    """Calls work(slot) in every one of so many threads."""
    together(threads, [functools.partial(work, slot) for slot in range(threads)])
