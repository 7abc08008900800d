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
from verifiers.base import FloatArray, Instance
from verifiers.support import network_info

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
        clipped: Whether the point that was checked is the claimed one clipped to the box.
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


def outputs(onnx: Path, points: FloatArray) -> FloatArray:
    """Runs a network in onnxruntime, single-threaded, on the CPU, with no graph optimisation, point by point.

    Args:
        onnx: The network.
        points: Float32 inputs of shape [n, ...].

    Returns:
        Float32 outputs of shape [n, classes].

    Raises:
        UserError: The file is no ONNX network, or onnxruntime can't run it.
    """
    info = network_info(onnx)
    session = _session(onnx, info.sha256)
    shape = tuple(dim or -1 for dim in (1, *info.input_shape[1:])) if info.input_shape else (-1,)
    rows = [
        np.asarray(session.run([info.output_name], {info.input_name: point.reshape(shape)})[0]).reshape(-1)
        for point in np.ascontiguousarray(points, dtype=np.float32)
    ]
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _session(onnx: Path, sha256: str) -> Any:
    import onnxruntime

    from prunecert.errors import UserError

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The network as it is written, not as an optimiser rewrites it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's exception classes share no base of their own.
        raise UserError(f"onnxruntime can't run {onnx} ({str(error).splitlines()[0]:.200}).") from error


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
    in_set = fits and instance.contains(point)
    values = outputs(instance.onnx, point[None])[0] if fits else np.zeros(0, dtype=np.float32)
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
