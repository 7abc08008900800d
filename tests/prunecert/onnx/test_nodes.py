"""Nodes of a normal network: layers have weights, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from prunecert.onnx.nodes import Node


def test_only_layers_have_weights() -> None:
    weight, bias = np.eye(2), np.zeros(2)
    assert Node("Gemm", (0,), (1, 2), weight, bias).layer() == (weight, bias)
    with pytest.raises(ValueError, match="a Relu has no weights"):
        Node("Relu", (0,), (1, 2)).layer()
