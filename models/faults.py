"""What went wrong in training, in words: a loss that is no number, a device without memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.bounds import propagate


class OutOfTimeError(Exception):
    """The time that training may take is over; what is done is kept, and the same call goes on from there."""


def first_bad(model: nn.Module, x: Tensor, eps: float) -> str:
    """Returns what is the first to be no finite number in a network, in words.

    Looked at in this order: weights; the layers' outputs for these images; the interval bounds of the layers, where
    the network has such; gradients.

    Args:
        model: The network, with the gradients of the step that failed.
        x: The images of that step.
        eps: Its radius.
    """
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"the weights {name!r}"
    outputs: list[str] = []

    def look(name: str, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                outputs.append(f"the output of layer {name!r} ({type(module).__name__})")

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(look(name, module)) for name, module in leaves]
    try:
        with torch.no_grad():
            model(x)
            if not outputs:
                outputs += _bad_bounds(model, x, eps)
    finally:
        for handle in handles:
            handle.remove()
    if outputs:
        return outputs[0]
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f"the gradient of {name!r}"
    return "the loss itself"


def _bad_bounds(model: nn.Module, x: Tensor, eps: float) -> Iterator[str]:
    try:
        bounds = propagate(model, x, eps)
    except UserError:
        return
    for index, (center, radius) in zip(bounds.graph.relus, bounds.boxes, strict=True):
        if not bool((torch.isfinite(center) & torch.isfinite(radius)).all()):
            yield f"the interval bounds before layer {bounds.graph.nodes[index].name!r} (ReLU)"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def fitting_batch(size: int, attempt: Callable[[int], object], device: torch.device) -> int:
    """Returns the largest of size/2, size/4, ... for which a step fits in memory; 0 if none does.

    Args:
        size: The batch size that did not fit.
        attempt: Does one step on so many images and keeps nothing.
        device: Where.
    """
    while size > 1:
        size //= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return size
    return 0


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turns an out-of-memory error into a user error that says what did not fit.

    Args:
        what: E.g. ``"Measuring the network on cuda"``.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{what} is out of memory ({str(error).splitlines()[0]}); free the device of other programs or use a "
            "larger one: what was finished is kept, and the same command goes on from there."
        ) from error
