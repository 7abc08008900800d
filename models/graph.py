"""A network as a short list of nodes, for those who walk over it: bounds for training, and the export.

The nodes come from symbolic tracing (torch.fx) down to the layers that torch brings along, so that sequential networks
and residual ones are walked over alike.
"""

from __future__ import annotations

import operator
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from prunecert.errors import UserError
from prunecert.models.networks.grafted import GraftedReLU

Kind = Literal["input", "affine", "norm", "relu", "flatten", "pool", "add"]

#: What a user may put instead of a layer that has no bounds.
ALLOWED = (
    "Conv2d, Linear, ReLU, BatchNorm, AvgPool2d, Flatten and sums of two branches, ending in a Linear layer. A "
    "stride-2 convolution or an AvgPool2d may stand for a MaxPool2d; otherwise train with natural, pgd or trades"
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
        else:
            place[node] = len(nodes)
            nodes.append(translated)
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
    elif node.target in (operator.add, torch.add, operator.iadd) and _two_branches(node):
        return ModuleNode(node.name, "add", None, cast(tuple[int, ...], tuple(place[one] for one in node.args)))  # type: ignore[index]
    if isinstance(layer, nn.Identity):
        return inputs[0]
    kind = _kind(layer)
    if kind is None:
        what = f"{name!r} ({type(layer).__name__})" if layer is not None else f"{node.name!r} ({_called(node.target)})"
        raise UserError(f"Training cannot bound the layer {what}; bounds take {ALLOWED}.")
    return ModuleNode(name, kind, layer, inputs)


def _two_branches(node: fx.Node) -> bool:
    return len(node.args) == 2 and not node.kwargs and all(isinstance(one, fx.Node) for one in node.args)


def _called(target: Any) -> str:
    return str(getattr(target, "__name__", target))


def _kind(layer: nn.Module | None) -> Kind | None:
    match layer:
        case nn.Conv2d() if not isinstance(layer.padding, str) and layer.padding_mode == "zeros":
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
    return None


def _plain(pool: nn.AvgPool2d) -> bool:
    """Whether every window of a pooling has the same weights, so that it is a convolution."""
    return not pool.ceil_mode and pool.divisor_override is None and (pool.count_include_pad or not _any(pool.padding))


def _any(padding: int | tuple[int, int]) -> bool:
    return any(padding) if isinstance(padding, tuple) else bool(padding)
