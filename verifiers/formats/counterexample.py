"""Replay a claimed counterexample in onnxruntime on the CPU: only what is seen here counts as `sat`."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import prunecert
from prunecert.errors import UserError
from prunecert.onnx.io import reason_of
from prunecert.verifiers.base import FloatArray, Instance
from prunecert.verifiers.formats.support import NetworkInfo, network_info

#: Of the record that `WitnessCheck.to_json` writes.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class WitnessCheck:
    """What the replay saw.

    Args:
        ok: The witness lies in the input set and its outputs are unsafe, both with no tolerance.
        rationale: One sentence that says why it counts or not.
        in_set: Whether it lies in the input set.
        outside: Largest distance of a coordinate to the box, 0 inside; infinite if the size is wrong or one is NaN.
        clipped: Whether the point that was checked is the claimed one clipped to the box, or to the network's type.
        outputs: The network's outputs there, float32 values.
        violated: Whether these are unsafe.
        onnx_sha256: Hash of the network that was run.
        witness_sha256: Hash of the checked point's float32 bytes.
        checker: Version of this checker's package.
        onnxruntime: Version.
        onnx: Version.
        numpy: Version.
        schema_version: Of this record.
    """

    ok: bool
    rationale: str
    in_set: bool
    outside: float
    clipped: bool
    outputs: tuple[float, ...]
    violated: bool
    onnx_sha256: str
    witness_sha256: str
    checker: str
    onnxruntime: str
    onnx: str
    numpy: str
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """Returns plain data; numbers that are not finite become strings."""
        data = asdict(self)
        data["outputs"] = [value if np.isfinite(value) else str(value) for value in self.outputs]
        data["outside"] = self.outside if np.isfinite(self.outside) else str(self.outside)
        return data


def outputs(onnx: Path, points: npt.ArrayLike, count: int | None = None) -> npt.NDArray[Any]:
    """Runs a network in onnxruntime, single-threaded, on the CPU, with no graph optimisation, point by point.

    Only for a network that its normal form is known of (`verifiers.formats.support`): anything else may run for ever,
    or take all memory.

    Args:
        onnx: The network.
        points: Float32 inputs of shape [n, ...]; given to the network in its own type.
        count: Numbers of one output: of several outputs, the first with so many is meant; None: the first.

    Returns:
        Outputs of shape [n, classes]; float32, or float64 where the network is so.

    Raises:
        UserError: The file is no ONNX network, onnxruntime can't run it, or no output has that many numbers.
    """
    info = network_info(onnx)
    session = _session(onnx, info.sha256)
    name = _output(info, count)
    rows: list[npt.NDArray[Any]] = []
    for point in np.ascontiguousarray(points, dtype=np.float32):
        feed = {info.input_name: point.reshape(_run_shape(info, point.size)).astype(info.input_type)}
        try:
            values = session.run(None if name is None else [name], feed)
        except Exception as error:
            # onnxruntime's exception classes share no base of their own.
            raise UserError(f"onnxruntime can't run {onnx} ({reason_of(error)}).") from error
        flat = [np.asarray(value).reshape(-1) for value in values]
        # Of several, labels don't count: properties speak of real numbers.
        real = [value for value in flat if len(flat) == 1 or value.dtype.kind == "f"]
        fitting = [value for value in real if count is None or value.size == count]
        if not fitting:
            sizes = ", ".join(str(value.size) for value in flat)
            raise UserError(f"{onnx} has outputs of {sizes} numbers; the property needs one of {count}.")
        row = fitting[0]
        rows.append(row if row.dtype == np.float64 else row.astype(np.float32))
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def _output(info: NetworkInfo, count: int | None) -> str | None:
    """Returns the output that is meant; None: all must be looked at, since the file leaves their sizes open."""
    if count is None or len(info.outputs) == 1:
        return info.outputs[0].name
    if None in info.sizes():
        return None
    return next((output.name for output in info.outputs if output.size == count), None)


def _run_shape(info: NetworkInfo, size: int) -> tuple[int, ...]:
    # Of a vector of free length, the length is what it is given.
    return (size,) if info.run_shape == (0,) else tuple(dim or -1 for dim in info.run_shape)


@functools.lru_cache(maxsize=8)
def _session(onnx: Path, sha256: str) -> Any:
    """Makes a session; the hash is the network's identity, its external weights included, so that none is mistaken."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # The network as it is written, not as an optimiser rewrites it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"onnxruntime can't run {onnx} ({reason_of(error)}).") from error


def representable(
    points: npt.ArrayLike, onnx: Path, lower: FloatArray | None = None, upper: FloatArray | None = None
) -> FloatArray:
    """Returns the nearest points that a network can be given: the same ones, unless its input is float16 or whole.

    Args:
        points: Float32 inputs.
        onnx: The network.
        lower: Lower ends of the box to stay in, where there are such points in it.
        upper: Upper ends.

    Raises:
        UserError: The file is no ONNX network.
    """
    kind = np.dtype(network_info(onnx).input_type)
    single = np.asarray(points, dtype=np.float32)
    if lower is not None and upper is not None:
        single = np.clip(single, lower, upper)
    if kind in (np.float32, np.float64):
        return single
    nearest = _nearest(single, kind)
    if lower is None or upper is None:
        return nearest
    # One step back into the box; where that leaves it on the other side there is no such number in it.
    down, up = _next(nearest, kind, -1), _next(nearest, kind, 1)
    inwards = np.where(nearest > upper, down, np.where(nearest < lower, up, nearest))
    chosen: FloatArray = np.where((inwards >= lower) & (inwards <= upper), inwards, nearest)
    return chosen


def _nearest(single: FloatArray, kind: np.dtype[Any]) -> FloatArray:
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return np.clip(np.rint(single), limits.min, limits.max).astype(np.float32)
    with np.errstate(over="ignore"):
        return single.astype(kind).astype(np.float32)


def _next(values: FloatArray, kind: np.dtype[Any], sign: int) -> FloatArray:
    """Returns the next numbers of a type in a direction."""
    if kind.kind in "iu":
        return values + np.float32(sign)
    with np.errstate(over="ignore"):
        following: FloatArray = np.nextafter(values.astype(kind), kind.type(sign * np.inf)).astype(np.float32)
    return following


def replay(instance: Instance, witness: npt.ArrayLike, *, clip: bool = True) -> tuple[WitnessCheck, FloatArray]:
    """Checks a claimed counterexample.

    Args:
        instance: The question.
        witness: The point, of the shape of the instance's box (or flat).
        clip: Whether a point that misses the box by no more than float32 rounding (four units in the last place of
            a coordinate of size 1) may be clipped to it; what then is checked, and returned, is the clipped point.

    Returns:
        The record, and the point that it speaks of, float32 of the shape of the box.

    Raises:
        UserError: The network is missing, is no ONNX file, or can't be run.
    """
    import onnx
    import onnxruntime

    point = np.array(witness, dtype=np.float32)
    expected = instance.lower.shape
    fits = point.size == instance.lower.size
    clipped = False
    outside = float("inf")
    if fits:
        point = point.reshape(expected)
        outside = _outside(instance, point)
        scale = np.maximum(1.0, np.maximum(np.abs(instance.lower), np.abs(instance.upper)))
        if clip and 0 < outside <= 4 * float(np.finfo(np.float32).eps) * float(scale.max()):
            point = np.clip(point, instance.lower, instance.upper)
            clipped = True
        # A network of float16 or whole numbers can't be given any point: the nearest that it can must do, in the box.
        box = (instance.lower, instance.upper) if clipped or not outside else (None, None)
        nearest = representable(point, instance.onnx, *box)
        clipped = clipped or bool((nearest != point).any() and not np.isnan(point).any())
        point, outside = nearest, max(outside, 0.0 if box[0] is None else _outside(instance, nearest))
    in_set = fits and instance.contains(point)
    values = outputs(instance.onnx, point[None], instance.classes)[0] if fits else np.zeros(0, dtype=np.float32)
    violated = fits and instance.spec.violated_by(values)
    if not fits:
        rationale = f"The claimed point has {point.size} values where the input has {instance.lower.size}."
    elif not in_set:
        where = f"{outside:.3g} outside the box" if outside > 0 else "in the box but outside the ball, or not a number"
        rationale = f"The claimed point lies {where}, so it is no counterexample."
    elif not violated:
        rationale = "The claimed point lies in the input set, but its outputs in onnxruntime are not unsafe."
    else:
        how = "The claimed point, clipped to the box by float32 rounding," if clipped else "The claimed point"
        rationale = f"{how} lies in the input set and its outputs in onnxruntime are unsafe."
    record = WitnessCheck(
        ok=bool(in_set and violated),
        rationale=rationale,
        in_set=in_set,
        outside=outside,
        clipped=clipped,
        outputs=tuple(float(value) for value in values),
        violated=violated,
        onnx_sha256=network_info(instance.onnx).sha256,
        witness_sha256=hashlib.sha256(np.ascontiguousarray(point).tobytes()).hexdigest(),
        checker=prunecert.__version__,
        onnxruntime=onnxruntime.__version__,
        onnx=onnx.__version__,
        numpy=np.__version__,
    )
    return record, point


def _outside(instance: Instance, point: FloatArray) -> float:
    """Returns how far the farthest coordinate is outside the box; infinite if one is not a number."""
    if np.isnan(point).any():
        return float("inf")
    below = instance.lower.astype(np.float64) - point
    above = point - instance.upper.astype(np.float64)
    return float(max(0.0, below.max(initial=0.0), above.max(initial=0.0)))
