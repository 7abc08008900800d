"""Prunable weights counted in anybody's ONNX file; see `prunecert.onnx.count`, which counts for all commands."""

from __future__ import annotations

from prunecert.onnx.count import Layer, count_layers, totals

__all__ = ["Layer", "count_layers", "totals"]
