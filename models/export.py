"""Checkpoint to ONNX, with the masks baked in and every export checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn

from prunecert.errors import UserError
from prunecert.files import replacing
from prunecert.hashing import sha256_file
from prunecert.models.building import SHAPE
from prunecert.models.checkpoint import load_model
from prunecert.models.graph import has_norms
from prunecert.models.masks import Masks, prunable
from prunecert.models.networks.factorised import factors_in, saved
from prunecert.models.onnx_graph import INPUT, NORM_PREFIX, GraphWriter
from prunecert.onnx.factors import METADATA_KEY, composed_weights

#: Operators that an export may hold.
OPERATORS = frozenset({"Add", "AveragePool", "Conv", "Flatten", "Gemm", "MaxPool", "Mul", "Relu"})
_CHECK_IMAGES = 32


@dataclass(frozen=True)
class ExportInfo:
    """What was written.

    Args:
        path: The ONNX file.
        sha256: Its hash.
        sparsity: Zeros over all prunable weights, counted in the file; what factors save counts as zeros.
        compression: All prunable weights over the non-zero ones, counted in the file.
        max_difference: Largest difference of a logit from PyTorch's on the check inputs.
    """

    path: Path
    sha256: str
    sparsity: float
    compression: float
    max_difference: float


def export_onnx(checkpoint: Path, out: Path) -> ExportInfo:
    """Exports a checkpoint and checks what was written.

    Args:
        checkpoint: The ``.safetensors`` file, with its card beside.
        out: The ONNX file to write; replaced as a whole, or left as it was.

    Raises:
        UserError: The checkpoint is missing or damaged.
        ValueError: The written file fails one of its checks; nothing is left of it.

    >>> from tempfile import TemporaryDirectory
    >>> from prunecert.models.checkpoint import ZOO
    >>> with TemporaryDirectory() as folder:
    ...     info = export_onnx(ZOO / "cnn-small_ibp_eps2_lwm_x10_s0.safetensors", Path(folder, "network.onnx"))
    >>> info.path.name, f"{info.compression:.1f}"
    ('network.onnx', '10.0')
    """
    model, masks, card = load_model(checkpoint)
    metadata = {
        "cell": card.name,
        "checkpoint_sha256": card.sha256,
        "compression": f"{masks.compression:.6g}",
        "eps": card.eps,
        "mask_sha256": masks.sha256(),
        "network": card.network,
        "objective": card.objective,
        "pruner": card.pruner,
        "sparsity": f"{masks.sparsity:.9f}",
    }
    return export_model(model, masks, metadata, out, card.data.get("shape", SHAPE))


def export_model(
    model: nn.Module, masks: Masks, metadata: dict[str, str], out: Path, shape: Sequence[int] = SHAPE
) -> ExportInfo:
    """Exports a network that is in memory; see `export_onnx`.

    Args:
        model: A network that `models.onnx_graph` can write.
        masks: Its masks, which it must honour.
        metadata: Goes into ``metadata_props``.
        out: The ONNX file to write.
        shape: Shape of one input, without the batch axis.

    >>> from tempfile import TemporaryDirectory
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    >>> masks = Masks({"1.weight": torch.arange(30720).view(10, 3072) % 4 == 0})
    >>> with TemporaryDirectory() as folder:
    ...     export_model(network, masks, {}, Path(folder, "network.onnx"))
    Traceback (most recent call last):
    prunecert.errors.UserError: Export to '...network.onnx' is refused: a pruned weight is not zero; apply the masks...
    >>> masks.apply_(network)
    >>> with TemporaryDirectory() as folder:
    ...     info = export_model(network, masks, {}, Path(folder, "network.onnx"))
    >>> info.path.name, info.sparsity, info.compression
    ('network.onnx', 0.75, 4.0)
    """
    if not masks.holds(model):
        raise UserError(f"Export to {str(out)!r} is refused: a pruned weight is not zero; apply the masks first.")
    model.eval()
    if saved(model):
        metadata = {**metadata, METADATA_KEY: "the layers of each chain are the factors of one weight"}
    network = GraphWriter(shape).write(model, metadata)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as scratch:
        onnx.save(network, scratch)
        difference = _check(scratch, model, masks, shape)
    zeros, total = count_zeros(out)
    kept = total - zeros
    # Of factors, compression is about the weights whose place they take.
    return ExportInfo(out, sha256_file(out), (masks.total - kept) / masks.total, masks.total / kept, difference)


def count_zeros(path: Path) -> tuple[int, int]:
    """Returns the zeros and the number of all prunable weights of an export of ours."""
    zeros = total = 0
    for tensor in onnx.load(path).graph.initializer:
        if tensor.name.endswith("_weight") and not tensor.name.startswith(NORM_PREFIX):
            values = numpy_helper.to_array(tensor)
            zeros += int(np.count_nonzero(values == 0))
            total += values.size
    return zeros, total


def _check(path: Path, model: nn.Module, masks: Masks, shape: Sequence[int]) -> float:
    """Checks the file with `onnx.checker`, by operators, by zeros and by logits; returns the logits' difference."""
    network = onnx.load(path)
    onnx.checker.check_model(network, full_check=True)
    foreign = {node.op_type for node in network.graph.node} - OPERATORS
    if foreign:
        raise ValueError(f"{path.name} holds operators {sorted(foreign)}, which no export should")
    zeros, total = count_zeros(path)
    products = saved(model)
    plain = [weight for name, weight in prunable(model).items() if name not in products]
    expected = sum(int((w.detach() == 0).sum()) for w in (*plain, *factors_in(model)))
    stored = sum(weight.numel() for weight in plain) + sum(products.values())
    if products and composed_weights(path) != masks.total:
        raise ValueError(f"{path.name} holds factors of {composed_weights(path):,} weights, not of {masks.total:,}")
    # With batch norm folding may turn a weight into zero, where a channel's factor is zero.
    if total != stored or zeros < masks.total - masks.kept or (zeros != expected and not has_norms(model)):
        raise ValueError(f"{path.name} holds {zeros:,} zeros of {total:,} weights; {expected:,} of {stored:,} expected")
    generator = np.random.default_rng(0)
    inputs = generator.random((_CHECK_IMAGES, *shape), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(None, {INPUT: image[None]})[0] for image in inputs])
    with torch.no_grad():
        reference = model(torch.from_numpy(inputs)).numpy()
    difference = float(np.abs(logits - reference).max())
    # Sums of a few thousand float32 products in another order; a wrong fold is off by far more.
    if not np.allclose(logits, reference, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(reference).max()))):
        raise ValueError(f"{path.name}: logits differ from PyTorch's by up to {difference:.3g}")
    return difference
