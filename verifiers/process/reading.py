"""A network as verifiers get it: its normal form, the way there for questions, and the way back for answers.

Lives in the worker process, under its limits. The parent knows the network only as it was given, and replays every
counterexample there; what is made of the file here is therefore checked here, before a proof counts:

* the file is run twice on the same inputs: one that answers otherwise each time is no function, and is refused;
* what the adapter has read is compared with onnxruntime on points of the instance's own box, and so is the normal form
  with the file as it was given.

What rounding does to an answer is measured by the parent, on the file as it was given (`verifiers.rounding.guard`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.onnx.graph import inlined
from prunecert.onnx.io import identity, load_model
from prunecert.onnx.normal import Normalised, UnsupportedNetworkError
from prunecert.onnx.normalise import normalise
from prunecert.onnx.rounding import forget
from prunecert.onnx.types import FLOAT32_UNIT, unit_of
from prunecert.verifiers.base import Capabilities, FloatArray, Instance, OutputSpec, Status, UnsupportedError, Verdict
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.support import (
    OPERATORS,
    NetworkInfo,
    SpecKind,
    is_rewritten,
    mark_rewritten,
    network_info,
    spec_kind,
    takes_native,
)
from prunecert.verifiers.process.rewrites import without_averages, write_without

Evaluate = Callable[[FloatArray], npt.NDArray[Any] | None]

#: Points of a box on which a network that was rewritten is compared, and one that is handed on as it is.
POINTS_REWRITTEN = 5
POINTS_SAME = 2
#: How far two evaluations in float32 may differ, relative to the outputs' scale, before their rounding is bounded.
TOLERANCE = 1e-4
#: Relative distance of two numbers at which float32 certainly tells their exponentials apart.
_TELLS_APART = 1e-5


class FileReading:
    """One file, read for one number of outputs.

    Args:
        onnx: The file as it was given.
        sha256: Its identity as the parent knows it.
        outputs: Numbers of the output that is asked about.
        allowed: What the adapter takes.
        folder: Where the normal form goes, if it isn't the file itself.

    Attributes:
        path: The network that the adapter gets.
        operators: Pairs (operator, first node that uses it) of that network.
        normal: Whether that network is in normal form; if not, it is one that the adapter takes as it is.

    Raises:
        UserError: The file is no network, is another one than the parent knows, or has no output of that size.
        UnsupportedNetworkError: It is a network that has no normal form; the node is named.
    """

    def __init__(self, onnx: Path, sha256: str, outputs: int, allowed: Capabilities, folder: Path) -> None:
        if identity(onnx) != sha256:
            raise UserError(f"Network {onnx} was replaced while it was waiting to be read; plan the run again.")
        self._given, self._outputs = onnx, outputs
        model = load_model(onnx)
        self._normal = _normalise(model, network_info(onnx), outputs, allowed)
        if self._normal.outputs != outputs:
            raise UserError(
                f"{onnx.name} has an output of {self._normal.outputs} numbers but the property is about {outputs}; "
                "they must be equal."
            )
        self.path, self._sha256 = onnx, sha256
        if self._normal.changed:
            folder.mkdir(parents=True, exist_ok=True)
            # The adapters' messages name the file, so that it keeps its name.
            self.path = folder / onnx.name
            mark_rewritten(self._normal.model)
            if is_rewritten(model):
                # The given file's numbers stand for others already, and so do all that are made of them.
                forget(self._normal.model)
            self.path.write_bytes(self._normal.model.SerializeToString())
            self._sha256 = sha256_file(self.path)
        self.operators = operators_of(self._normal)
        constants = {tensor.name for tensor in self._normal.model.graph.initializer}
        entry = next(value for value in self._normal.model.graph.input if value.name not in constants)
        self.normal = all(operator in OPERATORS for operator, _ in self.operators)
        self._shape = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)[1:]
        self._activation = self._normal.removed
        plain = inlined(model)
        self._unit = unit_of(plain)
        #: The file without the operator that was removed, where there is one and it stands in the file's own graph.
        self._before: Path | None = None
        if self._activation:
            self._before = write_without(plain, self._normal.output, self._activation, folder / f"before-{onnx.name}")
        self._compared = False

    @property
    def changed(self) -> bool:
        """Whether the adapter gets another file than the one that was given."""
        return self._normal.changed

    def discard(self) -> None:
        """Removes what was written beside the file."""
        for path in (self.path if self.changed else None, self._before):
            if path is not None:
                path.unlink(missing_ok=True)

    def translate(self, instance: Instance) -> Instance:
        """Returns the question about the normal form.

        Raises:
            UnsupportedError: The property speaks of values that the normal form hasn't got.
        """
        if not self.changed:
            return instance
        return replace(
            instance,
            onnx=self.path,
            onnx_sha256=self._sha256,
            lower=self._forth(instance.lower),
            upper=self._forth(instance.upper),
            center=None if instance.center is None else self._forth(instance.center),
            starts={name: self._forth(point) for name, point in instance.starts.items()},
            spec=self._translate_spec(instance),
        )

    def _forth(self, point: FloatArray) -> FloatArray:
        flat = np.asarray(point).reshape(-1)
        order = self._normal.input_order
        moved: FloatArray = (flat if order is None else flat[order]).reshape(self._shape)
        return moved

    def _back(self, point: FloatArray, instance: Instance) -> FloatArray:
        order = self._normal.input_order
        flat = instance.lower.reshape(-1).copy()
        if order is None:
            flat[:] = point.reshape(-1)
        else:
            flat[order] = point.reshape(-1)
        moved: FloatArray = flat.reshape(instance.lower.shape)
        return moved

    def _translate_spec(self, instance: Instance) -> OutputSpec:
        """Rewrites a property of the last activation's outputs as one of its inputs, a little stricter than asked.

        What a proof must exclude grows by as much as float32 may need to tell two outputs of the activation apart, so
        that what is proved of its inputs holds for the outputs that a runtime computes.
        """
        last = self._normal.last
        if last == "none":
            return instance.spec
        for a, b in instance.spec.disjuncts:
            for row, limit in zip(a, b, strict=True):
                if not (_difference(row) if last == "difference" else _order(row, float(limit))):
                    raise UnsupportedError(
                        f"{self._given.name} ends with {self._activation}, which is taken off before it is verified: "
                        + (
                            "only rows whose coefficients sum to 0 keep their meaning then"
                            if last == "difference"
                            else "only comparisons of one output with another (Y_i <= Y_j) keep their meaning then"
                        )
                        + ", which the property has others of; export the network without its last "
                        f"{self._activation} and state the property of its inputs."
                    )
        slack = self._slack(instance, spec_kind(instance.spec, instance.classes))
        allowances = self.allowances(instance)
        if not (math.isfinite(slack) and all(map(math.isfinite, allowances))):
            word = "float32" if self._unit == FLOAT32_UNIT else "16-bit"
            raise UnsupportedError(
                f"{self._given.name} ends with {self._activation}, whose {word} values are equal for many different "
                "inputs in this box; export the network without it and state the property of its inputs."
            )
        disjuncts = zip(instance.spec.disjuncts, allowances, strict=True)
        return OutputSpec(
            tuple((a, b + slack * np.abs(a).max(axis=1, initial=0.0) + allowed) for (a, b), allowed in disjuncts)
        )

    def allowances(self, instance: Instance) -> tuple[float, ...]:
        """Returns how far rounding may move the rows of a property before the operator that was removed.

        Behind it nothing is seen of that: float32's Softmax of thousands is 0 or 1.

        Args:
            instance: The question as it was asked.
        """
        from prunecert.verifiers.rounding import guard

        if self._before is None:
            return (math.inf,)
        question = replace(instance, onnx=self._before, onnx_sha256=identity(self._before), allowance=())
        try:
            return guard.measure(question).allowance
        except UserError:
            return (math.inf,) * len(instance.spec.disjuncts)

    def _slack(self, instance: Instance, kind: SpecKind) -> float:
        """Returns by how much two inputs of the last activation must differ so that its float32 outputs do."""
        if self._unit > FLOAT32_UNIT:
            return math.inf
        if self._activation == "Softmax" and kind == "robustness":
            # The label's value is the largest, so that it is at least 1 / n, and no other comes near it.
            return _TELLS_APART
        from prunecert.verifiers.rounding.enclosure import Enclosure

        low, high = Enclosure(self._normal.model)(self._forth(instance.lower)[None], self._forth(instance.upper)[None])
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return math.inf
        width, size = float(high.max() - low.min()), float(max(np.abs(low).max(), np.abs(high).max()))
        if self._activation == "Softmax":
            # Beyond this float32 exponentials become 0, or lose digits.
            return _TELLS_APART if width < 80 else math.inf
        if self._activation == "LogSoftmax":
            return 2.0**-20 * (width + 16)
        if self._activation == "Sigmoid":
            return 2.0**-20 * (2 + math.exp(size) + math.exp(-size)) if size < 14 else math.inf
        if self._activation == "Tanh":
            return 2.0**-20 * math.cosh(size) ** 2 if size < 7 else math.inf
        return math.inf

    def compare(self, instance: Instance, evaluate: Evaluate) -> None:
        """Compares what was read with onnxruntime, once, on points of the first box that is asked about.

        Args:
            instance: The question as it was asked.
            evaluate: The adapter's `Verifier.evaluate`.

        Raises:
            UnsupportedError: The file is no function.
            RuntimeError: What was read is another function.
        """
        if self._compared:
            return
        points = self._points(instance, POINTS_REWRITTEN)
        first, second = (counterexample.outputs(self._given, points, self._outputs) for _ in range(2))
        if not np.array_equal(first, second, equal_nan=True):
            raise UnsupportedError(
                f"{self._given.name} is no function: onnxruntime gives other outputs each time for one input; export "
                "it in evaluation mode, without dropout and random numbers."
            )
        flaw = self._difference(points, first, evaluate)
        if flaw is not None:
            raise RuntimeError(flaw)
        self._compared = True

    def settle(self, instance: Instance, verdict: Verdict, evaluate: Evaluate) -> Verdict:
        """Takes an answer back to the file as it was given; proofs and counterexamples are looked at there.

        Args:
            instance: The question as it was asked.
            verdict: The adapter's answer about the normal form.
            evaluate: The adapter's `Verifier.evaluate`.
        """
        if (
            verdict.witness is not None
            and self.changed
            and verdict.witness.size == len(self._forth(instance.lower).flat)
        ):
            verdict = replace(verdict, witness=self._back(verdict.witness, instance))
            assert verdict.witness is not None
            if verdict.status is Status.SAT:
                check, _ = counterexample.replay(instance, verdict.witness)
                if check.in_set and not check.ok:
                    detail = (
                        "a counterexample of the network's normal form is none of the network as it was given, by "
                        "float32 rounding, so that neither answer is established"
                    )
                    return replace(verdict, status=Status.UNKNOWN, detail=detail, witness=None, stage=None, bounds=None)
        if verdict.status is not Status.UNSAT:
            return verdict
        points = self._points(instance, POINTS_REWRITTEN if self.changed else POINTS_SAME)
        outputs = counterexample.outputs(self._given, points, self._outputs)
        flaw = self._difference(points, outputs, evaluate)
        if flaw is not None:
            return replace(verdict, status=Status.ERROR, detail=flaw, stage=None, bounds=None)
        return verdict

    def _points(self, instance: Instance, count: int) -> FloatArray:
        """Returns points of the box: the centre, and corners and others that depend on nothing but the box."""
        lower, upper = instance.lower, instance.upper
        rng = np.random.default_rng(zlib.crc32(lower.tobytes() + upper.tobytes()))
        weights = rng.random((count, *lower.shape), dtype=np.float32)
        weights[0] = 0.5
        weights[1::2] = np.round(weights[1::2])
        middle = (1 - weights) * lower + weights * upper
        points: FloatArray = np.clip(middle.astype(np.float32), lower, upper)
        return counterexample.representable(points, self._given)

    def _difference(self, points: FloatArray, outputs: npt.NDArray[Any], evaluate: Evaluate) -> str | None:
        """Says how far the adapter's network, or the normal form, is from onnxruntime on the file as it was given."""
        moved = np.stack([self._forth(point) for point in points]) if self.changed else points
        right = outputs
        if self.changed:
            right = counterexample.outputs(self.path, moved)
            if self._normal.last == "none" and not self._agree(moved, right, outputs, self._unit):
                return (
                    f"the normal form of {self._given.name} differs from it by {_gap(right, outputs):.3g} in the box: "
                    f"please report it ({'; '.join(self._normal.notes)[:300]})"
                )
        read = evaluate(moved)
        if read is None:
            return None
        read = np.asarray(read).reshape(len(moved), -1)
        if read.shape != right.shape:
            return f"{self._given.name}: the verifier's network has outputs {read.shape}, onnxruntime {right.shape}"
        if self._agree(moved, read, right):
            return None
        gap = _gap(read, right)
        return f"{self._given.name}: the verifier's network differs from onnxruntime by {gap:.3g} in the box"

    def _agree(
        self, moved: FloatArray, read: npt.NDArray[Any], right: npt.NDArray[Any], unit: float = 2.0**-24
    ) -> bool:
        """Whether two evaluations are of one function, as far as their rounding lets that be seen."""
        wide, exact = np.asarray(read, dtype=np.float64), np.asarray(right, dtype=np.float64)
        whole = np.isfinite(wide) & np.isfinite(exact)
        with np.errstate(invalid="ignore", over="ignore"):
            scale = np.maximum(1.0, np.abs(exact).max(axis=1, keepdims=True, initial=0.0))
            near = np.abs(wide - exact) <= TOLERANCE * scale
        if bool((near | ~whole).all()) and bool(whole.any() or not whole.size):
            return True
        if not self.normal:
            return False
        from prunecert.verifiers.rounding.enclosure import Enclosure

        low, high = Enclosure(self._normal.model, unit)(moved, moved)
        inside = [(low <= part) & (part <= high) for part in (wide, exact)]
        # Of what overflows in float32 nothing can be said.
        return bool((near | (inside[0] & inside[1]) | ~whole).all())


def _normalise(model: Any, info: NetworkInfo, outputs: int, allowed: Capabilities) -> Normalised:
    try:
        normal = normalise(model, outputs=outputs, keep=allowed.operators)
    except UnsupportedNetworkError:
        if takes_native(info, allowed):
            return Normalised(model, False, None, outputs)
        raise
    return normal if "AveragePool" in allowed.operators else without_averages(normal)


def operators_of(normal: Normalised) -> tuple[tuple[str, str], ...]:
    """Returns the pairs (operator, first node that uses it) of a normal form, in the order of the graph."""
    operators: dict[str, str] = {}
    for index, node in enumerate(normal.model.graph.node):
        operators.setdefault(node.op_type, node.name or f"number {index}")
    return tuple(operators.items())


def _difference(row: npt.NDArray[np.float64]) -> bool:
    return math.fsum(row) == 0.0


def _order(row: npt.NDArray[np.float64], limit: float) -> bool:
    values = row[row != 0]
    return limit == 0.0 and len(values) in (0, 2) and math.fsum(values) == 0.0


def _gap(read: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.abs(np.asarray(read, np.float64) - np.asarray(right, np.float64)).max(initial=0.0))
