"""What the adapters share that run the network itself in torch, for attacks and for samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.adapters.hardware import describe
from prunecert.verifiers.base import FloatArray, Verifier

if TYPE_CHECKING:
    import torch

    from prunecert.verifiers.formats.onnx_torch import OnnxModule


def run_module(module: Any, points: FloatArray, shape: tuple[int, ...], device: Any) -> npt.NDArray[np.float32]:
    """Computes a torch module's outputs point by point, as onnxruntime does.

    Args:
        module: The module, on the device.
        points: [n, ...].
        shape: Of one sample.
        device: Where it is.

    Returns:
        [n, outputs].
    """
    import torch

    with torch.no_grad():
        rows = [
            module(torch.from_numpy(np.ascontiguousarray(point)).reshape(1, *shape).to(device))
            .reshape(-1)
            .cpu()
            .numpy()
            for point in points
        ]
    return np.stack(rows)


class TorchVerifier(Verifier):
    """Asks for the device, and converts the network."""

    _torch: Any
    _target: torch.device
    _label: str
    _module: OnnxModule

    def start(self) -> None:
        """Imports torch and asks for the device."""
        import torch

        self._torch = torch
        self._label = describe(self.device)
        self._target = torch.device(self.device)

    def load(self, onnx: Path) -> None:
        """Converts the network."""
        from prunecert.verifiers.formats.onnx_torch import read_onnx

        self._module = read_onnx(onnx).to(self._target)

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        """Runs the module."""
        return run_module(self._module, points, self._module.input_shape, self._target)
