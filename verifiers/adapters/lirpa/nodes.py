"""Which node of auto_LiRPA's graph is which step of the network that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from prunecert.verifiers.formats.onnx_torch import OnnxModule
    from prunecert.verifiers.rounding.lirpa import Computed

#: Classes of nodes, by the class of the layer that they were made from.
_CLASSES = {
    "AvgPool2d": ("BoundAveragePool",),
    "Conv2d": ("BoundConv",),
    "Linear": ("BoundLinear",),
    "MaxPool2d": ("BoundMaxPool",),
    "ReLU": ("BoundRelu",),
    "_Combine": ("BoundAdd",),
    "_Reshape": ("BoundFlatten", "BoundReshape"),
}


def matched(bounded: Any, module: OnnxModule) -> dict[str, Any] | None:
    """Returns the node that computes each tensor of a module, by the tensor's name.

    Args:
        bounded: auto_LiRPA's ``BoundedModule`` of the module, after bounds were computed.
        module: The module.

    Returns:
        None where a node is of another kind than its step, or has other inputs: then nothing is known of it.
    """
    nodes: dict[str, Any] = {module.output_name: bounded.final_node()}
    for result, key, arguments in reversed(module.steps):
        node = nodes.get(result)
        if node is None:
            # Nothing uses this tensor.
            continue
        layer = type(module.layers[key]).__name__
        inputs = [item for item in node.inputs if item.perturbed]
        if type(node).__name__ not in _CLASSES.get(layer, ()) or len(inputs) != len(arguments):
            return None
        for name, item in zip(arguments, inputs, strict=True):
            if nodes.setdefault(name, item) is not item:
                return None
    entry = nodes.get(module.input_name)
    unknown = entry is None or entry not in bounded.roots() or any(result not in nodes for result, _, _ in module.steps)
    return None if unknown else nodes


def computed(
    nodes: Mapping[str, Any], module: OnnxModule, *, method: str, shape: tuple[int, int], coefficients: bool
) -> Computed | None:
    """Collects what computing bounds has left in the nodes.

    Args:
        nodes: See `matched`.
        module: The module.
        method: auto_LiRPA's name of the method.
        shape: Images and rows that were bounded.
        coefficients: Whether the nodes' coefficients are those of the rows' bounds.

    Returns:
        None where a ReLU has no bounds.
    """
    import torch

    from prunecert.verifiers.rounding.lirpa import Computed

    bounds: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for result, key, arguments in module.steps:
        if type(module.layers[key]).__name__ == "ReLU":
            before = nodes[arguments[0]]
            if not _bounded(before, shape[0]):
                return None
            bounds[result] = (before.lower.detach(), before.upper.detach())
    reaches = {
        name: torch.maximum(node.lower.abs(), node.upper.abs()).detach()
        for name, node in nodes.items()
        # The output's bounds are those of the rows.
        if name != module.output_name and _bounded(node, shape[0])
    }
    kept: dict[str, torch.Tensor] | None = None
    if method != "IBP" and coefficients:
        kept = {name: node.lA for name, node in nodes.items()}
        if not all(_fits(item, shape) for item in kept.values()):
            kept = None
    return Computed(bounds, reaches, kept, backward=method != "IBP", hidden_backward=method not in ("IBP", "CROWN-IBP"))


def _bounded(node: Any, images: int) -> bool:
    """Whether a node has bounds for each of so many images."""
    return node.lower is not None and node.upper is not None and len(node.lower) == images


def _fits(coefficients: Any, shape: tuple[int, int]) -> bool:
    """Whether these are coefficients of all rows, as a plain tensor: auto_LiRPA has shorthands for some."""
    plain = hasattr(coefficients, "detach") and coefficients.dim() > 2
    return plain and tuple(coefficients.shape[:2]) == (shape[1], shape[0])
