"""Batch norm in training: batch statistics with their gradient, folding into weights, and re-estimation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from prunecert.models.graph import ModuleGraph, ModuleNode, graph_of

#: Images that are worked on at a time, so that what elementwise operations make stays in the processor's cache.
CHUNK = 16

#: Whether passes with batch statistics move the running ones.
_counting: ContextVar[bool] = ContextVar("counting", default=True)


@contextmanager
def uncounted() -> Iterator[None]:
    """Within it, passes in training mode through `models.bounds` leave the running statistics as they are."""
    token = _counting.set(False)
    try:
        yield
    finally:
        _counting.reset(token)


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Returns a network's batch norms."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def chunks(tensor: Tensor) -> tuple[Tensor, ...]:
    """Returns views of a batch of a few images each on the CPU; the whole batch elsewhere."""
    size = CHUNK if tensor.device.type == "cpu" else max(1, len(tensor))
    return torch.split(tensor, size)


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Returns one value a channel, shaped to be combined with a batch [N, C, ...]."""
    return values.view(1, -1, *(1,) * (like.ndim - 2)).to(like.dtype)


class _Normalise(torch.autograd.Function):
    """Batch norm with the batch's statistics; returns these too, and passes their gradient on to the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor, Tensor] | None,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        means, variances = running or (None, None)
        out, mean, rstd = torch.native_batch_norm(x, weight, bias, means, variances, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return out, mean, rstd

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        out_grad, mean_grad, rstd_grad = grads
        weight_grad = bias_grad = None
        if out_grad is None:
            x_grad = torch.zeros_like(x)
        else:
            x_grad, weight_grad, bias_grad = torch.ops.aten.native_batch_norm_backward(
                out_grad, x, weight, None, None, mean, rstd, True, ctx.eps, [True, True, True]
            )
        if mean_grad is not None or rstd_grad is not None:
            # d mean / dx = 1 / count; d rstd / dx = -rstd^3 (x - mean) / count.
            count = x.numel() // x.shape[1]
            factor = torch.zeros_like(mean) if rstd_grad is None else -rstd_grad * rstd**3 / count
            offset = -factor * mean if mean_grad is None else mean_grad / count - factor * mean
            factor, offset = per_channel(factor, x), per_channel(offset, x)
            for part, values in zip(chunks(x_grad), chunks(x), strict=True):
                part.addcmul_(values, factor).add_(offset)
        return x_grad, weight_grad, bias_grad, None, None, None


def normalise(norm: _BatchNorm, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Applies a batch norm in training mode and moves its running statistics, unless within `uncounted`.

    Args:
        norm: The layer.
        x: Its input [N, C, ...].

    Returns:
        The output, and the factor and offset of every channel that it was made with, [C] each; gradients flow through
        all of them.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    running, momentum = None, 0.0
    if _counting.get():
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        momentum = norm.momentum if norm.momentum is not None else 1 / int(norm.num_batches_tracked)
        running = (norm.running_mean, norm.running_var)
    out, mean, rstd = _Normalise.apply(x, norm.weight, norm.bias, running, momentum, norm.eps)  # type: ignore[no-untyped-call]
    scale = norm.weight * rstd
    return out, scale, norm.bias - mean * scale


def frozen_affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Returns the factor and offset of every channel in evaluation, [C] each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def apply_affine(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Applies a convolution or linear layer with other weights."""
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.linear(x, weight, bias)


def weights_of(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Returns weight and bias of an affine layer."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert bias is None or isinstance(bias, Tensor)
    return weight, bias


def folded(weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Returns weight and bias of an affine layer with the factor and offset of a batch norm behind it folded in."""
    scaled = weight * scale.view(-1, *(1,) * (weight.ndim - 1))
    return scaled, shift if bias is None else shift + bias * scale


def frozen_forward(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns the network as it is in evaluation, as a function of images, made for many passes between two updates.

    Batch norm is folded into the weights, and the weights are constants: gradients flow to the images alone. Under
    autocast the weights are converted once. A network that `models.graph` has no nodes for is the caller's business.

    Raises:
        UserError: The network has a layer without a node.
    """
    graph = graph_of(model)
    weights: dict[int, tuple[Tensor, Tensor | None]] = {}
    for index, node in enumerate(graph.nodes):
        if node.kind == "affine":
            assert node.module is not None
            # With gradients: a parametrised weight that is cached in a step is cached as it is first asked for.
            weight, bias = weights_of(node.module)
            weights[index] = weight.detach(), None if bias is None else bias.detach()
    with torch.no_grad():
        for index, place in graph.folds.items():
            norm = graph.nodes[index].module
            assert isinstance(norm, _BatchNorm)
            weights[place] = folded(*weights[place], *frozen_affine(norm))
        device = next(model.parameters()).device.type
        if torch.is_autocast_enabled(device):
            kind = torch.get_autocast_dtype(device)
            weights = {
                index: (weight.to(kind), None if bias is None else bias.to(kind))
                for index, (weight, bias) in weights.items()
            }

    def forward(x: Tensor) -> Tensor:
        values: list[Tensor] = []
        for index, node in enumerate(graph.nodes):
            values.append(_frozen(graph, index, node, values, weights, x))
        return values[-1]

    return forward


def _frozen(
    graph: ModuleGraph,
    index: int,
    node: ModuleNode,
    values: Sequence[Tensor],
    weights: dict[int, tuple[Tensor, Tensor | None]],
    x: Tensor,
) -> Tensor:
    if node.kind == "input":
        return x
    inputs = [values[one] for one in node.inputs]
    if node.kind == "add":
        return inputs[0] + inputs[1]
    module = node.module
    assert module is not None
    if node.kind == "affine":
        return apply_affine(module, inputs[0], *weights[index])
    if node.kind != "norm":
        return module(inputs[0])  # type: ignore[no-any-return]
    if index in graph.folds:
        return inputs[0]
    assert isinstance(module, _BatchNorm)
    scale, shift = (per_channel(one.detach(), inputs[0]) for one in frozen_affine(module))
    return inputs[0] * scale + shift


@torch.no_grad()
def estimate_statistics(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Sets the running statistics of a network's batch norms to the means over batches of images.

    After pruning or averaging weights, the statistics of training are those of another network.

    Args:
        model: The network; its mode is left as it was.
        batches: Batches of images, as the network gets them in evaluation; at least one.
    """
    norms = norms_of(model)
    if not norms:
        return
    momenta, training = [norm.momentum for norm in norms], model.training
    for norm in norms:
        norm.reset_running_stats()
        # None: the plain mean over all batches.
        norm.momentum = None
    model.train()
    try:
        for batch in batches:
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)
