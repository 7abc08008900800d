"""A network whose activations are Sigmoids, Tanhs and ReLUs, as sparse affine maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.smooth.curves import SMOOTH, Curve, value


@dataclass(frozen=True, eq=False)
class SmoothNetwork:
    """A network with Sigmoids or Tanhs.

    Args:
        affine: Its nodes; what is made for ReLU networks must not get it, which would take its activations for ReLUs.
        curves: For each node with an activation, which it is.
    """

    affine: Network
    curves: dict[int, Curve]

    def forward(self, x: npt.ArrayLike) -> list[Float64Array]:
        """Computes the values of all nodes in float64, before their activations: [n, ...] to [n, size] for each."""
        array = np.asarray(x, dtype=np.float64)
        values: list[Float64Array] = [array.reshape(len(array), self.affine.nodes[0].size)]
        for node in self.affine.nodes[1:]:
            total = np.tile(node.bias.astype(np.float64), (len(array), 1))
            for term in node.terms:
                inputs = values[term.source]
                if term.activated:
                    inputs = value(self.curves[term.source], inputs)
                total += inputs @ term.matrix.T.astype(np.float64)
            values.append(total)
        return values

    def evaluate(self, x: npt.ArrayLike) -> Float64Array:
        """Computes the outputs in float64: [n, ...] to [n, outputs]."""
        return self.forward(x)[-1]


def read_smooth(path: Path) -> SmoothNetwork | None:
    """Reads an ONNX file if it is a network with Sigmoids or Tanhs other than one that is taken off at its end.

    Raises:
        UserError: It is damaged.
        UnsupportedError: It holds something else that isn't taken; the node is named.
    """
    from prunecert.onnx.io import load_model
    from prunecert.onnx.normal import UnsupportedNetworkError, normal_nodes
    from prunecert.onnx.normalise import normalise
    from prunecert.onnx.rounding import noted
    from prunecert.verifiers.formats.support import is_rewritten
    from prunecert.verifiers.sparse.onnx.reader import build_curved

    model = load_model(path)
    if all(node.op_type not in SMOOTH for node in model.graph.node):
        return None
    try:
        normal = normalise(model, keep=SMOOTH, name=path.name)
    except UnsupportedNetworkError as error:
        raise UnsupportedError(str(error)) from error
    if normal.input_order is not None or normal.last != "none":
        # A worker hands on the normal form; of the file itself, the reader of ReLU networks says what to do.
        return None
    rewritten = not normal.changed and is_rewritten(model) and noted(model) is None
    nodes = normal_nodes(normal.model, SMOOTH)
    assert nodes is not None
    network, curves = build_curved(path.name, nodes, rewritten=rewritten)
    if all(curve not in SMOOTH for curve in curves):
        return None
    return SmoothNetwork(network, {node: cast(Curve, curve) for node, curve in enumerate(curves) if curve})
