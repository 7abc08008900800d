"""Somebody's PyTorch module as an ONNX file that every verifier reads, checked against the module itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunecert.api.inputs import as_array
from prunecert.bench.planning.module_export import OPSETS, ExportedNetwork, Exporter, export_module
from prunecert.errors import UserError

if TYPE_CHECKING:
    from prunecert.api.inputs import Arrays

__all__ = ["ExportedNetwork", "as_example", "export", "standardised"]


def export(
    module: nn.Module, path: str | Path, example: Arrays, *, exporter: Exporter = "auto", opset: int | None = None
) -> ExportedNetwork:
    """Writes a module as an ONNX file for verifiers, and checks what was written.

    The module is not changed. Masks that `torch.nn.utils.prune` has left are made permanent in the file, batch norm
    and a normalisation of the inputs are folded into the layers, and all weights are in the one file. It is checked by
    `onnx.checker` and by its outputs in onnxruntime against the module's.

    Args:
        module: The network, in evaluation mode: inputs [N, …] to outputs [N, classes].
        path: The file to write; replaced as a whole, or left as it was.
        example: One input, or a batch of which the first is taken. A batch axis may be missing before one axis or
            three.
        exporter: ``trace`` follows the module's computation on the example; ``dynamo`` reads its program, and needs
            the package onnxscript; ``auto`` traces, and reads the program where what is computed hangs on the input.
        opset: ONNX opset that torch writes; the normal form has its own. None: 17, and 18 for ``dynamo``.

    Example:
        >>> import torch, prunecert
        >>> from torch import nn
        >>> from torch.nn.utils import prune
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> _ = prune.l1_unstructured(net[1], "weight", amount=0.5)
        >>> prunecert.export(net, "net.onnx", torch.zeros(1, 1, 4, 4))
        <net.onnx: 1x4x4 to 3, 88 of 152 weights (1.73x)>

    Returns:
        What was written.

    Raises:
        UserError: The module is in training mode, doesn't take the example, is random, or can't be exported.
    """
    target = Path(path)
    if target.suffix != ".onnx":
        raise UserError(f"The path {str(path)!r} is refused; it must end in .onnx.")
    if not target.parent.is_dir():
        raise UserError(f"The path {str(path)!r} is refused: there is no folder {str(target.parent)!r}; make it first.")
    if exporter not in ("auto", "trace", "dynamo"):
        raise UserError(f"exporter={exporter!r} is refused; allowed are 'auto', 'trace' and 'dynamo'.")
    if opset is not None and opset not in OPSETS:
        raise UserError(f"opset={opset} is refused; allowed are {OPSETS.start} to {OPSETS.stop - 1}.")
    sample = as_example(example)
    if _is_batch_of_rows(module, sample, np.ndim(as_array(example, "example"))):
        sample = sample[0]
    return export_module(module, target, sample, exporter, opset)


def _is_batch_of_rows(module: nn.Module, sample: Tensor, axes: int) -> bool:
    """Whether an example [1, C, L] is a batch of one for a network over rows (Conv1d), and no image [C, H, W]."""
    if axes != 3 or len(sample[0]) != 1 or not isinstance(module, nn.Module) or module.training:
        return False
    return not _takes(module, sample) and _takes(module, sample[0])


@torch.no_grad()
def _takes(module: nn.Module, sample: Tensor) -> bool:
    try:
        outputs = module(sample.clone())
    except Exception:
        # A module may raise anything; what is wrong is said when it is exported.
        return False
    return isinstance(outputs, Tensor) and outputs.ndim == 2


def as_example(example: Arrays) -> Tensor:
    """Returns one input as a float32 tensor [1, …] on the CPU.

    Raises:
        UserError: It is no array of finite numbers, or empty.
    """
    array = as_array(example, "example")
    # A copy, which torch may have: arrays may be read-only, or somebody's to whom their numbers matter.
    values = np.array(array, dtype=np.float32, order="C")
    if values.size == 0 or array.ndim == 0 or not np.isfinite(values).all():
        raise UserError(
            f"The example of shape {array.shape} is refused; pass one input of finite numbers as the module takes it, "
            "e.g. torch.zeros(1, 3, 32, 32)."
        )
    return torch.from_numpy(values[None] if values.ndim in (1, 3) else values[:1])


def standardised(module: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Returns a module for pixels in [0, 1] from one for normalised inputs: (x - mean) / std is its first layer.

    Radii are then of pixels. The layer is folded when the module is exported.

    Args:
        module: A module that takes normalised images [N, C, H, W].
        mean: Of each channel.
        std: Of each channel, above 0.

    Example:
        >>> import torch, prunecert
        >>> from torch import nn
        >>> net = prunecert.standardised(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), mean=[0.5], std=[0.25]).eval()
        >>> net(torch.full((1, 1, 2, 2), 0.5)).shape
        torch.Size([1, 2])

    Raises:
        UserError: The two have different lengths, or a deviation isn't above 0.
    """
    from prunecert.models.networks.normalised import Standardise

    if len(mean) != len(std) or not len(mean) or not all(value > 0 for value in std):
        raise UserError(
            f"mean={mean!r}, std={std!r} are refused; pass a number for each channel, e.g. mean=[0.1307], "
            "std=[0.3081], the deviations above 0."
        )
    return nn.Sequential(Standardise(mean, std), module)
