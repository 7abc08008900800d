"""What a network costs to evaluate; see `prunecert.onnx.count`, which counts for all commands."""

from __future__ import annotations

from prunecert.onnx.count import Shapes, count_shapes

__all__ = ["Shapes", "count_shapes"]
