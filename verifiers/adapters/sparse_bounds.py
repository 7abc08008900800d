"""IBP, CROWN-IBP and CROWN by the sparse engine: relaxations as in `verifiers.adapters.lirpa`, no safety margin.

The bounds hold for the real-valued network whose weights are those of the file, all rounding charged
(`verifiers.sparse.crown.rounding`), so a bound above 0 is a proof, however small it is.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from prunecert.verifiers.adapters.bounding import in_time, what_is_open
from prunecert.verifiers.adapters.sparse_adapter import SparseVerifier, boxes_only
from prunecert.verifiers.adapters.sparse_balls import Balls
from prunecert.verifiers.base import Instance, Kind, Status, Times, Verdict

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.certify import Checker
    from prunecert.verifiers.sparse.quantised.question import Quantised


class _SparseBounds(SparseVerifier):
    """What the three methods share."""

    kind = Kind.INCOMPLETE
    kernels = "bounds"
    method: ClassVar[Any]
    #: Images bounded before the clock is looked at.
    chunk: ClassVar[int] = 100
    batch_size = 100
    #: Of a quantised network.
    _checker: Checker

    def start(self) -> None:
        """Imports the engine and has its kernels compiled, or read from their cache."""
        from prunecert.verifiers.sparse import warmup
        from prunecert.verifiers.sparse.crown import engine

        self._crown = engine
        warmup.warm_up_bounds()

    def load(self, onnx: Path) -> None:
        """Reads the network and lays it out for the kernels."""
        self._read(onnx)
        self._engine = self._crown.Engine(self._network)
        self._engine.prepare(self.method)
        if self._quantised is not None:
            from prunecert.verifiers.sparse import warmup
            from prunecert.verifiers.sparse.certify import Checker

            warmup.warm_up()
            self._checker = Checker(self._network)

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Bounds all specification rows of the instances, chunk by chunk."""
        limit = sum(instance.timeout for instance in instances)
        parts = (instances[first : first + self.chunk] for first in range(0, len(instances), self.chunk))
        return in_time(parts, limit, self._solve)

    def _solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        begin = time.perf_counter()
        boxes = [instance for instance in instances if instance.norm == "linf"]
        results = iter(
            self._engine.bound_many([self._question(instance) for instance in boxes], self.method, hidden=False)
            if self._quantised is None
            else [self._bound_quantised(self._quantised, instance) for instance in boxes]
        )
        share = (time.perf_counter() - begin) / max(1, len(boxes))
        return [
            self._verdict(instance, self._disjuncts(instance, next(results)), share)
            if instance.norm == "linf"
            else self._on_ball(instance)
            if self._quantised is None
            else boxes_only(self.name, instance)
            for instance in instances
        ]

    def _on_ball(self, instance: Instance) -> Verdict:
        return boxes_only(self.name, instance)

    def _bound_quantised(self, quantised: Quantised, instance: Instance) -> Any:
        """Bounds an instance by intervals, which are exact through roundings, and by the method; the better counts.

        The walk is `verifiers.sparse.certify`'s, which may take a neuron between two neighbouring numbers as it is.
        """
        from prunecert.verifiers.sparse.bab.cuts import cut
        from prunecert.verifiers.sparse.bab.prover import adopt_crown, sharpened

        boxed = self._boxed(quantised, instance)
        question = replace(self._question(instance), lower=boxed.lower, upper=boxed.upper)
        rows = quantised.rows(boxed, question.matrix, question.offsets)
        result = self._engine.bound(question, self.method)
        corners = boxed.lower.astype(np.float64), boxed.upper.astype(np.float64)
        bounds = adopt_crown(self._checker, *corners, result)
        sharpened(self._checker, bounds, functools.partial(quantised.sharpen, boxed.intervals))
        if self.method != "ibp":
            rows = np.maximum(rows, cut(self._checker, bounds, question.matrix, question.offsets))
        unstable = sum(len(bounds.unstable(node)) for node in self._checker.activated)
        return replace(result, rows=np.maximum(rows, result.rows), unstable=unstable)

    def _question(self, instance: Instance) -> Any:
        matrices, offsets = [np.zeros((0, instance.classes))], [np.zeros(0)]
        for a, b in instance.spec.disjuncts:
            matrices.append(a)
            offsets.append(b)
        return self._crown.Question(instance.lower, instance.upper, np.concatenate(matrices), np.concatenate(offsets))

    @staticmethod
    def _disjuncts(instance: Instance, result: Any) -> tuple[tuple[float, ...], int]:
        """Returns the bound of each disjunct, and the unstable ReLUs."""
        bounds, first = [], 0
        for _, b in instance.spec.disjuncts:
            # A disjunct without rows holds everywhere.
            bounds.append(float(result.rows[first : first + len(b)].max(initial=-math.inf)))
            first += len(b)
        return tuple(bounds), result.unstable

    def _verdict(self, instance: Instance, result: tuple[tuple[float, ...], int], seconds: float) -> Verdict:
        bounds, unstable = result
        common: dict[str, Any] = {"times": Times(bound_s=seconds), "unstable": unstable}
        if not all(math.isfinite(bound) for bound in bounds):
            return Verdict(Status.UNKNOWN, "a bound is infinite", **common)
        if bounds and min(bounds) > 0:
            return Verdict(Status.UNSAT, bounds=bounds, stage="incomplete", **common)
        return Verdict(Status.UNKNOWN, what_is_open(bounds), bounds=bounds, **common)


class SparseIbp(_SparseBounds):
    """Interval bound propagation."""

    name = "sparse-ibp"
    method = "ibp"


class SparseCrownIbp(_SparseBounds):
    """CROWN for the outputs over IBP's bounds of the hidden neurons."""

    name = "sparse-crown-ibp"
    method = "crown-ibp"


class SparseCrown(_SparseBounds):
    """CROWN for the outputs and for every hidden neuron that IBP leaves unstable; over l2 balls, SDP-CROWN."""

    name = "sparse-crown"
    norms = ("linf", "l2")
    method = "crown"
    chunk = 10
    _balls: Balls | None = None

    def load(self, onnx: Path) -> None:
        """Reads the network and lays it out for the kernels."""
        super().load(onnx)
        self._balls = None

    def _on_ball(self, instance: Instance) -> Verdict:
        begin = time.perf_counter()
        self._balls = self._balls or Balls(self._network)
        result = self._balls.bound(instance)
        seconds = time.perf_counter() - begin
        if result is None:
            late = "out of time before all hidden neurons were bounded"
            return Verdict(Status.TIMEOUT, late, times=Times(bound_s=seconds))
        return self._verdict(instance, result, seconds)
