"""Read a feed-forward ONNX network into a torch module that takes any batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from verifiers.base import UnsupportedError
from verifiers.support import load_model

_Step = tuple[str, str, tuple[str, ...]]


class _Arithmetic(nn.Module):
    """x ∘ constant or constant ∘ x, the constant of shape [1, ...] broadcast over the batch."""

    constant: torch.Tensor

    def __init__(self, operator: str, constant: torch.Tensor, constant_first: bool) -> None:
        super().__init__()
        self.operator = operator
        self.constant_first = constant_first
        self.register_buffer("constant", constant)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.operator == "Add":
            return x + self.constant
        if self.operator == "Sub":
            return self.constant - x if self.constant_first else x - self.constant
        if self.operator == "Mul":
            return x * self.constant
        return x / self.constant


class _Combine(nn.Module):
    """x ∘ y of two computed tensors."""

    def __init__(self, operator: str) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y if self.operator == "Add" else x - y


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
    """Notes that a layer's numbers are the file's only up to a rounding to float32, for `verifiers.lirpa_rounding`."""
    layer.__dict__["rounded"] = True


def _diagonal(factor: torch.Tensor, shift: torch.Tensor) -> nn.Conv2d:
    """Returns x * factor + shift per channel as a 1 x 1 convolution.

    The bounds walk through convolutions in every mode, but not through element-wise products with constants; and a
    normalisation before the first layer would make interval bounds of an l2 ball wrong (auto_LiRPA then takes the
    ball's centre for its box).
    """
    channels = len(factor)
    layer = nn.Conv2d(channels, channels, 1)
    layer.weight.copy_(torch.diag(factor)[:, :, None, None])
    assert layer.bias is not None
    layer.bias.copy_(shift)
    return layer


class _Reader:
    """Walks through the graph, computing every tensor for one sample of zeros so that all shapes are known."""

    def __init__(self, model: Any, name: str) -> None:
        import onnx

        self._numpy = onnx.numpy_helper.to_array
        self._attribute = onnx.helper.get_attribute_value
        self.file = name
        self.graph = model.graph
        self.constants: dict[str, npt.NDArray[Any]] = {item.name: self._numpy(item) for item in self.graph.initializer}
        self.values: dict[str, torch.Tensor] = {}
        self.steps: list[_Step] = []
        self.layers: dict[str, nn.Module] = {}

    def read(self) -> OnnxModule:
        """Converts the graph."""
        entry = next(item for item in self.graph.input if item.name not in self.constants)
        shape = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)
        if len(shape) < 2 or shape[0] > 1 or 0 in shape[1:]:
            raise UnsupportedError(
                f"{self.file}: the input shape {shape} isn't taken: it must be a batch of 1 or free and fixed others."
            )
        self.values[entry.name] = torch.zeros(1, *shape[1:])
        with torch.no_grad():
            for index, node in enumerate(self.graph.node):
                self._node(node, node.name or f"number {index}")
        name = self.graph.output[0].name
        output = self.values.get(name)
        if output is None or output.dim() != 2:
            raise UnsupportedError(f"{self.file}: the output must be computed from the input and be a flat vector.")
        return OnnxModule(self.steps, self.layers, entry.name, name, shape[1:], output.shape[1])

    def _refuse(self, node: Any, label: str, why: str) -> UnsupportedError:
        return UnsupportedError(f"{self.file}: the node {label!r} ({node.op_type}) isn't taken: {why}.")

    def _node(self, node: Any, label: str) -> None:
        attributes = {item.name: self._attribute(item) for item in node.attribute}
        names = [name for name in node.input if name]
        if node.op_type == "Constant":
            value = attributes.get("value")
            if value is None:
                raise self._refuse(node, label, "only a tensor value is")
            self.constants[node.output[0]] = self._numpy(value)
            return
        if node.op_type == "Shape" and names[0] in self.values:
            self.constants[node.output[0]] = np.array(self.values[names[0]].shape, dtype=np.int64)
            return
        if all(name in self.constants for name in names):
            self._fold(node, names)
            return
        converters: dict[str, Callable[[Any, str, list[str], dict[str, Any]], tuple[nn.Module, list[str]]]] = {
            "Add": self._arithmetic,
            "AveragePool": self._pool,
            "BatchNormalization": self._batch_norm,
            "Conv": self._conv,
            "Div": self._arithmetic,
            "Flatten": self._reshape,
            "Gemm": self._linear,
            "GlobalAveragePool": self._global_pool,
            "MatMul": self._linear,
            "MaxPool": self._pool,
            "Mul": self._arithmetic,
            "Relu": lambda *_: (nn.ReLU(), names),
            "Reshape": self._reshape,
            "Squeeze": self._reshape,
            "Sub": self._arithmetic,
            "Unsqueeze": self._reshape,
        }
        if node.op_type in ("Identity", "Dropout"):
            converted: tuple[nn.Module, list[str]] = (nn.Identity(), names[:1])
        elif node.op_type in converters:
            converted = converters[node.op_type](node, label, names, attributes)
        else:
            raise self._refuse(node, label, "its inputs aren't constants")
        module, arguments = converted
        key = f"n{len(self.layers)}"
        self.layers[key] = module.eval()
        self.steps.append((node.output[0], key, tuple(arguments)))
        self.values[node.output[0]] = module(*(self.values[name] for name in arguments))

    def _fold(self, node: Any, names: list[str]) -> None:
        from onnx.reference import ReferenceEvaluator

        results: Any = ReferenceEvaluator(node).run(None, {name: self.constants[name] for name in names})
        self.constants.update(zip(node.output, results, strict=False))

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.constants[name], dtype=np.float32))

    def _arithmetic(
        self, node: Any, label: str, names: list[str], attributes: dict[str, Any]
    ) -> tuple[nn.Module, list[str]]:
        computed = [name for name in names if name in self.values]
        if len(computed) == 2:
            if node.op_type in ("Mul", "Div"):
                raise self._refuse(node, label, "both its operands depend on the input")
            if self.values[names[0]].shape != self.values[names[1]].shape:
                raise self._refuse(node, label, "its operands have different shapes")
            return _Combine(node.op_type), names
        constant_first = names[0] not in self.values
        if constant_first and node.op_type == "Div":
            raise self._refuse(node, label, "the divisor depends on the input")
        value = self.values[computed[0]]
        constant = self._tensor(names[0] if constant_first else names[1])
        constant = constant.reshape((1,) * (value.dim() - constant.dim()) + tuple(constant.shape))
        per_channel = value.dim() == 4 and all(size == 1 for i, size in enumerate(constant.shape) if i != 1)
        if per_channel and node.op_type in ("Add", "Sub", "Mul", "Div") and constant.shape[0] == 1:
            ones = torch.ones(value.shape[1])
            channel = constant.reshape(-1).expand(value.shape[1])
            factor = {"Mul": channel, "Div": 1 / channel}.get(
                node.op_type, -ones if constant_first and node.op_type == "Sub" else ones
            )
            shift = {"Add": channel, "Sub": channel if constant_first else -channel}.get(
                node.op_type, torch.zeros_like(ones)
            )
            layer = _diagonal(factor, shift)
            if node.op_type == "Div":
                _mark(layer)
            return layer, computed
        if constant.dim() != value.dim() or np.broadcast_shapes(constant.shape, value.shape) != tuple(value.shape):
            raise self._refuse(node, label, f"a constant of shape {tuple(constant.shape)} changes the shape")
        return _Arithmetic(node.op_type, constant, constant_first), computed

    def _linear(
        self, node: Any, label: str, names: list[str], attributes: dict[str, Any]
    ) -> tuple[nn.Module, list[str]]:
        if names[0] not in self.values or names[1] not in self.constants or attributes.get("transA", 0):
            raise self._refuse(node, label, "the weights must be a constant on the right")
        weight = self._tensor(names[1])
        if self.values[names[0]].dim() != 2 or weight.dim() != 2:
            raise self._refuse(node, label, "only a flat vector times a matrix is")
        weight = float(attributes.get("alpha", 1.0)) * (weight if attributes.get("transB", 0) else weight.T)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=len(names) > 2)
        layer.weight.copy_(weight)
        if len(names) > 2:
            if names[2] not in self.constants:
                raise self._refuse(node, label, "the bias must be a constant")
            bias = float(attributes.get("beta", 1.0)) * self._tensor(names[2])
            layer.bias.copy_(bias.reshape(-1).expand(weight.shape[0]))
        if {float(attributes.get(key, 1.0)) for key in ("alpha", "beta")} != {1.0}:
            _mark(layer)
        return layer, names[:1]

    def _conv(self, node: Any, label: str, names: list[str], attributes: dict[str, Any]) -> tuple[nn.Module, list[str]]:
        if any(name not in self.constants for name in names[1:]):
            raise self._refuse(node, label, "its weights and bias must be constants")
        weight = self._tensor(names[1])
        if weight.dim() != 4:
            raise self._refuse(node, label, "only two-dimensional convolutions are")
        groups = int(attributes.get("group", 1))
        layer = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            (int(weight.shape[2]), int(weight.shape[3])),
            stride=self._pair(attributes.get("strides")),
            padding=self._padding(node, label, attributes),
            dilation=self._pair(attributes.get("dilations")),
            groups=groups,
            bias=len(names) > 2,
        )
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(self._tensor(names[2]))
        return layer, names[:1]

    def _pair(self, value: Sequence[int] | None) -> tuple[int, int]:
        return (1, 1) if value is None else (int(value[0]), int(value[1]))

    def _padding(self, node: Any, label: str, attributes: dict[str, Any]) -> tuple[int, int]:
        pads = [int(pad) for pad in attributes.get("pads", (0, 0, 0, 0))]
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or len(pads) != 4:
            raise self._refuse(node, label, "only explicit two-dimensional padding is")
        if pads[:2] != pads[2:]:
            raise self._refuse(node, label, f"the padding {pads} isn't symmetric")
        return pads[0], pads[1]

    def _pool(self, node: Any, label: str, names: list[str], attributes: dict[str, Any]) -> tuple[nn.Module, list[str]]:
        kernel = attributes["kernel_shape"]
        if len(kernel) != 2 or attributes.get("ceil_mode", 0) or self._pair(attributes.get("dilations")) != (1, 1):
            raise self._refuse(node, label, "only plain two-dimensional pooling is")
        size, stride = self._pair(kernel), self._pair(attributes.get("strides"))
        padding = self._padding(node, label, attributes)
        if node.op_type == "MaxPool":
            # A stride of its own, or windows that overlap, is what the bounds of a maximum don't take.
            if size != stride or padding != (0, 0):
                raise self._refuse(node, label, "its windows overlap or are padded")
            return nn.MaxPool2d(size, stride, padding), names[:1]
        if padding != (0, 0):
            raise self._refuse(node, label, "padded averages aren't")
        return nn.AvgPool2d(size, stride), names[:1]

    def _global_pool(
        self, node: Any, label: str, names: list[str], attributes: dict[str, Any]
    ) -> tuple[nn.Module, list[str]]:
        height, width = self.values[names[0]].shape[-2:]
        return nn.AvgPool2d((height, width), (height, width)), names[:1]

    def _batch_norm(
        self, node: Any, label: str, names: list[str], attributes: dict[str, Any]
    ) -> tuple[nn.Module, list[str]]:
        if attributes.get("training_mode", 0) or any(name not in self.constants for name in names[1:5]):
            raise self._refuse(node, label, "only the form for inference with constant statistics is")
        scale, shift, mean, variance = (self.constants[name].astype(np.float64) for name in names[1:5])
        factor = scale / np.sqrt(variance + float(attributes.get("epsilon", 1e-5)))
        offset = shift - mean * factor
        tensors = [torch.from_numpy(part.astype(np.float32)) for part in (factor, offset)]
        if self.values[names[0]].dim() == 4:
            folded = _diagonal(*tensors)
            _mark(folded)
            return folded, names[:1]
        layer = nn.Linear(len(factor), len(factor))
        layer.weight.copy_(torch.diag(tensors[0]))
        layer.bias.copy_(tensors[1])
        _mark(layer)
        return layer, names[:1]

    def _reshape(
        self, node: Any, label: str, names: list[str], attributes: dict[str, Any]
    ) -> tuple[nn.Module, list[str]]:
        if any(name not in self.constants for name in names[1:]):
            raise self._refuse(node, label, "the new shape must be a constant")
        value = self.values[names[0]]
        old = list(value.shape)
        constant = [int(item) for item in self.constants[names[1]].reshape(-1)] if len(names) > 1 else None
        if node.op_type == "Reshape":
            assert constant is not None
            wanted = [old[i] if item == 0 else item for i, item in enumerate(constant)]
            new = list(value.reshape(wanted).shape)
        elif node.op_type == "Flatten":
            axis = int(attributes.get("axis", 1)) % (len(old) + 1)
            new = [int(np.prod(old[:axis])), int(np.prod(old[axis:]))]
        else:
            axes = constant if constant is not None else [int(axis) for axis in attributes.get("axes", ())]
            array = np.empty(old)
            if node.op_type == "Squeeze":
                new = list(np.squeeze(array, tuple(axes) if axes else None).shape)
            else:
                new = list(np.expand_dims(array, tuple(axes)).shape)
        if len(new) < 2 or new[0] != 1:
            raise self._refuse(node, label, f"the new shape {new} mixes samples of a batch")
        return _Reshape(new[1:]), names[:1]


def read_onnx(path: Path) -> OnnxModule:
    """Converts a network and compares its outputs with onnxruntime's.

    Args:
        path: The ONNX file.

    Returns:
        The module, in evaluation mode, float32, on the CPU, its parameters without gradients.

    Raises:
        UserError: The file is no ONNX network.
        UnsupportedError: A node is used in a way that isn't taken; it is named.
        RuntimeError: The converted network computes something else than onnxruntime does.
    """
    module = _Reader(load_model(path), path.name).read().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    _compare(module, path)
    return module


def _compare(module: OnnxModule, path: Path, points: int = 3) -> None:
    from verifiers.counterexample import outputs

    generator = np.random.default_rng(0)
    inputs = generator.random((points, *module.input_shape), dtype=np.float32)
    wanted = outputs(path, inputs)
    with torch.no_grad():
        got = module(torch.from_numpy(inputs)).numpy()
    if got.shape != wanted.shape:
        raise RuntimeError(f"{path.name}: the converted network has outputs {got.shape}, onnxruntime {wanted.shape}")
    gap = float(np.abs(got - wanted).max(initial=0.0))
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    # Written so that NaN is refused too.
    if not gap <= 1e-4 * scale:
        raise RuntimeError(f"{path.name}: the converted network differs from onnxruntime by {gap:.3g}")
