"""An instance as Vibecheck can read it: the network with the property's rows as its outputs, and thresholds of these.

Its reader knows comparisons of an output with a number or with another output, and leaves out what else it finds in
VNN-LIB 1.0. So A y - b becomes a last layer, and a disjunct is that some of the new outputs are at most 0: any property
in disjunctive normal form is said exactly, and a margin for rounding as well.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import Instance, UnsupportedError


def extended(model: Any, instance: Instance) -> Any:
    """Returns a copy of a network that ends in the rows A y - b of all disjuncts.

    Args:
        model: ``onnx.ModelProto`` in normal form.
        instance: Whose property.

    Raises:
        UnsupportedError: A disjunct has no rows, or there is none.
    """
    import onnx
    from onnx import helper, numpy_helper

    if any(len(b) == 0 for _, b in instance.spec.disjuncts):
        raise UnsupportedError("Vibecheck takes no disjunct without rows")
    rows = np.concatenate([a for a, _ in instance.spec.disjuncts] or [np.zeros((0, instance.classes))])
    limits = np.concatenate([b for _, b in instance.spec.disjuncts] or [np.zeros(0)])
    if not len(rows):
        raise UnsupportedError("Vibecheck takes no property without rows")
    high = rows.astype(np.float32)
    low = (rows - high).astype(np.float32)
    # Rounded so that the unsafe set gets no smaller.
    bias = -limits.astype(np.float32)
    bias = np.where(-bias.astype(np.float64) < limits, np.nextafter(bias, np.float32(-np.inf)), bias)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    before = graph.output[0].name
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    used |= {item.name for item in (*graph.initializer, *graph.input)}

    def name(stem: str) -> str:
        return next(f"{stem}{i}" for i in range(len(used) + 1) if f"{stem}{i}" not in used)

    def add_layer(weight: npt.NDArray[np.float32], limit: npt.NDArray[np.float32], stem: str) -> str:
        names = [name(f"{stem}_{part}") for part in ("weight", "bias", "rows")]
        for value, constant in zip((weight, limit), names[:2], strict=True):
            graph.initializer.append(numpy_helper.from_array(value, constant))
        graph.node.append(helper.make_node("Gemm", [before, *names[:2]], [names[2]], name=names[2], transB=1))
        return names[2]

    last = add_layer(high, bias, "high")
    if low.any():
        # What a float32 coefficient leaves of a float64 one is a layer beside.
        both, end = (last, add_layer(low, np.zeros_like(bias), "low")), name("sum_rows")
        graph.node.append(helper.make_node("Add", both, [end], name=end))
        last = end
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, [1, len(rows)]))
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
