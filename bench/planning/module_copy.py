"""A copy of somebody's module that is fit for export: masks and parametrisations made permanent, wrappers taken off."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize, prune

from prunecert.errors import UserError

#: Layers that compute something else in training mode.
_MODAL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.modules.instancenorm._InstanceNorm)


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """What synchronised batch norm computes in evaluation mode, of any number of axes."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  # torch's name
        """Takes any."""


@dataclass(frozen=True)
class PlainCopy:
    """A module as it is to be exported.

    Args:
        module: The copy, on the CPU.
        permanent: Parameters whose pruning or parametrisation was made permanent, by their dotted names.
    """

    module: nn.Module
    permanent: tuple[str, ...]


def plain_copy(module: nn.Module) -> PlainCopy:
    """Returns a copy of a module in evaluation mode, without what training tools have hung into it.

    What is left by `torch.nn.utils.prune` and `torch.nn.utils.parametrize` is made permanent in the copy; the module
    itself is not changed.

    Args:
        module: A module in evaluation mode; one that is wrapped by `torch.compile` or `DataParallel` is unwrapped.

    Raises:
        UserError: It is no module, is in training mode, can't be copied, or isn't of float32.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"An object of the type {type(module).__name__} is refused as a network; {_remedy(module)}.")
    module = unwrapped(module)
    _check_mode(module)
    duplicate = _duplicate(module)
    permanent = [*_bake_pruning(duplicate), *_bake_parametrisations(duplicate)]
    for part in duplicate.modules():
        if isinstance(part, nn.SyncBatchNorm):
            part.__class__ = _BatchNorm  # type: ignore[assignment]  # its like: both are _BatchNorm
    lazy = [name for name, value in duplicate.named_parameters() if isinstance(value, UninitializedParameter)]
    if lazy:
        raise UserError(
            f"The module is refused: {lazy[0]!r} has no weights yet; call the module once on an input, and train it."
        )
    if any(value.is_meta for value in (*duplicate.parameters(), *duplicate.buffers())):
        raise UserError("The module is refused: it is on torch's device 'meta', without weights; load them first.")
    duplicate.cpu()
    for name, value in [*duplicate.named_parameters(), *duplicate.named_buffers()]:
        if value.is_floating_point() and value.dtype != torch.float32:
            raise UserError(
                f"The module is refused: {name!r} is of {str(value.dtype).removeprefix('torch.')}; verdicts are about "
                "float32: call module.float() first."
            )
    return PlainCopy(duplicate, tuple(permanent))


def _remedy(thing: object) -> str:
    """Returns what to do with something that is no module, a clause."""
    if isinstance(thing, type) and issubclass(thing, nn.Module):
        return f"pass an instance: {thing.__name__}(…).eval()"
    if isinstance(thing, Mapping) and any(isinstance(value, Tensor) for value in thing.values()):
        return "load the weights into a module, module.load_state_dict(…), and pass that"
    if isinstance(thing, torch.export.ExportedProgram):
        return "pass program.module()"
    return "pass a torch.nn.Module, the path of an .onnx file, or the name of a shipped checkpoint"


def unwrapped(module: nn.Module) -> nn.Module:
    """Returns the module within `torch.compile`'s and `DataParallel`'s wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _check_mode(module: nn.Module) -> None:
    own_eval = getattr(module.eval, "__func__", None) is not nn.Module.eval
    if module.training and isinstance(module, torch.fx.GraphModule) and own_eval:
        raise UserError(
            "The module is refused: it is one that torch.export has made, which knows no evaluation mode; pass the "
            "module that it was made of."
        )
    for name, part in module.named_modules():
        if part.training and (not name or isinstance(part, _MODAL)):
            where = f"its layer {name!r} ({type(part).__name__})" if name else "it"
            raise UserError(f"The module is refused because {where} is in training mode; call module.eval() first.")


def _duplicate(module: nn.Module) -> nn.Module:
    # Weights that a hook computes from others are no leaves of the graph, which deepcopy refuses: it is given copies.
    memo: dict[int, object] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        # Whatever a foreign module holds may refuse in its own way.
        raise UserError(
            f"The module can't be copied ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
            "pass a module that copy.deepcopy takes, or export it yourself and pass the .onnx file."
        ) from error


def _bake_pruning(module: nn.Module) -> Iterator[str]:
    """Makes what `torch.nn.utils.prune` has left permanent, and yields the parameters' names."""
    for name, part in list(module.named_modules()):
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(part, hook._tensor_name)  # type: ignore[no-untyped-call]
                yield f"{name}.{hook._tensor_name}" if name else hook._tensor_name


def _bake_parametrisations(module: nn.Module) -> Iterator[str]:
    """Makes parametrised weights plain ones, and yields their names.

    `parametrize.remove_parametrizations` would change the layer's class, which is the original's, too.
    """
    for name, part in list(module.named_modules()):
        if not parametrize.is_parametrized(part):
            continue
        parametrisations = part.parametrizations
        assert isinstance(parametrisations, nn.ModuleDict)
        with torch.no_grad():
            values = {tensor: getattr(part, tensor).detach().clone() for tensor in parametrisations}
        del part._modules["parametrizations"]
        part.__class__ = type(part).__bases__[0]
        for tensor, value in values.items():
            part.register_parameter(tensor, nn.Parameter(value))
            yield f"{name}.{tensor}" if name else tensor
