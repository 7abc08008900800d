"""From an exported network to its compact form on disk, checked against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from prunecert.compaction import Compaction, Mode
from prunecert.errors import UserError
from prunecert.files import scratch_beside
from prunecert.hashing import sha256_file
from prunecert.models.compact import compact_file
from prunecert.models.export import OPERATORS
from prunecert.onnx.factors import fuse, is_marked
from prunecert.onnx.io import load_model

_CHECK_INPUTS = 32
#: Largest difference of an output that passes, over the largest output: some hundred times the rounding of one float32
#: sum, while a constant that was folded wrongly is off by far more.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class CompactInfo:
    """What was written.

    Args:
        path: The compact network; the masked one's path if nothing could be removed.
        sha256: Its hash.
        record: What was removed.
        max_difference: Largest difference of an output from the masked network's on the check inputs.
    """

    path: Path
    sha256: str
    record: Compaction
    max_difference: float


def export_compact(masked: Path, out: Path, mode: Mode = Mode.PIXELS) -> CompactInfo:
    """Writes the compact form of an exported network and checks it.

    Args:
        masked: An export of `models.export`.
        out: The ONNX file to write; not written where nothing can be removed.
        mode: How much to remove; not `Mode.OFF`.

    Raises:
        UserError: The masked network's file is missing or damaged.
        ValueError: The compact network fails a check: `onnx.checker`, operators, outputs; nothing is left of it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = scratch_beside(out)
    try:
        # Products are rounded, so that an exact form keeps the factors.
        fused = None if mode is Mode.EXACT else _fuse(masked, beside)
        record = compact_file(
            fused or masked,
            beside,
            domain=mode.domain,
            exact=mode is Mode.EXACT,
            masked_sha256=None if fused is None else sha256_file(masked),
        )
        if not record.shrank and fused is None:
            out.unlink(missing_ok=True)
            return CompactInfo(masked, sha256_file(masked), record, 0.0)
        difference = _check(masked, beside, out.name)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return CompactInfo(out, sha256_file(out), record, difference)


def _fuse(masked: Path, scratch: Path) -> Path | None:
    """Writes a network of factors with their products, and returns the file; None for any other network."""
    try:
        model = load_model(masked)
    except UserError:
        # Compaction refuses it, and says why.
        return None
    fused = fuse(model) if is_marked(model) else None
    if fused is None:
        return None
    onnx.save(fused, scratch)
    return scratch


def check_inputs(path: Path, count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Returns inputs to compare networks on: uniform in [0, 1], and every fourth one of zeros and ones only.

    Args:
        path: A network, for the shape.
        count: How many.
        seed: Of the generator.
    """
    entry = onnx.load(path).graph.input[0]
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim][1:]
    inputs = np.random.default_rng(seed).random((count, *shape), dtype=np.float32)
    inputs[::4] = inputs[::4].round()
    return inputs


def _check(masked: Path, small: Path, name: str) -> float:
    model = onnx.load(small)
    onnx.checker.check_model(model, full_check=True)
    foreign = {node.op_type for node in model.graph.node} - OPERATORS
    if foreign:
        raise ValueError(f"{name} holds operators {sorted(foreign)}, which no export should")
    difference, size = largest_difference(masked, small, check_inputs(masked, _CHECK_INPUTS))
    if not difference <= _TOLERANCE * max(1.0, size):
        raise ValueError(f"{name}: outputs differ from the masked network's by up to {difference:.3g}")
    return difference


def largest_difference(masked: Path, small: Path, inputs: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Runs both networks in onnxruntime, input by input.

    Args:
        masked: The network before.
        small: The network after.
        inputs: ``[n, ...]``, of the networks' input shape without the batch axis.

    Returns:
        The largest difference of an output, and the largest magnitude of one.
    """
    first, second = _runner(masked), _runner(small)
    gap = size = 0.0
    for x in inputs:
        a, b = first(x[None]), second(x[None])
        gap = max(gap, float(np.abs(a - b).max()))
        size = max(size, float(np.abs(a).max()))
    return gap, size


def _runner(path: Path) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run(None, {name: x})[0], dtype=np.float32)

    return run
