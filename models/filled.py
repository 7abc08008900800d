"""A control for timings: a pruned network with its zeros filled, so that nothing about its arithmetic can be skipped.

A filled network computes what the pruned one computes, to float32 rounding, and its bounds leave the same ReLUs
unstable; but no weight is zero, no unit is dead, and a verifier that skips zeros finds none. What is saved on the
pruned network and not on the filled one is saved by skipping zeros, and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from prunecert.files import replacing
from prunecert.hashing import sha256_file
from prunecert.models.onnx_graph import INPUT, NORM_PREFIX

#: Fillings relative to the layer's kept weights. A thousand of them are below the rounding of one float32 sum, and a
#: product of seven of them with weights of a hundredth is still no denormal number, which would be slow for a reason
#: of its own.
SCALE = 1e-8
_INPUTS = 8


def fill_zeros(source: Path, target: Path, seed: int = 0) -> str:
    """Writes a copy of an exported network whose zero weights are tiny numbers.

    Args:
        source: An ONNX file of ours.
        target: The file to write; replaced as a whole, or left as it was.
        seed: Of the fillings' signs.

    Returns:
        The new file's hash.

    Raises:
        ValueError: The filled network's outputs differ by more than rounding.
    """
    model = onnx.load(source)
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_weight") and not tensor.name.startswith(NORM_PREFIX):
            values = numpy_helper.to_array(tensor).copy()
            zero = values == 0
            kept = values[~zero]
            size = SCALE * float(np.sqrt(np.mean(kept.astype(np.float64) ** 2))) if kept.size else SCALE
            values[zero] = (rng.choice((-size, size), int(zero.sum()))).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as scratch:
        onnx.save(model, scratch)
        _check(source, scratch)
    return sha256_file(target)


def _check(source: Path, filled: Path) -> None:
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    other = onnxruntime.InferenceSession(str(filled), providers=["CPUExecutionProvider"])
    shape = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape[1:]]
    for image in np.random.default_rng(0).random((_INPUTS, 1, *shape), dtype=np.float32):
        one, two = session.run(None, {INPUT: image})[0], other.run(None, {INPUT: image})[0]
        if not np.allclose(one, two, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(one).max()))):
            raise ValueError(f"{source.name}: filling its zeros changes its outputs by {np.abs(one - two).max():.3g}")
