"""An instance as Vibecheck can read it: the network with the property's rows as its outputs, and thresholds of these.

Its reader knows comparisons of an output with a number or with another output, and leaves out what else it finds in
VNN-LIB 1.0. So A y - b becomes a last layer, and a disjunct is that some of the new outputs are at most 0: any property
in disjunctive normal form is said exactly, and a margin for rounding as well.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from prunecert.verifiers.base import Instance, UnsupportedError


def extended(model: Any, instance: Instance) -> Any:
    """Returns a copy of a network that ends in the rows A y - b of all disjuncts.

    Args:
        model: ``onnx.ModelProto`` in normal form.
        instance: Whose property.

    Raises:
        UnsupportedError: A disjunct has no rows, or a coefficient is no float32.
    """
    import onnx
    from onnx import helper, numpy_helper

    if any(len(b) == 0 for _, b in instance.spec.disjuncts):
        raise UnsupportedError("Vibecheck takes no disjunct without rows")
    rows = np.concatenate([a for a, _ in instance.spec.disjuncts] or [np.zeros((0, instance.classes))])
    limits = np.concatenate([b for _, b in instance.spec.disjuncts] or [np.zeros(0)])
    weight = rows.astype(np.float32)
    if not np.array_equal(weight, rows) or not len(rows):
        raise UnsupportedError("Vibecheck takes properties with rows whose coefficients are float32 numbers")
    # Rounded so that the unsafe set gets no smaller.
    bias = -limits.astype(np.float32)
    bias = np.where(-bias.astype(np.float64) < limits, np.nextafter(bias, np.float32(-np.inf)), bias)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    before = graph.output[0].name
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    new = [next(f"{stem}{i}" for i in range(len(names) + 1) if f"{stem}{i}" not in names) for stem in "wbr"]
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for value, name in zip((weight, bias), new[:2], strict=True)
    )
    graph.node.append(helper.make_node("Gemm", [before, *new[:2]], [new[2]], name=new[2], transB=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(new[2], onnx.TensorProto.FLOAT, [1, len(rows)]))
    return result


def thresholds(instance: Instance) -> str:
    """Returns VNN-LIB 1.0 text: the box, and for each disjunct that its rows are at most 0."""
    count = sum(len(b) for _, b in instance.spec.disjuncts)
    lines = [f"(declare-const X_{i} Real)" for i in range(instance.lower.size)]
    lines += [f"(declare-const Y_{j} Real)" for j in range(count)]
    for i, (low, high) in enumerate(zip(instance.lower.reshape(-1), instance.upper.reshape(-1), strict=True)):
        lines += [f"(assert (>= X_{i} {_decimal(low)}))", f"(assert (<= X_{i} {_decimal(high)}))"]
    blocks, first = [], 0
    for _, b in instance.spec.disjuncts:
        blocks.append(f"(and {' '.join(f'(<= Y_{j} 0.0)' for j in range(first, first + len(b)))})")
        first += len(b)
    return "\n".join([*lines, f"(assert (or {' '.join(blocks)}))", ""])


def _decimal(value: np.float32) -> str:
    """Writes a number without an exponent, and exactly."""
    return format(Decimal(float(value)), "f")
