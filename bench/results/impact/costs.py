"""What networks cost to train and to evaluate, from their cards or entries; no network is loaded.

A cell that begins with a pre-trained network shares that with others, and its card has its own seconds alone. To be
compared with one that is trained from scratch it is charged the pre-training in full, as if it had been alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunecert.bench.results.impact.images import ImageOutcomes
from prunecert.bench.results.protocol_types import CompactionRecord, LayerSizes
from prunecert.models import DENSE, NETWORKS
from prunecert.models.pruners.taxonomy import Training, taxonomy_of

_MOST_EPOCHS = 1_000_000
#: What a card must hold to tell of costs; those of other people's networks are cards of another kind.
_NEEDED = frozenset({"network", "recipe", "train_seconds", "data_fingerprint", "sparsity_by_layer"})


@dataclass(frozen=True)
class Costs:
    """What a network takes.

    Args:
        train_seconds: Of its training, the shared pre-training in full; None where that isn't known.
        macs: Multiply-adds with a weight that is not zero, of an image; None where they can't be counted.
        estimated: Whether the pre-training's part is estimated, from the dense control's seconds an epoch.
    """

    train_seconds: float | None
    macs: int | None
    estimated: bool = False


@dataclass(frozen=True)
class Trained:
    """How long a network was trained.

    Args:
        kind: What it shares its pre-training by: network, objective, radius, seed, data, epochs of pre-training.
        pruner: Its pruner.
        seconds: Of its own stages.
        epochs: How many these are.
        shared_epochs: Epochs of the pre-training that it began with; 0 where it began at the initial weights.
        shared_seconds: What those took, where its history says so.
        parent: The finished network that it began with instead, by its cell's name; empty where there is none.
    """

    kind: tuple[str, ...]
    pruner: str
    seconds: float
    epochs: int
    shared_epochs: int
    shared_seconds: float | None = None
    parent: str = ""


def trained(cell: Mapping[str, Any], training: Mapping[str, Any], shared_seconds: float | None = None) -> Trained:
    """Returns how long a network was trained.

    Args:
        cell: ``network``, ``objective``, ``eps``, ``pruner`` and ``seed`` of it.
        training: ``recipe``, ``train_seconds`` and ``data_fingerprint`` of its card, or of its entry's training.
        shared_seconds: See `Trained`.
    """
    recipe = training["recipe"]
    before, learning, tuning = (_epochs(recipe, key) for key in ("pretrain_epochs", "prune_epochs", "finetune_epochs"))
    place = taxonomy_of(str(cell["pruner"]))
    scratch = place is not None and place.pre_training is Training.NONE
    shared = 0 if scratch or recipe.get("parent") else before
    kind = *(str(cell[key]) for key in ("network", "objective", "eps", "seed")), str(training["data_fingerprint"])
    return Trained(
        (*kind, str(before), str(recipe.get("holdout", True))),
        str(cell["pruner"]),
        float(training["train_seconds"]),
        learning + tuning + (before if scratch else 0),
        shared,
        shared_seconds,
        "" if scratch else str(recipe.get("parent") or ""),
    )


def _epochs(recipe: Mapping[str, Any], key: str) -> int:
    """Returns a number of epochs; 0 for what is none, since anybody may have sent the recipe."""
    value = recipe.get(key)
    return value if type(value) is int and 0 <= value <= _MOST_EPOCHS else 0


def train_seconds(networks: Mapping[str, Trained]) -> dict[str, tuple[float, bool]]:
    """Returns each network's seconds with the pre-training in full, and whether that is an estimate.

    Those of which nothing tells how long their pre-training, or their parent's training, took are missing.

    Args:
        networks: By name.
    """
    measured: dict[tuple[str, ...], float] = {}
    rates: dict[tuple[str, ...], float] = {}
    for network in networks.values():
        if network.shared_seconds is not None:
            measured[network.kind] = network.shared_seconds
        if network.pruner == DENSE and network.epochs:
            rates[network.kind] = network.seconds / network.epochs
    totals: dict[str, tuple[float, bool]] = {}
    for name, network in _parents_first(networks):
        if network.parent:
            if network.parent in totals:
                seconds, estimated = totals[network.parent]
                totals[name] = network.seconds + seconds, estimated
        elif not network.shared_epochs:
            totals[name] = network.seconds, False
        elif network.kind in measured:
            totals[name] = network.seconds + measured[network.kind], False
        elif network.kind in rates:
            totals[name] = network.seconds + network.shared_epochs * rates[network.kind], True
    return totals


def _parents_first(networks: Mapping[str, Trained]) -> Iterator[tuple[str, Trained]]:
    """Yields networks, each behind its parent, which may have one itself; without its parent none is yielded."""
    waiting, passed = dict(networks), {""}
    while ready := [name for name, network in waiting.items() if network.parent in passed]:
        for name in ready:
            yield name, waiting.pop(name)
        passed.update(ready)


def total_epochs(networks: Mapping[str, Trained]) -> dict[str, int]:
    """Returns each network's epochs, pre-training and its parent's training included.

    >>> kind = ("cnn5", "ibp", "2/255", "0", "f", "60", "True")
    >>> parent, child = Trained(kind, "dense", 1.0, 10, 60), Trained(kind, "lwm", 1.0, 20, 0, parent="dense_s0")
    >>> total_epochs({"dense_s0": parent, "lwm_s0": child, "lost": Trained(kind, "lwm", 1.0, 20, 0, parent="gone")})
    {'dense_s0': 70, 'lwm_s0': 90}

    Those whose parent isn't there are missing.

    Args:
        networks: By name.
    """
    totals: dict[str, int] = {}
    for name, network in _parents_first(networks):
        totals[name] = network.epochs + network.shared_epochs + totals.get(network.parent, 0)
    return totals


def sparse_macs(network: str, layers: Sequence[tuple[Sequence[int], float]], data: Mapping[str, Any]) -> int | None:
    """Returns the multiply-adds of an image with weights that are not zero.

    >>> round(sparse_macs("cnn-small", [((16, 3, 4, 4), 768), ((32, 16, 4, 4), 8192), ((100, 2048), 204800),
    ...                                 ((10, 100), 1000)], {}))
    926696

    Args:
        network: Its architecture.
        layers: Shape and kept weights of each layer, in the network's order.
        data: What a card says of the data; nothing for CIFAR-10.

    Returns:
        None where the layers are not those of the architecture, or the network is none of ours.
    """
    if not _ours(network):
        return None
    times = list(layer_uses(network, tuple(data.get("shape", ())), int(data.get("classes", 0))).values())
    if [shape for shape, _ in times] != [tuple(shape) for shape, _ in layers]:
        return None
    return round(sum(count * kept for (_, count), (_, kept) in zip(times, layers, strict=True)))


def _ours(network: str) -> bool:
    """Whether a network is registered: of anybody's ``module:attribute``, which may come with an entry, none is run."""
    return network in set(NETWORKS)


@functools.cache
def layer_uses(network: str, shape: tuple[int, ...], classes: int) -> Mapping[str, tuple[tuple[int, ...], int]]:
    """Returns, by parameter name, each layer's shape and how often its weights are used for an image."""
    from prunecert.models.building import SHAPE, build_for
    from prunecert.models.masks import prunable
    from prunecert.models.pruners.both_budgets import uses

    model = build_for(network, {"shape": list(shape), "classes": classes} if shape else {})
    counts = uses(model, shape or SHAPE)
    return {name: (tuple(weight.shape), counts[name]) for name, weight in prunable(model).items()}


def counted_macs(outcomes: Iterable[ImageOutcomes]) -> dict[str, int]:
    """Returns multiply-adds that were counted in files, by the cell's name.

    A card tells of masks, and a place that is kept may hold a weight of zero: what has grown and was never needed, or
    what belongs to a dead unit. Files have a fifth less of them where masks are found while the network trains.
    """
    return {part.cell.name: part.cell.multiply_adds for part in outcomes if part.cell.multiply_adds is not None}


def macs_of_card(card: Mapping[str, Any]) -> int | None:
    """Returns the multiply-adds of a card's network by its masks; None where its layers are not the architecture's.

    Args:
        card: Its ``network``, ``sparsity_by_layer``, ``surgery`` and ``data``.
    """
    data: Mapping[str, Any] = card.get("data") or {}
    if not _ours(card["network"]) or "factorised" in (card.get("surgery") or {}):
        return None
    layers = layer_uses(card["network"], tuple(data.get("shape", ())), int(data.get("classes", 0)))
    zeros: Mapping[str, float] = card["sparsity_by_layer"]
    if set(layers) != set(zeros):
        return None
    return round(sum(count * math.prod(shape) * (1 - zeros[name]) for name, (shape, count) in layers.items()))


def units_kept(record: CompactionRecord) -> tuple[float | None, float | None]:
    """Returns the shares of filters, and of neurons of hidden linear layers, that are left in a compacted network.

    Args:
        record: What compaction did; the last layer's outputs are the classes, which don't count.

    Returns:
        None for what there is none of.
    """
    hidden = record.layers[:-1]
    return _left([one for one in hidden if one.operator == "Conv"]), _left(
        [one for one in hidden if one.operator != "Conv"]
    )


def _left(layers: Sequence[LayerSizes]) -> float | None:
    there = sum(layer.before[0] for layer in layers)
    return sum(layer.after[0] for layer in layers) / there if there else None


def costs_of_cards(
    cards: Mapping[str, Mapping[str, Any]],
    *,
    shared_seconds: Mapping[str, float] | None = None,
    macs: Mapping[str, int] | None = None,
) -> dict[str, Costs]:
    """Returns what networks cost, by name.

    Args:
        cards: By name; those that aren't of a network that was trained here are passed over.
        shared_seconds: What the pre-training took, of those whose history says so.
        macs: Multiply-adds that were counted in a file; others follow from the card.
    """
    cards = {name: card for name, card in cards.items() if set(card) >= _NEEDED}
    seconds = train_seconds(
        {name: trained(card, card, (shared_seconds or {}).get(name)) for name, card in cards.items()}
    )
    costs = {}
    for name, card in cards.items():
        total, estimated = seconds.get(name, (None, False))
        counted = (macs or {}).get(name)
        costs[name] = Costs(total, macs_of_card(card) if counted is None else counted, estimated)
    return costs
