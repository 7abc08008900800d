"""What the adapters share that run the network itself in torch, for attacks and for samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifiers.base import Verifier
from verifiers.hardware import describe

if TYPE_CHECKING:
    import torch

    from verifiers.onnx_graph import OnnxModule


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
        """Converts the network and checks it against onnxruntime."""
        from verifiers.onnx_graph import read_onnx

        self._module = read_onnx(onnx).to(self._target)
