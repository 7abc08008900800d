"""Is the normal network the given one? Asked of onnxruntime, on the box that a verdict will speak of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from prunecert.errors import UserError
from prunecert.onnx.evaluate import LargeError, evaluate, intervals
from prunecert.onnx.io import reason_of, tensors
from prunecert.onnx.normal import Array, Normalised, UnsupportedNetworkError

Float64Array = npt.NDArray[np.float64]

#: A gap of so many times the rounding of the normal network itself is no rounding.
_TIMES = 64.0
#: Nor is one of this share of the largest output.
_SHARE = 2.0**-16
#: Nor is, by as much, one of this share of the largest value inside.
_INSIDE = 2.0**-4
#: Which points are evaluated in float64, which takes long: a corner, and a random point.
_EXACT = (2, 3)
#: What rounding is taken for, as a share of the outputs, where a network is too large to tell.
_UNKNOWN = 2.0**-12
#: How much coarser float16 rounds.
_COARSER = 2.0**13
#: From such arguments on, an operator gives neighbouring arguments the same float32 number, or nearly.
_SATURATED = {"Sigmoid": 12.0, "Tanh": 6.0}
_KINDS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


def check(
    original: Path | onnx.ModelProto,
    normalised: Normalised,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    *,
    points: int = 8,
    seed: int = 0,
) -> float:
    """Compares a network with its normal form in onnxruntime: at the box's centre, two corners and random points.

    Args:
        original: The given network; as a model, with no external data.
        normalised: What `prunecert.onnx.normalise.normalise` made of it.
        lower: Lowest inputs, in the order of the given network.
        upper: Highest inputs.
        points: How many points in all.
        seed: Of the random ones.

    Returns:
        The largest difference of an output that was seen, 0 where the normal network is the given one.

    Raises:
        UserError: onnxruntime can't run the given network.
        UnsupportedNetworkError: A Sigmoid or Tanh was removed that may give different values as one float32 number.
        RuntimeError: They differ by more than rounding.

    >>> from prunecert.onnx.normalise import normalise
    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    ... <float[2, 2] w = {1, 0, 2, -1}> { h = Gemm <transB = 1> (x, w) y = Abs (h) }'''
    >>> model = onnx.parser.parse_model(text)
    >>> check(model, normalise(model), [-1, -1], [1, 1])
    0.0
    >>> other = onnx.parser.parse_model(text.replace("Abs", "Relu"))
    >>> check(model, normalise(other), [-1, -1], [1, 1])
    Traceback (most recent call last):
    RuntimeError: the normal form's outputs differ from the network's by 1 in onnxruntime
    """
    if not normalised.changed:
        return 0.0
    low, high = (np.asarray(side, dtype=np.float64).reshape(-1) for side in (lower, upper))
    _check_saturation(normalised, low, high)
    theirs, ours = _Runner(original, normalised.output), _Runner(normalised.model, "")
    coarse = not isinstance(original, Path) and any(t.data_type == onnx.TensorProto.FLOAT16 for t in tensors(original))
    times = _TIMES * (_COARSER if coarse or theirs.kind == np.float16 else 1.0)
    finish = _finisher(normalised.removed)
    gap = rounding = largest = 0.0
    for number, point in enumerate(_points(low, high, points, np.random.default_rng(seed))):
        exact_point = np.round(point) if theirs.kind == np.uint8 else point.astype(np.float32)
        expected = theirs(exact_point)
        if not np.isfinite(expected).all():
            # An output that overflows says nothing; the replay of witnesses sees it as it is.
            continue
        turned = exact_point if normalised.input_order is None else exact_point[normalised.input_order]
        outputs = ours(turned)
        if outputs.shape != expected.shape:
            raise RuntimeError(f"the normal form has {outputs.size} outputs, the network {expected.size}")
        if not np.isfinite(outputs).all():
            raise RuntimeError("the normal form's outputs overflow where the network's don't")
        gap = _largest(gap, finish(outputs) - expected)
        largest = max(largest, float(np.abs(expected).max()))
        if number in _EXACT:
            try:
                exact, inside = evaluate(normalised.model, turned.astype(np.float32))
            except LargeError:
                # Sums of so many numbers are rounded more often than is known here.
                rounding = max(rounding, _UNKNOWN * float(np.abs(expected).max()))
                continue
            rounding = max(rounding, float(np.abs(finish(outputs) - finish(exact)).max()))
            largest = max(largest, _INSIDE * inside)
    # Written so that NaN is refused too.
    if not gap <= times * (rounding + _SHARE / _TIMES * largest):
        raise RuntimeError(f"the normal form's outputs differ from the network's by {gap:.3g} in onnxruntime")
    return gap


def _check_saturation(normalised: Normalised, low: Float64Array, high: Float64Array) -> None:
    """Refuses a box on which the removed operator doesn't keep the order of float32 numbers.

    Beyond the limit onnxruntime gives the same number for all arguments, so that two outputs whose order was proved
    may be equal there. A Softmax does that only far below its largest output.
    """
    limit = _SATURATED.get(normalised.removed)
    if limit is None:
        return
    order = slice(None) if normalised.input_order is None else normalised.input_order
    try:
        lowest, highest = intervals(normalised.model, low[order], high[order])
    except LargeError as error:
        raise UnsupportedNetworkError(
            f"The network ends in {normalised.removed} and is too large to be bounded ({error}); export it without."
        ) from error
    reach = float(np.maximum(-lowest, highest).max())
    if not reach <= limit:
        raise UnsupportedNetworkError(
            f"The last operator, {normalised.removed}, may get arguments up to {reach:.3g} on this box, and from "
            f"{limit:g} on float32 outputs are equal; export the network without it: the property speaks of the order."
        )


def _largest(gap: float, differences: Float64Array) -> float:
    largest = float(np.abs(differences).max())
    return largest if np.isnan(largest) else max(gap, largest)


def _points(low: Float64Array, high: Float64Array, number: int, rng: np.random.Generator) -> list[Float64Array]:
    points = [(low + high) / 2, low, high]
    while len(points) < number:
        shares = rng.integers(0, 2, low.size) if len(points) % 2 else rng.random(low.size)
        points.append(low + (high - low) * shares)
    return [np.clip(point, low, high) for point in points[: max(1, number)]]


def _finisher(removed: str) -> Callable[[Float64Array], Float64Array]:
    """Returns what the removed last operator does."""

    def softmax(values: Float64Array) -> Float64Array:
        powers: Float64Array = np.exp(values - values.max())
        return np.asarray(powers / powers.sum())

    finishers: dict[str, Callable[[Float64Array], Float64Array]] = {
        "": lambda values: values,
        "LogSoftmax": lambda values: values - values.max() - np.log(np.exp(values - values.max()).sum()),
        "Sigmoid": lambda values: 1.0 / (1.0 + np.exp(-np.clip(values, -700, 700))),
        "Softmax": softmax,
        "Tanh": lambda values: np.asarray(np.tanh(values)),
    }
    return finishers[removed]


class _Runner:
    """A network in onnxruntime, single-threaded, as it is written."""

    def __init__(self, model: Path | onnx.ModelProto, output: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime's exception classes share no base of their own.
            raise UserError(f"onnxruntime can't run the network ({reason_of(error)}).") from error
        entry = self._session.get_inputs()[0]
        self._name = entry.name
        self._shape = [size if isinstance(size, int) and size > 0 else 1 for size in entry.shape]
        self._outputs = [output or self._session.get_outputs()[0].name]
        self.kind: Any = _KINDS[entry.type]

    def __call__(self, point: Array) -> Float64Array:
        """Returns the outputs at a flat point."""
        try:
            outputs = self._session.run(self._outputs, {self._name: point.astype(self.kind).reshape(self._shape)})[0]
        except Exception as error:
            raise UserError(f"onnxruntime can't run the network ({reason_of(error)}).") from error
        return np.asarray(outputs, dtype=np.float64).reshape(-1)
