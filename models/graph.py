"""A network as a short list of nodes, for those who walk over it: bounds for training, and the export.

The nodes come from symbolic tracing (torch.fx) down to the layers that torch brings along, so that sequential networks
and residual ones are walked over alike.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from prunecert.errors import UserError
from prunecert.models.networks.grafted import GraftedReLU

Kind = Literal["input", "affine", "norm", "relu", "flatten", "pool", "add"]

#: What a user may put instead of a layer that has no bounds.
ALLOWED = (
    "Conv2d, Linear, ReLU, BatchNorm, AvgPool2d, AdaptiveAvgPool2d, means over both places, Flatten and sums of two "
    "branches, ending in a Linear layer. A stride-2 convolution or an AvgPool2d may stand for a MaxPool2d; otherwise "
    "train with natural, pgd or trades"
)


@dataclass(frozen=True)
class ModuleNode:
    """One operation on the outputs of earlier ones.

    Args:
        name: The layer's dotted name in the network, or what tracing calls an operation without a layer.
        kind: What it does.
        module: The layer; None for the input and for additions.
        inputs: Indices of the nodes whose outputs it takes.
    """

    name: str
    kind: Kind
    module: nn.Module | None
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class ModuleGraph:
    """The nodes of a network, each after those that it takes from.

    Args:
        nodes: The nodes; the first is the input, the last gives the logits.
        readers: How many nodes take from each.
    """

    nodes: tuple[ModuleNode, ...]
    readers: tuple[int, ...]

    @property
    def relus(self) -> list[int]:
        """Indices of the ReLUs, in order."""
        return [index for index, node in enumerate(self.nodes) if node.kind == "relu"]

    @cached_property
    def folds(self) -> dict[int, int]:
        """Maps each batch norm that the affine layer right before it can take in to that layer, by indices."""
        return {
            index: node.inputs[0]
            for index, node in enumerate(self.nodes)
            if node.kind == "norm" and self.nodes[node.inputs[0]].kind == "affine" and self.readers[node.inputs[0]] == 1
        }

    @cached_property
    def folded(self) -> frozenset[int]:
        """The affine layers that `folds` maps to."""
        return frozenset(self.folds.values())


class _Tracer(fx.Tracer):
    """Stops at torch's own layers, those with a parametrised weight included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, nn.Conv2d | nn.Linear | _BatchNorm | GraftedReLU)
        return own or super().is_leaf_module(m, module_qualified_name)


#: The graphs of networks that are still alive, with the identities of the modules that they were made of.
_known: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], ModuleGraph]] = weakref.WeakKeyDictionary()


def graph_of(model: nn.Module) -> ModuleGraph:
    """Returns a network's graph.

    Args:
        model: A network of one input and one output.

    Raises:
        UserError: It has a layer or an operation that this module has no node for; the message names it.
    """
    modules = tuple(map(id, model.modules()))
    entry = _known.get(model)
    if entry is not None and entry[0] == modules:
        return entry[1]
    graph = _trace(model)
    _known[model] = (modules, graph)
    return graph


def has_norms(model: nn.Module) -> bool:
    """Whether a network has batch norm, so that its outputs depend on statistics."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


#: Poolings that are written as functions, and the layers that do the same with the same arguments.
_POOLINGS: dict[Any, type[nn.Module]] = {
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}


def _trace(model: nn.Module) -> ModuleGraph:
    # A lone layer is a leaf and is not traced into; within a Sequential it is.
    root = model if list(model.children()) else nn.Sequential(model)
    try:
        traced = _Tracer().trace(root)
    except Exception as error:
        raise UserError(
            f"The network {type(model).__name__} cannot be bounded: its computation depends on its inputs' values or "
            f"shapes ({str(error).splitlines()[0]}); bounds take {ALLOWED}."
        ) from error
    layers = dict(root.named_modules())
    nodes: list[ModuleNode] = []
    place: dict[fx.Node, int] = {}
    for node in traced.nodes:
        if node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise UserError(f"The network {type(model).__name__} cannot be bounded: it has more than one output.")
            # What comes after the output's node, if anything, is not needed.
            nodes = nodes[: place[node.args[0]] + 1]
            break
        translated = _node(node, layers, place)
        if isinstance(translated, int):
            place[node] = translated
            continue
        nodes.append(translated)
        if _is_mean(node) and not _keeps_places(node):
            nodes.append(ModuleNode(f"{translated.name}_flat", "flatten", nn.Flatten(), (len(nodes) - 1,)))
        place[node] = len(nodes) - 1
    readers = [0] * len(nodes)
    for one in nodes:
        for index in one.inputs:
            readers[index] += 1
    return ModuleGraph(tuple(nodes), tuple(readers))


def _node(node: fx.Node, layers: dict[str, nn.Module], place: dict[fx.Node, int]) -> ModuleNode | int:
    """Returns the node's translation, or the index of the node whose output it passes on."""
    inputs = tuple(place[one] for one in node.all_input_nodes)
    if node.op == "placeholder":
        if place:
            raise UserError("A network of several inputs cannot be bounded; allowed is one input of images.")
        return ModuleNode("input", "input", None, ())
    name, layer = str(node.target), None
    if node.op == "call_module":
        layer = layers[name]
    elif node.target in (F.relu, torch.relu) or (node.op, node.target) == ("call_method", "relu"):
        name, layer = node.name, nn.ReLU()
    elif node.target is torch.flatten or (node.op, node.target) == ("call_method", "flatten"):
        if tuple(node.args[1:]) == (1,) and not node.kwargs:
            name, layer = node.name, nn.Flatten()
    elif _is_mean(node):
        name, layer = node.name, nn.AdaptiveAvgPool2d(1)
    elif node.target in _POOLINGS and not any(
        isinstance(one, fx.Node) for one in (*node.args[1:], *node.kwargs.values())
    ):
        name, layer = node.name, _POOLINGS[node.target](*node.args[1:], **node.kwargs)
    elif node.target in (operator.add, torch.add, operator.iadd) and _two_branches(node):
        return ModuleNode(node.name, "add", None, cast(tuple[int, ...], tuple(place[one] for one in node.args)))  # type: ignore[index]
    if isinstance(layer, nn.Identity):
        return inputs[0]
    kind = _kind(layer)
    if kind is None:
        what = f"{name!r} ({type(layer).__name__})" if layer is not None else f"{node.name!r} ({_called(node.target)})"
        raise UserError(f"Training cannot bound the layer {what}{_reason(layer)}; bounds take {ALLOWED}.")
    return ModuleNode(name, kind, layer, inputs)


def _two_branches(node: fx.Node) -> bool:
    return len(node.args) == 2 and not node.kwargs and all(isinstance(one, fx.Node) for one in node.args)


def _called(target: Any) -> str:
    return str(getattr(target, "__name__", target))


def _is_mean(node: fx.Node) -> bool:
    """Whether a node is the mean over height and width, the last two axes of four."""
    if node.target is not torch.mean and (node.op, node.target) != ("call_method", "mean"):
        return False
    if len(node.args) > 3 or set(node.kwargs) - {"dim", "keepdim"}:
        return False
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    # Negative axes say nothing of how many there are, but a network of images has four here, or the pooling fails.
    if not isinstance(axes, tuple | list) or len(axes) != 2:
        return False
    return {axis % 4 for axis in axes if isinstance(axis, int) and -4 <= axis < 4} == {2, 3}


def _keeps_places(node: fx.Node) -> bool:
    """Whether a mean keeps its axes, with one place each."""
    return bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False))


def _reason(layer: nn.Module | None) -> str:
    """Returns why a layer of a type that bounds take is none that they take."""
    match layer:
        case nn.Conv2d():
            return f", whose padding_mode is {layer.padding_mode!r} and not 'zeros'"
        case nn.AvgPool2d():
            return ", whose windows are not all averages alike (ceil_mode, count_include_pad, divisor_override)"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return ", which has no running statistics or no factors"
        case nn.Flatten():
            return ", which does not flatten all axes but the first"
    return ""


def _kind(layer: nn.Module | None) -> Kind | None:
    match layer:
        case nn.Conv2d() if layer.padding_mode == "zeros":
            return "affine"
        case nn.Linear():
            return "affine"
        case nn.BatchNorm1d() | nn.BatchNorm2d() if layer.track_running_stats and layer.affine:
            return "norm"
        case nn.ReLU() | GraftedReLU():
            return "relu"
        case nn.Flatten() if (layer.start_dim, layer.end_dim) == (1, -1):
            return "flatten"
        case nn.AvgPool2d() if _plain(layer):
            return "pool"
        case nn.AdaptiveAvgPool2d():
            return "pool"
    return None


def _plain(pool: nn.AvgPool2d) -> bool:
    """Whether every window of a pooling has the same weights, so that it is a convolution."""
    return not pool.ceil_mode and pool.divisor_override is None and (pool.count_include_pad or not _any(pool.padding))


def _any(padding: int | tuple[int, int]) -> bool:
    return any(padding) if isinstance(padding, tuple) else bool(padding)


def padding_of(conv: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the rows and columns of zeros before a convolution's input, and those after it.

    >>> padding_of(nn.Conv2d(1, 1, (3, 4), padding="same"))
    ((1, 1), (1, 2))
    """
    if conv.padding == "valid":
        return (0, 0), (0, 0)
    if conv.padding == "same":
        # As torch has it: the odd one goes to the end.
        down, across = (gap * (size - 1) for gap, size in zip(conv.dilation, conv.kernel_size, strict=True))
        before = (down // 2, across // 2)
        return before, (down - before[0], across - before[1])
    down, across = (int(size) for size in conv.padding)
    return (down, across), (down, across)


@dataclass(frozen=True)
class PoolWindows:
    """The windows of an average pooling, (vertical, horizontal) each.

    Args:
        kernel: Their size.
        stride: From one to the next.
        padding: Zeros on either side of the input, which count.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)


def windows_of(pool: nn.Module | None, size: Sequence[int], name: str = "") -> PoolWindows:
    """Returns the windows of an average pooling.

    >>> windows_of(nn.AdaptiveAvgPool2d((2, None)), (8, 3))
    PoolWindows(kernel=(4, 1), stride=(4, 1), padding=(0, 0))

    Args:
        pool: The layer.
        size: Height and width of its input, which decide in an adaptive one.
        name: Its name in the network, for messages.

    Raises:
        UserError: It is an adaptive one, and its outputs don't divide its inputs: windows differ in size and overlap.
    """
    if isinstance(pool, nn.AvgPool2d):
        return PoolWindows(_pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding))
    assert isinstance(pool, nn.AdaptiveAvgPool2d)
    sizes = pool.output_size
    # None: as many as there are inputs.
    outputs = [
        one or whole for one, whole in zip(sizes if isinstance(sizes, tuple) else (sizes, sizes), size, strict=True)
    ]
    if any(whole % one for one, whole in zip(outputs, size, strict=True)):
        raise UserError(
            f"The layer {name!r} (AdaptiveAvgPool2d) is refused: it makes {outputs[0]}x{outputs[1]} of "
            f"{size[0]}x{size[1]} places by windows of different sizes; allowed are numbers that divide those, e.g. 1."
        )
    kernel = (size[0] // outputs[0], size[1] // outputs[1])
    return PoolWindows(kernel, kernel)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


@torch.no_grad()
def refuse_uneven(model: nn.Module, shape: Sequence[int]) -> None:
    """Refuses adaptive poolings whose windows differ in size, which only the images' shape shows.

    Args:
        model: A network with a graph; its mode and statistics stay what they are.
        shape: Of an image: channels, height, width.

    Raises:
        UserError: See `windows_of`.
    """
    graph = graph_of(model)
    if not any(isinstance(node.module, nn.AdaptiveAvgPool2d) for node in graph.nodes):
        return
    for index, size in sizes_of(graph, torch.zeros(1, *shape, device=next(model.parameters()).device)).items():
        windows_of(graph.nodes[index].module, size, graph.nodes[index].name)


@torch.no_grad()
def sizes_of(graph: ModuleGraph, x: Tensor) -> dict[int, torch.Size]:
    """Returns height and width of what each pooling takes, by index.

    Args:
        graph: A network's nodes.
        x: Images [N, C, H, W]; what they show doesn't matter.
    """
    values: list[Tensor] = []
    sizes: dict[int, torch.Size] = {}
    for index, node in enumerate(graph.nodes):
        inputs = [values[one] for one in node.inputs]
        if node.kind == "pool":
            sizes[index] = inputs[0].shape[2:]
        if node.kind == "input":
            values.append(x)
        elif node.kind == "add":
            values.append(inputs[0] + inputs[1])
        elif node.kind == "norm":
            # It changes no shape, and would count what it sees among its statistics.
            values.append(inputs[0])
        else:
            assert node.module is not None
            values.append(node.module(inputs[0]))
    return sizes
