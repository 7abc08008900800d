"""What a network costs to evaluate, counted in its ONNX file: neurons, weights, multiply-adds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Shapes:
    """Sizes of one network.

    Args:
        neurons: Outputs of its ReLUs.
        weights: Stored weights of convolutions and linear layers, zeros included.
        nonzero: Those that are not zero.
        macs: Multiply-adds of one forward pass over stored weights.
        sparse_macs: Those with a weight that is not zero.
    """

    neurons: int
    weights: int
    nonzero: int
    macs: int
    sparse_macs: int

    def to_json(self) -> dict[str, int]:
        """Returns plain data."""
        return asdict(self)


def count_shapes(path: Path) -> Shapes:
    """Counts an export of ours.

    Args:
        path: The ONNX file; its convolutions and linear layers have stored weights.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    known = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    neurons = weights = nonzero = macs = sparse = 0
    for node in model.graph.node:
        size = known.get(node.output[0], [])
        if node.op_type == "Relu":
            neurons += math.prod(size[1:])
        if node.op_type in ("Conv", "Gemm") and node.input[1] in stored:
            values = stored[node.input[1]]
            places = math.prod(size[2:]) if node.op_type == "Conv" else 1
            kept = int(np.count_nonzero(values))
            weights, nonzero = weights + values.size, nonzero + kept
            macs, sparse = macs + places * values.size, sparse + places * kept
    return Shapes(neurons, weights, nonzero, macs, sparse)
