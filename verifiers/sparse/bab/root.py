"""What the phases of a search hand to one another: the task, what is proved so far, and the box after CROWN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.counterexamples import Attackable, Hunt
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.bab.prover import Sharpen
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from prunecert.verifiers.sparse.onnx.neuron_names import Names
from prunecert.verifiers.sparse.proofs.store import Earlier


@dataclass(frozen=True, eq=False)
class Task:
    """A question to one network, and how hard it is worked on.

    Args:
        checker: Of the network.
        hunt: Looks for counterexamples in the box.
        limits: How hard to search.
        deadline: `time.monotonic` at which to end.
        earlier: What searches on other networks left for the same box and property, or None.
        names: Of the network's neurons; needed with `earlier`.
        sharpen: What is known of nodes' values over the box beyond the network's bounds, see `prover.sharpened`.
    """

    checker: Checker
    hunt: Hunt
    limits: Limits
    deadline: float
    earlier: Earlier | None
    names: Names | None
    sharpen: Sharpen | None = None


class Standing:
    """What is proved of each disjunct so far, and the outcome that it leads to.

    Args:
        spec: The unsafe set.
        allowance: For each disjunct, how much more than `spec` is to be proved; empty: nothing.
    """

    def __init__(self, spec: OutputSpec, allowance: tuple[float, ...]) -> None:
        self.outcome = Outcome()
        #: A little more, so that what is proved by it stays more than the allowance when offsets are rounded.
        self.more: Float64Array = (1 + 2.0**-10) * np.array(allowance or np.zeros(len(spec.disjuncts)))
        #: Lower bound of each disjunct, infinity where all that is known of it is still to be counted in.
        self.proved: Float64Array = np.full(len(spec.disjuncts), np.inf)
        #: CROWN's.
        self.crown = self.proved
        self._sizes = np.array([float(np.abs(b).max(initial=0.0)) for _, b in spec.disjuncts])

    def reported(self) -> tuple[float, ...]:
        """Returns what is proved of each disjunct as bounds of its own rows.

        A bound of a y - (b + s) is one of a y - b when s is added; that, and the offset's own rounding, err by some
        units in the last place.
        """
        error = 2.0**-50 * (self._sizes + self.more + np.abs(self.proved)) * (self.more > 0)
        return tuple(float(value) for value in self.proved + self.more - error)

    def won(self, witness: Float32Array | None, stage: str) -> bool:
        """Ends the search if there is a counterexample."""
        if witness is None:
            return False
        out = self.outcome
        out.status, out.witness, out.stage, out.bounds, out.detail = Status.SAT, witness, stage, None, ""
        return True


@dataclass(frozen=True, eq=False)
class Root:
    """The whole box after CROWN: what is still to be proved. R rows of the open disjuncts.

    Args:
        open: Disjuncts of the property that CROWN doesn't exclude.
        rows: Theirs, [R, outputs].
        offsets: [R], with what is to be proved beyond.
        shift: The latter, [R].
        disjuncts: Rows (start, stop) of each open disjunct.
        bounds: Of all nodes over the box; improved in place (`intermediate_bounds`).
        postponed: The attack on all of the property that waits until an earlier proof has been tried, or None.
    """

    open: Int64Array
    rows: Float64Array
    offsets: Float64Array
    shift: Float64Array
    disjuncts: list[tuple[int, int]]
    bounds: CheckedBounds
    postponed: Attackable | None
