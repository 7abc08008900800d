"""Reads networks that CTRAIN trained (PyPI `ctrain`; Kaulen et al. 2026), for use as dense parents.

Its published checkpoints hold a state dictionary of one of its own classes, or of the bounded module around it. Both
list the same tensors in the same order under other names: of each layer its weight and bias, and of each batch norm its
factor, offset, running mean and running variance. They are therefore read by order, and checked by shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models import NETWORKS
from prunecert.models.networks.normalised import CIFAR_MEAN, CIFAR_STD, Standardise
from prunecert.models.state_files import read_tensors

#: Networks of ours that have the layers of CTRAIN's, with theirs.
CLASSES = {"cnn5-standardised": "CNN5_Mao", "cnn7-standardised": "CNN7_Shi"}

_CHECK_IMAGES = 16


def load_ctrain(file: Path, network: str, sha256: str) -> nn.Module:
    """Reads one of CTRAIN's CIFAR-10 checkpoints into a network of ours, in evaluation mode.

    A bias before a batch norm goes into its running mean; standardisation is the network's first layer.

    Args:
        file: What ``torch.save`` wrote: a state dictionary, or CTRAIN's checkpoint around one.
        network: A name in `CLASSES`.
        sha256: What the file's SHA-256 must be, as its source says.

    Raises:
        UserError: The network isn't one of CTRAIN's, the file is missing, has another hash, holds something else or
            other shapes, or the logits of what was read aren't those of its tensors.
    """
    if network not in CLASSES:
        raise UserError(f"CTRAIN has no network {network!r}; allowed are {', '.join(sorted(CLASSES))}.")
    if not file.is_file():
        raise UserError(f"There is no file {str(file)!r}; give a checkpoint that CTRAIN wrote.")
    content = sha256_file(file)
    if content != sha256.lower():
        raise UserError(
            f"The file {str(file)!r} is refused: its SHA-256 is {content} and {sha256} was asked for; fetch it "
            "again, or look up its hash where it is published."
        )
    tensors = _tensors(file)
    model = NETWORKS.get(network)()
    _fill(model, tensors, file, network)
    model.eval()
    images = torch.rand(_CHECK_IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, logits = _logits(model, [tensor for _, tensor in tensors], images), model(images)
    if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-4 * max(1.0, float(expected.abs().max()))):
        raise UserError(
            f"The file {str(file)!r} is refused: the logits of {network} differ from those of its tensors by up to "
            f"{float((logits - expected).abs().max()):.3g}; a running variance close to zero does so."
        )
    return model


def _tensors(file: Path) -> list[tuple[str, Tensor]]:
    """Returns names and values of the file's tensors, without the counts of batches."""
    keys, without = ("model_state_dict", "state_dict"), "; CTRAIN's checkpoints do"
    return [(name, value.float()) for name, value in read_tensors(file, keys, unlike="", without=without) if value.ndim]


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, tuple[int, ...]]]:
    """Yields CTRAIN's tensors in their order: the layer's name, the layer, what it is to it, and the shape."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            yield name, layer, "weight", tuple(layer.weight.shape)
            yield name, layer, "bias", (len(layer.weight),)
        elif isinstance(layer, _BatchNorm) and not isinstance(layer, Standardise):
            for what in ("weight", "bias", "running_mean", "running_var"):
                yield name, layer, what, (layer.num_features,)


@torch.no_grad()
def _fill(model: nn.Module, tensors: list[tuple[str, Tensor]], file: Path, network: str) -> None:
    places = list(_places(model))
    # The bias of the layer before, which its batch norm takes away from the mean.
    waiting: Tensor | None = None
    for number, (name, layer, what, shape) in enumerate(places):
        where = f"layer {name!r} ({type(layer).__name__}) of {network}"
        if number == len(tensors):
            raise UserError(f"The file {str(file)!r} is refused: it ends before the {what} of {where}.")
        key, value = tensors[number]
        if tuple(value.shape) != shape:
            raise UserError(
                f"The file {str(file)!r} is refused: the {what} of {where} has the shape {list(shape)}, and the file's "
                f"{key!r} has {list(value.shape)}; it must be a {CLASSES[network]} of width 64 for CIFAR-10."
            )
        if what == "bias" and getattr(layer, "bias", None) is None:
            waiting = value
            continue
        if what == "running_mean" and waiting is not None:
            value, waiting = value - waiting, None
        target = getattr(layer, what)
        assert isinstance(target, Tensor)
        target.copy_(value)
    if len(tensors) > len(places):
        raise UserError(
            f"The file {str(file)!r} is refused: {tensors[len(places)][0]!r} and what follows have no place in "
            f"{network}."
        )


def _logits(model: nn.Module, tensors: list[Tensor], images: Tensor) -> Tensor:
    """Returns the logits as CTRAIN computes them, from the file's own tensors."""
    rest = iter(tensors)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CIFAR_MEAN, CIFAR_STD))
    x = (images - mean) / std
    for layer in model.modules():
        match layer:
            case nn.Conv2d():
                x = F.conv2d(x, next(rest), next(rest), layer.stride, layer.padding)
            case nn.Linear():
                x = F.linear(x, next(rest), next(rest))
            case Standardise():
                continue
            case _BatchNorm():
                weight, bias, running_mean, running_var = (next(rest) for _ in range(4))
                x = F.batch_norm(x, running_mean, running_var, weight, bias, eps=layer.eps)
            case nn.ReLU():
                x = x.relu()
            case nn.Flatten():
                x = x.flatten(1)
    return x
