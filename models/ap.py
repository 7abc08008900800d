"""Networks and taxonomy of the Adversarial Pruning benchmark (Piras et al. 2024, arXiv 2409.01249).

Its checkpoints hold state dictionaries of ResNet-18 and VGG-16, each method's under names of its own but in one order:
of each layer its weight and bias, of each batch norm its factor, offset, running mean and running variance. They are
read by that order, and checked by what each tensor is and by its shape. Masks beside weights are multiplied in; a file
that keeps scores in place of masks is refused, since only its method's code says which weights they stand for.

Its taxonomy is a JSON list of methods, each with the keys of one of three pipelines: pruning after training (A), before
it (B), during it (D).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunecert.errors import UserError, did_you_mean
from prunecert.hashing import sha256_file
from prunecert.jsontext import read_json
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
_MOST_BYTES = 1 << 22
#: Keys of a method in the benchmark's file, by our field; its colons and blanks are as they stand there.
_SHARED = {
    "link": "link_to_paper",
    "key": "ap_key",
    "structure": "Pruning structure",
    "locality": "Pruning locality",
    "criterion": "Pruning criterion",
}
_PIPELINE = "Type of Pipeline:"
_PIPELINES = {
    "A": (
        "A-Methods Pruning After Training",
        {
            "pretraining": "A: Pretraining ",
            "finetuning": "A: Finetuning",
            "schedule": "A: OneShot (1S) vs Iterative (IT)",
        },
    ),
    "B": (
        "B-Methods Pruning Before Training",
        {
            "pretraining": "B: Pruning step ",
            "finetuning": "B: Training step ",
            "schedule": "B: OneShot (1S) vs Iterative (IT)",
        },
    ),
    "D": ("D-Methods Pruning During Training", {"finetuning": "D: Training step "}),
}


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


def load_ap(file: Path, network: str, sha256: str) -> tuple[nn.Module, Masks]:
    """Reads a checkpoint of the benchmark into a network of ours, in evaluation mode.

    Args:
        file: What ``torch.save`` wrote: a state dictionary, or a mapping with one under ``state_dict`` or ``net``.
        network: ``resnet-18`` or ``vgg16-ap``.
        sha256: What the file's SHA-256 must be.

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
    tensors = _masked(_tensors(file), file)
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


def _masked(tensors: Sequence[tuple[str, Tensor]], file: Path) -> list[tuple[str, Tensor]]:
    """Returns the tensors with masks multiplied into the weights before them: ``weight`` or ``weight_orig``."""
    results: list[tuple[str, Tensor]] = []
    for key, value in tensors:
        name = key.rpartition(".")[2]
        if re.search(r"score|popup", name):
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


@dataclass(frozen=True)
class ApMethod:
    """A method of the benchmark's taxonomy, in its words.

    Args:
        key: Method and authors, e.g. ``HARP_Zhao2023Holistic``.
        link: To the paper.
        pipeline: ``A``, ``B`` or ``D``: pruned after, before or during training.
        pretraining: Training before pruning; for B the step that finds the mask; empty for D.
        finetuning: Training after pruning; for B and D the training.
        schedule: ``1S`` or ``IT``; empty for D.
        structure: What goes: ``Unstructured (US)``, ``Structured (S) filters``, or both.
        locality: Over what weights compete.
        criterion: By what they are judged.
    """

    key: str
    link: str
    pipeline: str
    pretraining: str
    finetuning: str
    schedule: str
    structure: str
    locality: str
    criterion: str


def read_taxonomy(path: Path) -> list[ApMethod]:
    """Reads the benchmark's taxonomy.

    Raises:
        UserError: It is no JSON list of methods, or one lacks a key of its pipeline or has another one.
    """
    try:
        data = read_json(path, _MOST_BYTES)
    except (UserError, ValueError) as error:
        raise UserError(
            f"The taxonomy {str(path)!r} cannot be read ({error}); it must be the benchmark's JSON."
        ) from error
    if not isinstance(data, list):
        raise UserError(f"The taxonomy {str(path)!r} is refused: it must be a list of methods.")
    return [_method(item, f"{path.name}, method {number}") for number, item in enumerate(data, 1)]


def _method(item: Any, where: str) -> ApMethod:
    kinds = {words: (letter, keys) for letter, (words, keys) in _PIPELINES.items()}
    kind = item.get(_PIPELINE) if isinstance(item, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{where} is refused: {_PIPELINE!r} must be one of: {'; '.join(kinds)}.")
    letter, own = kinds[kind]
    keys = {**_SHARED, **own}
    if item.keys() != {_PIPELINE, *keys.values()} or not all(isinstance(value, str) for value in item.values()):
        different = sorted(item.keys() ^ {_PIPELINE, *keys.values()})
        raise UserError(
            f"{where} is refused: of a pipeline {letter} it must have texts by the keys of that; see {different}."
        )
    fields = dict.fromkeys(("pretraining", "schedule"), "")
    return ApMethod(pipeline=letter, **{**fields, **{field: item[key] for field, key in keys.items()}})


def taxonomy_json(methods: Sequence[ApMethod]) -> list[dict[str, str]]:
    """Returns methods as the benchmark's file has them; `read_taxonomy` reads them back."""
    items = []
    for method in methods:
        words, own = _PIPELINES[method.pipeline]
        fields = {key: str(getattr(method, field)) for field, key in own.items()}
        shared = {key: str(getattr(method, field)) for field, key in _SHARED.items()}
        head = {key: shared.pop(key) for key in (_SHARED["link"], _SHARED["key"])}
        items.append({**head, _PIPELINE: words, **fields, **shared})
    return items
