"""Writes a network as a plain ONNX graph of Conv, Gemm, Relu, Flatten, Add and pooling.

Written by hand rather than by torch's exporter, so that the same weights give the same bytes under every torch
version, with the old opset and IR version that all verifiers read. Batch norm is folded into the layer before it;
where an addition or a pooling stands before it, it becomes a 1x1 depthwise convolution, which is exact.

A grafted neuron's line a x + b is written as a (Relu(x + s) - s) + b with a shift s for which x + s is above 0 for all
images in [0, 1]: any verifier sees a ReLU that is stably active, and none has to know of grafting. Where the neurons of
a channel share their slope, lines and rectifiers are two branches that are added up, in each of which the other's
neurons are shifted below 0, so that a convolution of one number a channel does the scaling; a slope of each neuron
takes a multiplication, which those verifiers that know only convolutions get as a large matrix. Constants stay apart
from the next layer's bias, which padding would not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunecert.errors import UserError
from prunecert.models.bounds import boundable, propagate
from prunecert.models.graph import ModuleGraph, padding_of, sizes_of, windows_of
from prunecert.models.networks.factorised import factors_of
from prunecert.models.networks.grafted import GraftedReLU
from prunecert.models.networks.normalised import ResidualBlock
from prunecert.models.networks.wideresnet import PreactivationBlock

OPSET = 13
IR_VERSION = 7
INPUT, OUTPUT = "input", "logits"
#: Initialisers with this prefix are folded normalisation, not prunable weights.
NORM_PREFIX = "norm_"

#: What a sequence may hold to be written layer by layer.
_LAYERS = (
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    GraftedReLU,
    nn.ReLU,
    nn.Flatten,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    PreactivationBlock,
    ResidualBlock,
)

Array = npt.NDArray[np.float32]


def _array(tensor: Tensor | None) -> npt.NDArray[np.float64]:
    assert tensor is not None
    return tensor.detach().cpu().numpy().astype(np.float64)


class GraphWriter:
    """Collects nodes and initialisers of one network.

    Args:
        shape: Shape of one input, without the batch axis.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.reach: dict[str, tuple[Tensor, Tensor]] = {}
        self.sizes: dict[str, torch.Size] = {}

    def write(self, model: nn.Module, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """Returns the ONNX model, batch size 1, float32.

        Args:
            model: A network in evaluation mode: a sequential one, or one that `models.graph` has nodes for.
            metadata: Goes into ``metadata_props``.

        Raises:
            UserError: The network has a layer that has no translation.
        """
        self.reach = _reach(model, self.shape)
        graph = self._graph(model)
        if graph is None:
            self.sizes = _pooled(model, self.shape)
            assert self._sequence(list(model.named_children()), INPUT)
            with_outputs = next(m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear))
        else:
            with_outputs = self._nodes_of(model, graph)
        self.nodes[-1].output[0] = OUTPUT
        written = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, *self.shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, with_outputs.out_features])],
            self.initializers,
        )
        network = helper.make_model(
            written, producer_name="prunecert", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        helper.set_model_props(network, dict(sorted(metadata.items())))
        return network

    def _graph(self, model: nn.Module) -> ModuleGraph | None:
        """Returns the nodes to write, or None for a sequence of layers that are known."""
        unknown = None
        if isinstance(model, nn.Sequential):
            unknown = next((item for item in model.named_children() if not isinstance(item[1], _LAYERS)), None)
            if unknown is None:
                return None
        try:
            return boundable(model)
        except UserError as error:
            if unknown is not None:
                name, layer = unknown
                raise UserError(f"The layer {name!r} ({type(layer).__name__}) has no ONNX translation here.") from error
            raise UserError(
                f"Only sequential networks, and those that training can bound, can be exported, not "
                f"{type(model).__name__}. {error}"
            ) from error

    def _nodes_of(self, model: nn.Module, graph: ModuleGraph) -> nn.Linear:
        """Writes a network by its nodes; returns the layer that gives the logits."""
        sizes = sizes_of(graph, torch.zeros(1, *self.shape, device=next(model.parameters()).device))
        names: dict[str, int] = {}
        outputs: list[str] = []
        for index, node in enumerate(graph.nodes):
            if node.kind == "input":
                outputs.append(INPUT)
                continue
            name = node.name.replace(".", "_")
            names[name] = names.get(name, 0) + 1
            if names[name] > 1:
                # A ReLU without weights may run as often as it likes; of weights, each is written once.
                if node.kind not in ("relu", "flatten", "pool", "add") or isinstance(node.module, GraftedReLU):
                    raise UserError(
                        f"The layer {node.name!r} ({type(node.module).__name__}) runs several times, which the export "
                        "has no translation for; give every place a layer of its own."
                    )
                name = f"{name}_again{names[name]}"
            inputs = [outputs[one] for one in node.inputs]
            if node.kind == "add":
                outputs.append(self._node("Add", name, inputs))
                continue
            if index in graph.folds:
                outputs.append(outputs[graph.folds[index]])
                continue
            assert node.module is not None
            if index in sizes:
                self.sizes[name] = sizes[index]
            norm = next((graph.nodes[at].module for at, place in graph.folds.items() if place == index), None)
            following = norm if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) else None
            outputs.append(self._layer(name, node.module, inputs[0], following))
        last = graph.nodes[-1].module
        assert isinstance(last, nn.Linear)
        return last

    def _sequence(self, layers: Sequence[tuple[str, nn.Module]], x: str) -> str:
        index = 0
        while index < len(layers):
            name, layer = layers[index]
            following = layers[index + 1][1] if index + 1 < len(layers) else None
            if (isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d)) or (
                isinstance(layer, nn.Linear) and isinstance(following, nn.BatchNorm1d)
            ):
                x = self._layer(name, layer, x, following)
                index += 2
                continue
            x = self._layer(name, layer, x)
            index += 1
        return x

    def _layer(self, name: str, layer: nn.Module, x: str, norm: nn.BatchNorm1d | nn.BatchNorm2d | None = None) -> str:
        """Writes a layer, with the batch norm behind it that an affine one takes in."""
        match layer:
            case nn.Conv2d():
                return self._conv(name, layer, x, norm)
            case nn.Linear():
                return self._linear(name, layer, x, norm)
            case nn.BatchNorm2d():
                return self._norm(name, layer, x)
            case GraftedReLU():
                return self._grafted(name, layer, x)
            case nn.ReLU():
                return self._node("Relu", name, [x])
            case nn.Flatten():
                return self._node("Flatten", name, [x], axis=1)
            case nn.MaxPool2d():
                size, stride = int(layer.kernel_size), int(layer.stride)  # type: ignore[arg-type]
                return self._node("MaxPool", name, [x], kernel_shape=[size, size], strides=[stride, stride])
            case nn.AvgPool2d() | nn.AdaptiveAvgPool2d():
                return self._average(name, layer, x)
            case PreactivationBlock():
                return self._block(name, layer, x)
            case ResidualBlock():
                return self._residual_block(name, layer, x)
        raise UserError(f"The layer {name!r} ({type(layer).__name__}) has no ONNX translation here.")

    def _average(self, name: str, pool: nn.AvgPool2d | nn.AdaptiveAvgPool2d, x: str) -> str:
        windows = windows_of(pool, self.sizes.get(name, ()), name)
        padded = {"pads": [*windows.padding] * 2, "count_include_pad": 1} if any(windows.padding) else {}
        return self._node("AveragePool", name, [x], kernel_shape=[*windows.kernel], strides=[*windows.stride], **padded)

    def _block(self, name: str, block: PreactivationBlock, x: str) -> str:
        activated = self._layer(f"{name}_relu1", block.relu1, self._norm(f"{name}_bn1", block.bn1, x))
        inner = self._layer(
            f"{name}_relu2", block.relu2, self._conv(f"{name}_conv1", block.conv1, activated, block.bn2)
        )
        residual = self._conv(f"{name}_conv2", block.conv2, inner)
        if block.shortcut is not None:
            assert isinstance(block.shortcut, nn.Conv2d)
            x = self._conv(f"{name}_shortcut", block.shortcut, activated)
        return self._node("Add", name, [residual, x])

    def _residual_block(self, name: str, block: ResidualBlock, x: str) -> str:
        inner = self._layer(f"{name}_relu1", block.relu1, self._conv(f"{name}_conv1", block.conv1, x, block.bn1))
        residual = self._conv(f"{name}_conv2", block.conv2, inner, block.bn2)
        if isinstance(block.shortcut, nn.Sequential):
            conv, norm = block.shortcut
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            x = self._conv(f"{name}_shortcut", conv, x, norm)
        return self._layer(f"{name}_relu2", block.relu2, self._node("Add", name, [residual, x]))

    def _linear(self, name: str, linear: nn.Linear, x: str, norm: _BatchNorm | None = None) -> str:
        factors = factors_of(linear)
        if factors is not None:
            x = self._node(
                "Gemm", f"{name}_first", [x, self._weight(f"{name}_first_weight", _array(factors[1]))], transB=1
            )
        weight = _array(linear.weight if factors is None else factors[0])
        bias = _array(linear.bias) if linear.bias is not None else np.zeros(len(weight))
        if norm is not None:
            scale, shift = _scale_shift(norm)
            weight, bias = weight * scale[:, None], bias * scale + shift
        weights = [self._weight(f"{name}_weight", weight), self._weight(f"{name}_bias", bias)]
        return self._node("Gemm", name, [x, *weights], transB=1)

    def _conv(self, name: str, conv: nn.Conv2d, x: str, norm: _BatchNorm | None = None) -> str:
        before, after = padding_of(conv)
        moves = {
            "kernel_shape": list(conv.kernel_size),
            "strides": list(conv.stride),
            "pads": [*before, *after],
            "dilations": list(conv.dilation),
            "group": conv.groups,
        }
        factors = factors_of(conv)
        if factors is not None:
            last, core, first = map(_array, factors)
            mixing = self._weight(f"{name}_first_weight", first[:, :, None, None])
            x = self._node("Conv", f"{name}_first", [x, mixing], kernel_shape=[1, 1])
            x = self._node("Conv", f"{name}_core", [x, self._weight(f"{name}_core_weight", core)], **moves)
            moves = {"kernel_shape": [1, 1]}
        weight = _array(conv.weight) if factors is None else last[:, :, None, None]
        bias = _array(conv.bias) if conv.bias is not None else np.zeros(len(weight))
        if norm is not None:
            scale, shift = _scale_shift(norm)
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        weights = [self._weight(f"{name}_weight", weight), self._weight(f"{name}_bias", bias)]
        return self._node("Conv", name, [x, *weights], **moves)

    def _norm(self, name: str, norm: nn.BatchNorm2d, x: str) -> str:
        scale, shift = _scale_shift(norm)
        weights = [
            self._weight(f"{NORM_PREFIX}{name}_scale", scale[:, None, None, None]),
            self._weight(f"{NORM_PREFIX}{name}_shift", shift),
        ]
        return self._node("Conv", name, [x, *weights], kernel_shape=[1, 1], group=len(scale))

    def _grafted(self, name: str, relu: GraftedReLU, x: str) -> str:
        slope, offset, grafted = _array(relu.slope), _array(relu.offset), relu.grafted.cpu().numpy()
        # A little more than needed, so that rounding in a verifier's bounds leaves all stable.
        low, high = (1.001 * np.maximum(_array(bound), 0) + 1e-3 for bound in self.reach[name])
        if slope.shape == grafted.shape:
            shift = np.where(grafted, low, 0.0).astype(np.float32).astype(np.float64)
            scale, rest = np.where(grafted, slope, 1.0), np.where(grafted, offset - slope * shift, 0.0)
            x = self._rectified(f"{name}", x, shift)
            x = self._node("Mul", f"{name}_scaled", [x, self._weight(f"{name}_scale", scale[None])])
            return self._add(f"{name}_lines", x, rest)
        shift = np.where(grafted, low, -high).astype(np.float32).astype(np.float64)
        lines = self._rectified(f"{name}_straight", x, shift)
        weights = [
            self._weight(f"{NORM_PREFIX}{name}_scale", slope[..., None]),
            self._weight(f"{NORM_PREFIX}{name}_zero", np.zeros(len(slope))),
        ]
        lines = self._node("Conv", f"{name}_scaled", [lines, *weights], kernel_shape=[1, 1], group=len(slope))
        lines = self._add(f"{name}_lines", lines, np.where(grafted, offset - slope * shift, 0.0))
        return self._node("Add", f"{name}_sum", [self._rectified(name, x, np.where(grafted, -high, 0.0)), lines])

    def _rectified(self, name: str, x: str, shift: npt.NDArray[np.float64]) -> str:
        return self._node("Relu", name, [self._add(f"{name}_shifted", x, shift)])

    def _add(self, name: str, x: str, constant: npt.NDArray[np.float64]) -> str:
        return self._node("Add", name, [x, self._weight(f"{name}_constant", constant[None])])

    def _weight(self, name: str, values: npt.NDArray[np.float64]) -> str:
        # -0.0 is a zero like any other, but not for those who compare bytes.
        array = (values.astype(np.float32) + np.float32(0)).astype(np.float32)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _node(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{name}_out"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{name}", **attributes))
        return output


@torch.no_grad()
def _pooled(model: nn.Module, shape: Sequence[int]) -> dict[str, torch.Size]:
    """Returns height and width of what adaptive poolings take, by layer."""
    sizes: dict[str, torch.Size] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[name] = inputs[0].shape[2:]

    handles = [
        module.register_forward_pre_hook(partial(note, name.replace(".", "_")))
        for name, module in model.named_modules()
        if isinstance(module, nn.AdaptiveAvgPool2d)
    ]
    if handles:
        model(torch.zeros(1, *shape, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return sizes


@torch.no_grad()
def _reach(model: nn.Module, shape: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns how far below and above 0 pre-activations may reach over all images in [0, 1], by grafted layer."""
    if not any(isinstance(module, GraftedReLU) for module in model.modules()):
        return {}
    device = next(model.parameters()).device
    bounds = propagate(model, torch.full((1, *shape), 0.5, device=device), 0.5)
    return {
        bounds.graph.nodes[index].name.replace(".", "_"): ((radius - center)[0], (center + radius)[0])
        for index, (center, radius) in zip(bounds.graph.relus, bounds.boxes, strict=True)
    }


def _scale_shift(norm: _BatchNorm) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns what batch norm multiplies and adds in evaluation, in float64."""
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - _array(norm.running_mean) * scale
