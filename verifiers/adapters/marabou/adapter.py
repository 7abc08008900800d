"""Marabou (PyPI `maraboupy`, an extra), a complete verifier for small networks on the CPU; tested with 2.0.0.

It solves with floating-point simplex and its own tolerances (about 1e-6 on each constraint), so that it is asked for a
proof with room for rounding first (`verifiers.rounding.guard`), and then for counterexamples to the property itself.
Each disjunct is a query of its own, because its disjunction constraint has returned witnesses that meet no disjunct
(NeuralNetworkVerification/Marabou, issues 563 and 873).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from prunecert.verifiers.adapters.hardware import describe, packaged
from prunecert.verifiers.base import (
    Availability,
    Capabilities,
    Instance,
    Kind,
    Status,
    Times,
    Verdict,
    Verifier,
)
from prunecert.verifiers.settings import Setting

SPLITTING = ("auto", "largest-interval", "relu-violation", "polarity", "earliest-relu")
#: What its ONNX parser reads, but for operators whose bounds it can't search completely.
OPERATORS = frozenset({"Add", "Conv", "Flatten", "Gemm", "MaxPool", "Relu", "Reshape"})


class Marabou(Verifier):
    """Simplex with ReLU splits and DeepPoly bounds, one query a disjunct."""

    name = "marabou"
    kind = Kind.COMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "splitting": Setting(default="auto", choices=SPLITTING, help="which ReLU to split"),
        "workers": Setting(default=1, at_least=1, help="processes of its split-and-conquer mode; 1: without that mode"),
    }
    recycle_after = 500
    tightens = True

    @classmethod
    def availability(cls) -> Availability:
        """Looks for the distribution."""
        return packaged("maraboupy", cuda=False, install="'prunecert[marabou]'", whose="Marabou")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """Piecewise linear networks; boxes; any linear output property in disjunctive normal form."""
        return Capabilities(operators=OPERATORS, specs="dnf")

    def start(self) -> None:
        """Imports Marabou."""
        self._label = describe(self.device)
        from prunecert.verifiers.adapters.marabou.engine import Engine

        self._engine = Engine(self.settings)

    def load(self, onnx: Path) -> None:
        """Reads the network."""
        self._engine.load(onnx)

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Runs one query a disjunct of each instance."""
        return [self._solve(instance) for instance in instances]

    def _solve(self, instance: Instance) -> Verdict:
        started = time.perf_counter()
        deadline = started + instance.timeout
        self._engine.visited = 0
        answers = []
        witness = None
        more = instance.allowance or (0.0,) * len(instance.spec.disjuncts)
        for (rows, limits), allowed in zip(instance.spec.disjuncts, more, strict=True):
            status, detail, witness = self._engine.decide(instance, rows, limits, 4.0 * allowed, deadline)
            answers.append((status, detail))
            if status is Status.SAT:
                break
        # A counterexample to one disjunct is enough; `unsat` needs all of them, and an error shows before the rest.
        order = (Status.SAT, Status.ERROR, Status.TIMEOUT, Status.UNKNOWN, Status.UNSAT)
        status, detail = min(answers, key=lambda answer: order.index(answer[0]))
        return Verdict(
            status,
            detail,
            witness=witness,
            times=Times(search_s=time.perf_counter() - started),
            stage="bab" if status.decided else None,
            domains=self._engine.visited,
            device=self._label,
        )
