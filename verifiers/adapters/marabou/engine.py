"""Marabou's queries, one a disjunct; it is imported in the worker only."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.verifiers.adapters.marabou.words import parse_status
from prunecert.verifiers.base import FloatArray, Instance, Status
from prunecert.verifiers.formats.counterexample import outputs

#: How far inside the unsafe set a counterexample is sought, one after the other.
SLACKS = (0.0, 1e-5, 1e-4, 1e-3)


class Engine:
    """Marabou with one network.

    Args:
        settings: The adapter's.

    Attributes:
        visited: States of its search trees, since this was set to 0.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        with warnings.catch_warnings():
            # It warns of each network format whose package is missing, TensorFlow's above all.
            warnings.filterwarnings("ignore", message=".*parser is unavailable.*")
            import maraboupy.Marabou
            import maraboupy.MarabouCore
        self._marabou: Any = maraboupy.Marabou
        self._core: Any = maraboupy.MarabouCore
        self._settings = settings
        self.visited = 0

    def load(self, onnx: Path) -> None:
        """Reads the network once; each query is a copy."""
        self._onnx = onnx
        self._network = self._marabou.read_onnx(str(onnx))
        self._inputs = [int(variable) for variable in np.asarray(self._network.inputVars[0]).reshape(-1)]
        self._outputs = [int(variable) for variable in np.asarray(self._network.outputVars[0]).reshape(-1)]

    def decide(
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
            self.visited += int(
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
        workers = self._settings["workers"]
        return self._marabou.createOptions(
            verbosity=0,
            timeoutInSeconds=max(1, math.ceil(seconds)),
            splittingStrategy=self._settings["splitting"],
            numWorkers=workers,
            snc=workers > 1,
        )
