"""Networks of the Adversarial Pruning benchmark (Piras et al. 2024, arXiv 2409.01249).

Its checkpoints hold state dictionaries of ResNet-18 and VGG-16, each method's under names of its own but in one order:
of each layer its weight and bias, of each batch norm its factor, offset, running mean and running variance. They are
read by that order, and checked by what each tensor is and by its shape. Masks beside weights are multiplied in. HYDRA's
scores stand for masks by the key's rate, which all layers share; other methods' scores are refused, since only their
code says which weights they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunecert.errors import UserError, did_you_mean
from prunecert.hashing import sha256_file
from prunecert.models import NETWORKS
from prunecert.models.masks import Masks, prunable
from prunecert.models.state_files import read_tensors

#: The benchmark's architectures, and what they are called here.
ARCHITECTURES = {"R18": "resnet-18", "V16": "vgg16-ap"}
#: Pruned shares, in per cent, of its boards: single weights; filters or channels.
RATES = {"US": (90, 95, 99), "S": (50, 75, 90)}
#: Pruners here that are methods of its taxonomy, by the first part of their keys.
PRUNERS = {
    "BCSP": "connectivity",
    "DeadWooding": "deadwooding",
    "FRE": "fre",
    "FlyingBird": "flying-bird",
    "HARP": "harp",
    "HYDRA": "hydra",
    "Li20": "boosting",
    "MAD": "mad",
    "RobustBird": "robust-bird",
    "Sehwag19": "lwm-iterative",
    "Wang20": "inheritance",
}
_KEY = re.compile(
    r"(?P<method>[^_]+)_(?P<author>[^_]+)_(?P<arch>[^_]+)_(?P<data>[^_]+)_(?P<struct>[^_]+)_(?P<rate>\d+)"
)
_MASK = re.compile(r"(?:^|[._])mask$")
_SCORES = re.compile(r"score|popup")


@dataclass(frozen=True)
class ApKey:
    """A network of the benchmark, e.g. ``HARP_Zhao2023Holistic_R18_CIFAR10_US_90``.

    Args:
        method: Method and authors, its key in the taxonomy.
        network: Our name of its architecture.
        structured: Whether filters or channels went.
        rate: Pruned share in per cent.
    """

    method: str
    network: str
    structured: bool
    rate: int

    @property
    def pruner(self) -> str:
        """Our pruner of that method, or the method's name in small letters."""
        name = self.method.partition("_")[0]
        return PRUNERS.get(name, name.lower())

    @property
    def compression(self) -> float:
        """All weights over kept ones."""
        return 100 / (100 - self.rate)


def parse_key(text: str) -> ApKey:
    """Reads a key.

    >>> parse_key("HARP_Zhao2023Holistic_R18_CIFAR10_US_90")
    ApKey(method='HARP_Zhao2023Holistic', network='resnet-18', structured=False, rate=90)

    Raises:
        UserError: It is none, or of another architecture, data set or rate.
    """
    match = _KEY.fullmatch(text)
    if match is None:
        raise UserError(
            f"The key {text!r:.100} is refused; write the benchmark's, e.g. HARP_Zhao2023Holistic_R18_CIFAR10_US_90: "
            "method, authors, architecture, data, structure, rate."
        )
    if match["arch"] not in ARCHITECTURES:
        raise UserError(did_you_mean("architecture", match["arch"], ARCHITECTURES))
    if match["data"] != "CIFAR10":
        raise UserError(f"The key {text!r} is refused: it is of {match['data']}; allowed is CIFAR10.")
    rates = RATES.get(match["struct"])
    if rates is None:
        raise UserError(did_you_mean("structure", match["struct"], RATES))
    if int(match["rate"]) not in rates:
        raise UserError(
            f"The key {text!r} is refused: its rate is {match['rate']}; the benchmark has "
            f"{', '.join(map(str, rates))} for {match['struct']}."
        )
    method = f"{match['method']}_{match['author']}"
    return ApKey(method, ARCHITECTURES[match["arch"]], match["struct"] == "S", int(match["rate"]))


def load_ap(file: Path, network: str, sha256: str, *, scored: float | None = None) -> tuple[nn.Module, Masks]:
    """Reads a checkpoint of the benchmark into a network of ours, in evaluation mode.

    Args:
        file: What ``torch.save`` wrote: a state dictionary, or a mapping with one under ``state_dict`` or ``net``.
        network: ``resnet-18`` or ``vgg16-ap``.
        sha256: What the file's SHA-256 must be.
        scored: Share of each layer's weights that scores beside them prune, those of least magnitude; None: scores are
            refused.

    Returns:
        The network, with masks multiplied in, and which of its weights are not zero.

    Raises:
        UserError: The file is missing, has another hash, holds something else or other shapes, or scores.
    """
    if not file.is_file():
        raise UserError(f"There is no file {str(file)!r}; give a checkpoint of the Adversarial Pruning benchmark.")
    content = sha256_file(file)
    if content != sha256.lower():
        raise UserError(
            f"The file {str(file)!r} is refused: its SHA-256 is {content} and {sha256} was asked for; fetch it again."
        )
    tensors = _masked(_tensors(file) if scored is None else _by_scores(_tensors(file), scored, file), file)
    model = NETWORKS.get(network)()
    places = list(_places(model))
    with torch.no_grad():
        for number, (name, target, what) in enumerate(places):
            where = f"the {what} of {name!r} of {network}, of shape {list(target.shape)}"
            if number == len(tensors):
                raise UserError(f"The file {str(file)!r} is refused: it ends before {where}.")
            key, value = tensors[number]
            if key.rpartition(".")[2] != what or value.shape != target.shape:
                raise UserError(
                    f"The file {str(file)!r} is refused: where {where}, should be it has {key!r} of shape "
                    f"{list(value.shape)}; it must be the benchmark's architecture, with all layers in its order."
                )
            if not bool(torch.isfinite(value).all()):
                raise UserError(f"The file {str(file)!r} is refused: {key!r} holds numbers that are not finite.")
            target.copy_(value)
    if len(tensors) > len(places):
        raise UserError(
            f"The file {str(file)!r} is refused: {tensors[len(places)][0]!r} and what follows have no place in "
            f"{network}."
        )
    return model.eval(), Masks({name: weight.detach() != 0 for name, weight in prunable(model).items()})


def _tensors(file: Path) -> list[tuple[str, Tensor]]:
    """Returns names and values of the file's tensors, without the counts of batches."""
    tensors = read_tensors(
        file,
        ("state_dict", "net"),
        unlike=": load it with its method's code and save that alone",
        without=", alone or as 'state_dict' or 'net'",
    )
    return [(name, value.float()) for name, value in tensors if not name.endswith("num_batches_tracked")]


def _by_scores(tensors: Sequence[tuple[str, Tensor]], share: float, file: Path) -> list[tuple[str, Tensor]]:
    """Returns the tensors without scores: weights of which the share with the smallest |score| is zero.

    HYDRA (Sehwag et al. 2020, section 4) keeps the largest |scores| of each layer, and the same share of every one; of
    ties it is not known which ones go, so that they are refused.
    """
    scores = {key.rpartition(".")[0]: value.abs() for key, value in tensors if _SCORES.search(key.rpartition(".")[2])}
    results = []
    for key, value in tensors:
        layer, _, name = key.rpartition(".")
        if _SCORES.search(name):
            continue
        if name == "weight" and layer in scores:
            score = scores.pop(layer)
            pruned = int(share * value.numel())
            ranked = score.flatten().sort().values
            if score.shape != value.shape or not bool(torch.isfinite(score).all()):
                raise UserError(
                    f"The file {str(file)!r} is refused: the scores of {layer!r} have the shape {list(score.shape)}, "
                    f"and its weights {list(value.shape)}, or aren't finite."
                )
            if 0 < pruned < len(ranked) and bool(ranked[pruned - 1] == ranked[pruned]):
                raise UserError(
                    f"The file {str(file)!r} is refused: scores of {layer!r} are equal where the pruned ones end, so "
                    "that they don't say which weights those are; multiply the masks into the weights."
                )
            value = value * (score > ranked[pruned - 1]) if pruned else value
        results.append((key, value))
    if scores:
        raise UserError(f"The file {str(file)!r} is refused: the scores of {min(scores)!r} have no weights.")
    return results


def units_pruned(model: nn.Module) -> tuple[float, float]:
    """Returns the shares of filters, and of input channels, of a network's convolutions that are zero throughout."""
    weights = [layer.weight.detach() for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    shares = []
    for axis in (0, 1):
        zero = [int((weight.transpose(0, axis).flatten(1) == 0).all(1).sum()) for weight in weights]
        shares.append(sum(zero) / max(1, sum(weight.shape[axis] for weight in weights)))
    return shares[0], shares[1]


def _masked(tensors: Sequence[tuple[str, Tensor]], file: Path) -> list[tuple[str, Tensor]]:
    """Returns the tensors with masks multiplied into the weights before them: ``weight`` or ``weight_orig``."""
    results: list[tuple[str, Tensor]] = []
    for key, value in tensors:
        name = key.rpartition(".")[2]
        if _SCORES.search(name):
            raise UserError(
                f"The file {str(file)!r} is refused: {key!r} are scores, and only their method's code says which "
                "weights they keep; load it with that code, multiply the masks into the weights, and save the state "
                "dictionary."
            )
        if not _MASK.search(name):
            results.append((key.removesuffix("_orig"), value))
            continue
        if not results or results[-1][1].shape != value.shape or not bool(((value == 0) | (value == 1)).all()):
            raise UserError(
                f"The file {str(file)!r} is refused: the mask {key!r} follows no weight of its shape, or holds other "
                "numbers than 0 and 1."
            )
        results[-1] = (results[-1][0], results[-1][1] * value)
    return results


def _places(model: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """Yields the network's tensors in their order: the layer's name, the tensor, and what it is to the layer."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            yield name, layer.weight, "weight"
            if layer.bias is not None:
                yield name, layer.bias, "bias"
        elif isinstance(layer, _BatchNorm):
            for what in ("weight", "bias", "running_mean", "running_var"):
                yield name, getattr(layer, what), what
