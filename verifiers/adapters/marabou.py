"""Marabou (PyPI `maraboupy`, an extra), a complete verifier for small networks on the CPU; tested with 2.0.0.

It solves with floating-point simplex and its own tolerances (about 1e-6 on each constraint), so that it is asked for a
proof with room for rounding first (`verifiers.rounding.guard`), and then for counterexamples to the property itself.
Each disjunct is a query of its own, because its disjunction constraint has returned witnesses that meet no disjunct
(NeuralNetworkVerification/Marabou, issues 563 and 873).
"""

from __future__ import annotations

import importlib.metadata
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from prunecert.verifiers.adapters.hardware import describe, first_missing
from prunecert.verifiers.base import (
    Availability,
    Capabilities,
    FloatArray,
    Instance,
    Kind,
    Status,
    Times,
    Verdict,
    Verifier,
)
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.settings import Setting

#: Every exit code that Marabou's Python interface documents, in its spelling.
STATUS: Mapping[str, Status] = {
    "unsat": Status.UNSAT,
    "sat": Status.SAT,
    "TIMEOUT": Status.TIMEOUT,
    "UNKNOWN": Status.UNKNOWN,
    "ERROR": Status.ERROR,
    "QUIT_REQUESTED": Status.ERROR,
}
#: How far inside the unsafe set a counterexample is sought, one after the other.
SLACKS = (0.0, 1e-5, 1e-4, 1e-3)
SPLITTING = ("auto", "largest-interval", "relu-violation", "polarity", "earliest-relu")
#: What its ONNX parser reads, but for operators whose bounds it can't search completely.
OPERATORS = frozenset({"Add", "Conv", "Flatten", "Gemm", "MaxPool", "Relu", "Reshape"})


def parse_status(word: object) -> tuple[Status, str]:
    """Returns status and detail of Marabou's exit code; any other word is `error`."""
    if not isinstance(word, str) or word not in STATUS:
        return Status.ERROR, f"Marabou ended with {word!r}, which is none of its known exit codes"
    status = STATUS[word]
    return status, "" if status.decided else f"Marabou ended with {word}"


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
        if first_missing("maraboupy") is not None:
            return Availability(False, hint="Marabou is an extra: python -m pip install 'prunecert[marabou]'")
        version = importlib.metadata.version("maraboupy")
        return Availability(True, version, source=f"maraboupy {version} (PyPI)")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """Piecewise linear networks; boxes; any linear output property in disjunctive normal form."""
        return Capabilities(operators=OPERATORS, specs="dnf")

    def start(self) -> None:
        """Imports Marabou."""
        self._label = describe(self.device)
        with warnings.catch_warnings():
            # It warns of each network format whose package is missing, TensorFlow's above all.
            warnings.filterwarnings("ignore", message=".*parser is unavailable.*")
            import maraboupy.Marabou
            import maraboupy.MarabouCore
        self._marabou: Any = maraboupy.Marabou
        self._core: Any = maraboupy.MarabouCore

    def load(self, onnx: Path) -> None:
        """Reads the network once; each query is a copy."""
        self._onnx = onnx
        self._network = self._marabou.read_onnx(str(onnx))
        self._inputs = [int(variable) for variable in np.asarray(self._network.inputVars[0]).reshape(-1)]
        self._outputs = [int(variable) for variable in np.asarray(self._network.outputVars[0]).reshape(-1)]

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Runs one query a disjunct of each instance."""
        return [self._solve(instance) for instance in instances]

    def _solve(self, instance: Instance) -> Verdict:
        started = time.perf_counter()
        deadline = started + instance.timeout
        self._visited = 0
        answers = []
        witness = None
        more = instance.allowance or (0.0,) * len(instance.spec.disjuncts)
        for (rows, limits), allowed in zip(instance.spec.disjuncts, more, strict=True):
            status, detail, witness = self._disjunct(instance, rows, limits, 4.0 * allowed, deadline)
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
            domains=self._visited,
            device=self._label,
        )

    def _disjunct(
        self, instance: Instance, rows: Any, limits: Any, allowed: float, deadline: float
    ) -> tuple[Status, str, FloatArray | None]:
        """Decides one disjunct.

        A simplex vertex lies on the border of the unsafe set, where float32 arithmetic may see it on either side. So
        a counterexample that onnxruntime does not confirm is sought again further inside.
        """
        # Outside of the unsafe set by the allowance: what is proved of that holds with a margin.
        slacks = (-allowed, *SLACKS) if allowed else SLACKS
        for number, inside in enumerate(slacks):
            remaining = deadline - time.perf_counter()
            if remaining <= 0:
                return Status.TIMEOUT, "the time limit was reached between two queries", None
            query = self._query(instance, rows, limits - inside)
            word, values, statistics = self._core.solve(query, self._options(remaining))
            self._visited += int(
                statistics.getUnsignedAttribute(self._core.StatisticsUnsignedAttribute.NUM_VISITED_TREE_STATES)
            )
            status, detail = parse_status(word)
            if status is Status.UNSAT and number:
                break
            if status is not Status.SAT:
                return status, detail, None
            point = np.array([values[variable] for variable in self._inputs], dtype=np.float32)
            point = np.clip(point.reshape(instance.lower.shape), instance.lower, instance.upper)
            # The very replay that judges it later: another session may be 1e-8 off, which decides on the border.
            if instance.spec.violated_by(outputs(self._onnx, point[None])[0]):
                return status, "", point
        return Status.UNKNOWN, f"Marabou's counterexample is within {SLACKS[-1]} of the threshold: not confirmed", None

    def _query(self, instance: Instance, rows: Any, limits: Any) -> Any:
        query = self._network.getInputQuery()
        for variable, low, high in zip(
            self._inputs, instance.lower.reshape(-1), instance.upper.reshape(-1), strict=True
        ):
            query.setLowerBound(variable, float(low))
            query.setUpperBound(variable, float(high))
        for row, limit in zip(rows, limits, strict=True):
            equation = self._core.Equation(self._core.Equation.EquationType.LE)
            for factor, variable in zip(row, self._outputs, strict=True):
                if factor:
                    equation.addAddend(float(factor), variable)
            equation.setScalar(float(limit))
            query.addEquation(equation)
        return query

    def _options(self, seconds: float) -> Any:
        workers = self.settings["workers"]
        return self._marabou.createOptions(
            verbosity=0,
            timeoutInSeconds=max(1, math.ceil(seconds)),
            splittingStrategy=self.settings["splitting"],
            numWorkers=workers,
            snc=workers > 1,
        )
