"""Networks of many operators for the soundness suite: as ONNX, and as the oracle's affine maps and maxima.

What a node means is read by `tests.soundness.operator_meanings`, which shares nothing with the project's own reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.soundness.networks import Array, Network
from tests.soundness.operator_meanings import Meanings, Reading, Use

#: What a node reads: the name of an earlier value, numbers of its own, or nothing.
Source = str | npt.NDArray[Any] | None

#: Last operators, which are no piecewise linear functions.
LAST = ("LogSoftmax", "Sigmoid", "Softmax", "Tanh")


@dataclass
class OperatorNetwork(Network):
    """A network under construction; `apply` adds a node and returns the name of its value.

    Args:
        opset: Of the file.
        last: A last operator that is no piecewise linear function, but keeps what order properties speak of.
        counted: Name of the output that properties speak of.
        results: Of all outputs.
        readings: What each value is.
    """

    opset: int = 13
    last: str = ""
    counted: str = ""
    results: list[str] = field(default_factory=list)
    readings: dict[str, Reading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.readings["input"] = (0, (1, *self.shape))

    @property
    def classes(self) -> int:
        """Number of values of the output that counts."""
        return self.size(self.counted)

    def size(self, name: str) -> int:
        """Returns how many numbers a value holds."""
        return int(np.prod(self.readings[name][1]))

    def apply(self, operator: str, *sources: Source, **attributes: Any) -> str:
        """Adds a node with one output."""
        return self.split(operator, 1, *sources, **attributes)[0]

    def split(self, operator: str, count: int, *sources: Source, **attributes: Any) -> list[str]:
        """Adds a node with several outputs.

        Args:
            operator: ONNX's name of it.
            count: Number of outputs.
            sources: What it reads; float constants are rounded to float32.
            attributes: ONNX's.
        """
        number = len(self.onnx_nodes)
        names: list[str] = []
        for place, source in enumerate(sources):
            if source is None or isinstance(source, str):
                names.append(source or "")
                continue
            names.append(f"k{number}_{place}")
            kind = np.float32 if source.dtype.kind == "f" else source.dtype
            self.weights.append(numpy_helper.from_array(np.asarray(source, dtype=kind), names[-1]))
        results = [f"v{number}_{place}" for place in range(count)]
        node = helper.make_node(operator, names, results, **attributes)
        self.onnx_nodes.append(node)
        constants = {
            place: np.asarray(source, dtype=np.float32).astype(np.float64) if source.dtype.kind == "f" else source
            for place, source in enumerate(sources)
            if isinstance(source, np.ndarray)
        }
        values = {place: self.readings[name] for place, name in enumerate(sources) if isinstance(name, str)}
        if operator in LAST:
            self.last = operator
            self.readings[results[0]] = values[0]
        else:
            readings = self.meanings.read(Use(node, constants, values))
            self.readings.update(zip(results, readings, strict=True))
        return results

    @property
    def meanings(self) -> Meanings:
        """Adds to the oracle's nodes what ONNX's mean."""
        return Meanings(self.inputs, self.nodes, self.opset)

    def finish(self, *results: str, counted: str = "") -> OperatorNetwork:
        """Names the outputs, and the one that properties speak of, the last unless another is said; returns itself."""
        self.results, self.counted = list(results), counted or results[-1]
        index, shape = self.readings[self.counted]
        size = int(np.prod(shape))
        self.meanings.pick(index, np.arange(size))
        return self

    def run(self, points: npt.ArrayLike) -> Array:
        """Returns what a runtime computes without rounding, [n, inputs] to [n, classes], the last operator included."""
        outputs = self.evaluate(points)
        logarithms: Array = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
        curves = {
            "": outputs,
            "LogSoftmax": logarithms,
            "Sigmoid": 1 / (1 + np.exp(-outputs)),
            "Softmax": np.exp(logarithms),
            "Tanh": np.tanh(outputs),
        }
        return curves[self.last]

    def save(self, path: Path) -> Path:
        """Writes the network as ONNX."""
        graph = helper.make_graph(
            self.onnx_nodes,
            self.name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *self.shape])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, self.readings[name][1]) for name in self.results],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return path
