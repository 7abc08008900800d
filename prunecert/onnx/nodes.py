"""Nodes of a network in normal form as values: what back ends are built from, and `prunecert.onnx.layers` builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]

#: Operators that stay, for who takes them, where they are not the last: they are no sums of ReLUs.
CURVES = frozenset({"Sigmoid", "Tanh"})


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a normal network; node 0 is the input.

    Args:
        operator: ``Input``, ``Conv``, ``Gemm``, ``Relu``, ``Reshape``, ``Add``, ``AveragePool``, ``MaxPool``,
            ``Sigmoid`` or ``Tanh``.
        inputs: Numbers of the nodes that it reads.
        shape: Shape of its value, [1, ...].
        weight: [out, in] or [out, in / groups, kh, kw]; float32, or float64 where something was folded into it.
        bias: [out].
        strides: Of both axes.
        pads: At the top (and bottom) and left (and right).
        groups: Of a convolution.
        kernel: Window of a pooling.
        positive: Whether no value of it is known to be negative; False for nodes of a file.
        name: What the file calls it, its number where it has no name; empty before it is written.
        loose: Relative error of the weights: of float64 ones before they are rounded, 0 where they are the given
            file's own; of a file's nodes after that.
        bias_error: How far each bias may be from the real number that it stands for, of float64 ones before they are
            rounded; None: 0.
    """

    operator: str
    inputs: tuple[int, ...]
    shape: Shape
    weight: npt.NDArray[Any] | None = None
    bias: npt.NDArray[Any] | None = None
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    groups: int = 1
    kernel: tuple[int, int] = (1, 1)
    positive: bool = False
    name: str = ""
    loose: float = 0.0
    bias_error: npt.NDArray[np.float64] | None = None

    def layer(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Returns weight and bias of a layer that has them."""
        if self.weight is None or self.bias is None:
            raise ValueError(f"a {self.operator} has no weights")
        return self.weight, self.bias
