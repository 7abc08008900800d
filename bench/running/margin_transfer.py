"""Carries proved margins from one network to a smaller one, by what their margins can differ by over a box.

See `bench.running.retention`; a proof that carries over passes the same guard as every verifier's `unsat`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status, UnsupportedError, Verdict
from prunecert.verifiers.rounding import guard
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.crown.engine import CrownBounds, Engine, Question
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.pairs.bounds import Bounder, bound_rows
from prunecert.verifiers.sparse.pairs.network import Pair
from prunecert.verifiers.sparse.pairs.rounded import RoundedPair
from prunecert.verifiers.sparse.pairs.specification import Candidates
from prunecert.verifiers.sparse.quantised.question import Quantised
from prunecert.verifiers.sparse.threads import threads

#: Bounds of a network that isn't bounded by itself.
_NOTHING = CrownBounds(np.zeros(0), {}, {}, 0)
#: Who is answerable for a transfer where its rounding is judged.
_JUDGED_AS = "sparse-pair"


class Transfer:
    """Carries margins from a dense network to pruned ones.

    Args:
        dense: The dense network.
    """

    def __init__(self, dense: Network) -> None:
        self._dense, self._engine = dense, Engine(dense, threads())
        self._bounders: dict[str, tuple[Engine, Bounder, Bounder]] = {}
        self._rounding: dict[str, RoundedPair] = {}
        self._known: tuple[tuple[object, ...], CrownBounds] | None = None

    def add(self, name: str, pruned: Network | Quantised) -> None:
        """Takes in a pruned network, or one that rounds.

        Raises:
            UserError: It has another architecture.
            UnsupportedError: It can't be compared.
        """
        if isinstance(pruned, Quantised):
            rounding = RoundedPair(self._dense, pruned, threads())
            if rounding.pair is None:
                raise UnsupportedError(rounding.why)
            self._rounding[name] = rounding
            return
        engine = Engine(pruned, threads())
        pair, engines = Pair(self._dense, pruned), (self._engine, engine)
        self._bounders[name] = engine, Bounder(pair, engines, walks=False), Bounder(pair, engines)

    def bounds(self, name: str, instance: Instance) -> tuple[float, ...]:
        """Bounds the margins of a pruned network by those of the dense one and by their differences.

        Args:
            name: Of the pruned network.
            instance: The question about it; the dense network's bounds for the same box are computed once.

        Returns:
            For each other class, in the order of the property's disjuncts; they hold in real arithmetic. Intervals of
            differences are tried first; walks, with the pruned network's own bounds, where these leave a class open.
        """
        rows = np.concatenate([matrix for matrix, _ in instance.spec.disjuncts])
        if name in self._rounding:
            return self._at_lattice(self._rounding[name], instance, rows)
        lower, upper = (corner.astype(np.float64).reshape(-1) for corner in (instance.lower, instance.upper))
        question = Question(lower, upper, rows, np.zeros(len(rows)))
        image = lower.tobytes(), upper.tobytes(), instance.spec.digest()
        if self._known is None or self._known[0] != image:
            self._known = image, self._engine.bound(question)
        differences = _differences(rows)
        dense, (engine, quick, thorough) = self._known[1], self._bounders[name]
        # The pruned network's own values follow from the dense one's and from the differences.
        pair = quick.with_own(lower, upper, dense, _NOTHING)
        total = dense.rows + bound_rows(pair, differences, choices=("mixed",))[0]
        if not (total > 0).all():
            pair = thorough.with_own(lower, upper, dense, engine.bound(question))
            total = np.maximum(total, dense.rows + bound_rows(pair, differences, choices=("together", "mixed"))[0])
        return tuple(np.nextafter(total, -np.inf).tolist())

    def _at_lattice(self, pair: RoundedPair, instance: Instance, rows: Float64Array) -> tuple[float, ...]:
        """Bounds the margins of a network that rounds: both are given what its first rounding makes of the box.

        Walks of hidden differences gain a twentieth here at most, and take five times as long.
        """
        box = instance.lower, instance.upper
        bounds = pair.bound(*box, shared=True, walks=False)
        assert bounds is not None
        lower, upper = pair.lattice(*box)
        dense = self._engine.bound(Question(lower, upper, rows, np.zeros(len(rows)))).rows
        total = dense + bound_rows(bounds, _differences(rows), choices=("together", "mixed"))[0]
        return tuple(np.nextafter(total, -np.inf).tolist())


def _differences(rows: Float64Array) -> Candidates:
    """Returns rows over the change from one network's outputs to the other's."""
    none = np.zeros_like(rows.T)
    return Candidates(none, rows.T.copy(), np.zeros(len(rows)), none, np.arange(len(rows)))


def carries(bounds: tuple[float, ...], instance: Instance) -> bool:
    """Whether bounds prove a question, with room for what float32 rounding does."""
    # Each by itself: the least of numbers, one of which is none, depends on their order.
    if not all(bound > 0 for bound in bounds):
        return False
    verdict = Verdict(Status.UNSAT, bounds=bounds)
    return guard.guard(VERIFIERS.get(_JUDGED_AS), replace(instance, allowance=()), verdict).status is Status.UNSAT
