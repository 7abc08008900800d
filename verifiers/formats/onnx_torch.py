"""Read an ONNX network in normal form into a torch module that takes any batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prunecert.onnx.io import load_model
from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.formats.support import is_rewritten

_Step = tuple[str, str, tuple[str, ...]]


class _Combine(nn.Module):
    """x + y of two computed tensors."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class _Reshape(nn.Module):
    """Gives each sample another shape; ``shape`` is without the batch axis."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(x, 1) if len(self.shape) == 1 else x.reshape(-1, *self.shape)


class OnnxModule(nn.Module):
    """The converted network: its steps in the order of the graph.

    Args:
        steps: For each: name of the result, key of the module, names of the arguments.
        layers: The modules by key.
        input_name: Name of the input.
        output_name: Name of the output.
        input_shape: Shape of one sample.
        outputs: Number of outputs of one sample.
    """

    def __init__(
        self,
        steps: Sequence[_Step],
        layers: Mapping[str, nn.Module],
        input_name: str,
        output_name: str,
        input_shape: tuple[int, ...],
        outputs: int,
    ) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.layers = nn.ModuleDict(dict(layers))
        self.input_name = input_name
        self.output_name = output_name
        self.input_shape = input_shape
        self.outputs = outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps inputs [n, *input_shape] to outputs [n, outputs]."""
        values = {self.input_name: x}
        for result, key, arguments in self.steps:
            values[result] = self.layers[key](*(values[name] for name in arguments))
        return values[self.output_name]

    def starts_linear(self) -> bool:
        """Whether only convolutions and linear layers use the input, but for a change of its shape."""
        names = {self.input_name}
        for result, key, arguments in self.steps:
            if names.isdisjoint(arguments):
                continue
            if isinstance(self.layers[key], _Reshape | nn.Identity):
                names.add(result)
            elif not isinstance(self.layers[key], nn.Conv2d | nn.Linear):
                return False
        return True


def _mark(layer: nn.Module) -> None:
    """Notes that a layer's numbers are the file's only up to a rounding to float32, for `verifiers.rounding.lirpa`."""
    layer.__dict__["rounded"] = True


class _Reader:
    """Walks through the graph, computing every tensor for one sample of zeros so that all shapes are known."""

    def __init__(self, model: Any, name: str, averages: bool) -> None:
        import onnx

        self._attribute = onnx.helper.get_attribute_value
        self.file = name
        self.graph = model.graph
        self.averages = averages
        self.rewritten = is_rewritten(model)
        self.constants: dict[str, npt.NDArray[Any]] = {
            item.name: onnx.numpy_helper.to_array(item) for item in self.graph.initializer
        }
        self.values: dict[str, torch.Tensor] = {}
        self.steps: list[_Step] = []
        self.layers: dict[str, nn.Module] = {}

    def read(self) -> OnnxModule:
        """Converts the graph."""
        entry = next(item for item in self.graph.input if item.name not in self.constants)
        shape = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)
        if len(shape) < 2 or shape[0] > 1 or 0 in shape[1:]:
            raise UnsupportedError(f"{self.file}: the input shape {shape} is none of a network in normal form.")
        self.values[entry.name] = torch.zeros(1, *shape[1:])
        with torch.no_grad():
            for index, node in enumerate(self.graph.node):
                self._node(node, node.name or f"number {index}")
        name = self.graph.output[0].name
        output = self.values.get(name)
        if output is None or output.dim() != 2:
            raise UnsupportedError(f"{self.file}: the output must be computed from the input and be a flat vector.")
        return OnnxModule(self.steps, self.layers, entry.name, name, shape[1:], output.shape[1])

    def _node(self, node: Any, label: str) -> None:
        attributes = {item.name: self._attribute(item) for item in node.attribute}
        names = [name for name in node.input if name]
        converters: dict[str, Callable[[list[str], dict[str, Any]], nn.Module]] = {
            "Add": lambda *_: _Combine(),
            "AveragePool": self._average,
            "Conv": self._conv,
            "Flatten": self._flatten,
            "Gemm": self._linear,
            "MaxPool": self._maximum,
            "Relu": lambda *_: nn.ReLU(),
            "Reshape": self._reshape,
        }
        computed = [name for name in names if name in self.values]
        arity = 2 if node.op_type == "Add" else 1
        if node.op_type not in converters or len(computed) != arity or names[:arity] != computed:
            raise self._refuse(node, label, "its operator or inputs")
        try:
            module = converters[node.op_type](names, attributes).eval()
            value = module(*(self.values[name] for name in computed))
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise self._refuse(node, label, f"its form ({error})") from error
        key = f"n{len(self.layers)}"
        self.layers[key] = module
        self.steps.append((node.output[0], key, tuple(computed)))
        self.values[node.output[0]] = value

    def _refuse(self, node: Any, label: str, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.file}: the node {label!r} ({node.op_type}) isn't taken: {what} are none of the normal form's."
        )

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.constants[name], dtype=np.float32))

    def _linear(self, names: list[str], attributes: dict[str, Any]) -> nn.Module:
        if attributes.get("transA", 0) or (attributes.get("alpha", 1.0), attributes.get("beta", 1.0)) != (1.0, 1.0):
            raise ValueError("transA, alpha or beta")
        weight = self._tensor(names[1])
        weight = weight if attributes.get("transB", 0) else weight.T
        outputs, inputs = weight.shape
        layer = nn.Linear(inputs, outputs)
        layer.weight.copy_(weight)
        layer.bias.copy_(self._bias(names, outputs))
        if self.rewritten:
            _mark(layer)
        return layer

    def _bias(self, names: list[str], size: int) -> torch.Tensor:
        # A layer without a bias is one with zeros: some bounds can't do without.
        return self._tensor(names[2]).reshape(-1).expand(size) if len(names) > 2 else torch.zeros(size)

    def _conv(self, names: list[str], attributes: dict[str, Any]) -> nn.Module:
        weight = self._tensor(names[1])
        groups = int(attributes.get("group", 1))
        layer = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            (int(weight.shape[2]), int(weight.shape[3])),
            stride=_pair(attributes.get("strides")),
            padding=_padding(attributes),
            dilation=_pair(attributes.get("dilations")),
            groups=groups,
        )
        layer.weight.copy_(weight)
        assert layer.bias is not None
        layer.bias.copy_(self._bias(names, weight.shape[0]))
        if self.rewritten:
            _mark(layer)
        return layer

    def _average(self, names: list[str], attributes: dict[str, Any]) -> nn.Module:
        size, stride = _window(attributes)
        if not self.averages:
            return nn.AvgPool2d(size, stride)
        channels = self.values[names[0]].shape[1]
        layer = nn.Conv2d(channels, channels, size, stride=stride)
        layer.weight.zero_()
        layer.weight[range(channels), range(channels)] = 1 / (size[0] * size[1])
        _mark(layer)
        assert layer.bias is not None
        layer.bias.zero_()
        return layer

    def _maximum(self, names: list[str], attributes: dict[str, Any]) -> nn.Module:
        size, stride = _window(attributes)
        if size != stride:
            # What the bounds of a maximum don't take.
            raise ValueError("windows that overlap")
        return nn.MaxPool2d(size, stride)

    def _flatten(self, names: list[str], attributes: dict[str, Any]) -> nn.Module:
        if attributes.get("axis", 1) != 1:
            raise ValueError("an axis other than 1")
        return _Reshape([self.values[names[0]].numel()])

    def _reshape(self, names: list[str], attributes: dict[str, Any]) -> nn.Module:
        target = [int(item) for item in self.constants[names[1]].reshape(-1)]
        new = list(self.values[names[0]].reshape(target).shape)
        if len(new) < 2 or new[0] != 1:
            raise ValueError("a shape that mixes samples of a batch")
        return _Reshape(new[1:])


def _pair(value: Sequence[int] | None) -> tuple[int, int]:
    return (1, 1) if value is None else (int(value[0]), int(value[1]))


def _padding(attributes: Mapping[str, Any]) -> tuple[int, int]:
    pads = [int(pad) for pad in attributes.get("pads", (0, 0, 0, 0))]
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or len(pads) != 4 or pads[:2] != pads[2:]:
        raise ValueError("padding that isn't explicit, two-dimensional and symmetric")
    return pads[0], pads[1]


def _window(attributes: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    kernel = attributes["kernel_shape"]
    if len(kernel) != 2 or attributes.get("ceil_mode", 0) or _pair(attributes.get("dilations")) != (1, 1):
        raise ValueError("a pool that isn't plain and two-dimensional")
    if _padding(attributes) != (0, 0):
        raise ValueError("a padded pool")
    return _pair(kernel), _pair(attributes.get("strides"))


def read_onnx(path: Path, *, averages_as_convolutions: bool = False) -> OnnxModule:
    """Converts a network in normal form (`prunecert.onnx`).

    Args:
        path: The ONNX file.
        averages_as_convolutions: Whether average pools become convolutions, for bounds that can't take all pools.

    Returns:
        The module, in evaluation mode, float32, on the CPU, its parameters without gradients.

    Raises:
        UserError: The file is no ONNX network.
        UnsupportedError: A node is none of a network in normal form; it is named.

    >>> import numpy as np, onnx
    >>> from tempfile import TemporaryDirectory
    >>> from onnx import TensorProto, helper, numpy_helper
    >>> graph = helper.make_graph(
    ...     [helper.make_node("Gemm", ["x", "w", "b"], ["g"], transB=1), helper.make_node("Relu", ["g"], ["y"])],
    ...     "example",
    ...     [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
    ...     [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    ...     [
    ...         numpy_helper.from_array(np.array([[1, 2], [-1, 0]], dtype=np.float32), "w"),
    ...         numpy_helper.from_array(np.array([0.5, 0], dtype=np.float32), "b"),
    ...     ],
    ... )
    >>> model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    >>> with TemporaryDirectory() as folder:
    ...     onnx.save(model, Path(folder, "example.onnx"))
    ...     network = read_onnx(Path(folder, "example.onnx"))
    >>> network(torch.tensor([[1.0, 2.0]])).tolist()
    [[5.5, 0.0]]
    """
    module = _Reader(load_model(path), path.name, averages_as_convolutions).read().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module
