"""Networks, data, objectives, pruners, checkpoints: everything up to the ONNX file.

>>> network = NETWORKS.get("cnn-small")()
>>> masks = PRUNERS.get("lwm")(network, 10.0)
>>> masks.kept, masks.total
(21476, 214760)
>>> "mtl-ibp" in OBJECTIVES
True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prunecert.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

#: In place of a pruner's name: the unpruned control.
DENSE = "dense"
#: Bits of a weight in float32, and of one that is rounded; see `models.bits`.
FULL_BITS, LEAST_BITS, MOST_BITS = 32, 2, 8
#: Network builders: ``build(shape, classes) -> nn.Module`` for inputs [N, *shape] in [0, 1]; those without these
#: parameters are for CIFAR-10.
NETWORKS: Registry[Callable[..., nn.Module]] = Registry(
    "network",
    {
        "cnn-large": "prunecert.models.networks.cnn:cnn_large",
        "cnn-small": "prunecert.models.networks.cnn:cnn_small",
        "cnn-small-bn": "prunecert.models.networks.normalised:cnn_small_bn",
        "cnn5": "prunecert.models.networks.normalised:cnn5",
        "cnn5-standardised": "prunecert.models.networks.normalised:cnn5_standardised",
        "cnn7": "prunecert.models.networks.cnn:cnn7",
        "cnn7-standardised": "prunecert.models.networks.normalised:cnn7_standardised",
        "resnet-18": "prunecert.models.networks.resnet:resnet_18",
        "resnet-2b": "prunecert.models.networks.normalised:resnet_2b",
        "vgg-8": "prunecert.models.networks.normalised:vgg_8",
        "vgg16": "prunecert.models.networks.vgg:vgg16",
        "vgg16-ap": "prunecert.models.networks.vgg:vgg16_ap",
        "wrn-28-4": "prunecert.models.networks.wideresnet:wrn_28_4",
    },
)

#: Training objectives: ``loss(model, x, y, eps, *, progress, ...) -> tensor``.
OBJECTIVES: Registry[Callable[..., Tensor]] = Registry(
    "objective",
    {
        "crown-ibp": "prunecert.models.objectives.crown_ibp:loss",
        "ibp": "prunecert.models.objectives.ibp:loss",
        "mixtrain": "prunecert.models.objectives.mixtrain:loss",
        "mtl-ibp": "prunecert.models.objectives.mtl_ibp:loss",
        "natural": "prunecert.models.objectives.natural:loss",
        "pgd": "prunecert.models.objectives.pgd:loss",
        "sabr": "prunecert.models.objectives.sabr:loss",
        "smoothing": "prunecert.models.objectives.smoothing:loss",
        "smoothing-stability": "prunecert.models.objectives.smoothing_stability:loss",
        "trades": "prunecert.models.objectives.trades:loss",
    },
)

#: Objectives that train with Gaussian noise: their radius is its standard deviation, sigma, and no l-infinity radius.
NOISE_OBJECTIVES = frozenset({"smoothing", "smoothing-stability"})

#: Objectives and add-ons that bound the network, so that all of its layers must have bounds.
BOUNDING = frozenset({"crown-ibp", "fast-ibp", "ibp", "mixtrain", "mtl-ibp", "nrs", "sabr"})

#: What objectives look at that mix an attacked and a bounded loss, for a teacher to look at likewise:
#: ``views(model, x, y, eps, **settings) -> (weight of the bounded one, attacked logits, bounded logits)``.
VIEWS: Registry[Callable[..., tuple[float, Tensor, Tensor]]] = Registry(
    "objective that mixes losses", {"mtl-ibp": "prunecert.models.objectives.mtl_ibp:views"}
)

#: Terms that a recipe may add to any objective's loss, with the same interface.
ADDONS: Registry[Callable[..., Tensor]] = Registry(
    "add-on",
    {
        "fast-ibp": "prunecert.models.addons.fast_ibp:term",
        "nrs": "prunecert.models.addons.nrs:term",
    },
)

#: Pruners that change a network of which no weight goes, so that compression 1 makes sense with them.
UNPRUNED = frozenset({"grafting"})

#: Pruners: ``prune(model, compression, ...) -> Masks``, some ``-> Altered``; see `models.pruners` for what they may ask
#: for. Those that train do so through `models.pruners.contract.Train`: no pruner knows the objective.
PRUNERS: Registry[Callable[..., Any]] = Registry(
    "pruner",
    {
        "anp-vs": "prunecert.models.pruners.anp_vs:prune",
        "anp-vs-plain": "prunecert.models.pruners.variants:anp_vs_plain",
        "ard": "prunecert.models.pruners.ard:prune",
        "boosting": "prunecert.models.pruners.boosting:prune",
        "boosting-random": "prunecert.models.pruners.variants:boosting_random",
        "coevolution": "prunecert.models.pruners.coevolution:prune",
        "connectivity": "prunecert.models.pruners.connectivity:prune",
        "cstar": "prunecert.models.pruners.cstar:prune",
        "deadwooding": "prunecert.models.pruners.deadwooding:prune",
        "deadwooding-plain": "prunecert.models.pruners.variants:deadwooding_plain",
        "drop-grow": "prunecert.models.pruners.drop_grow:prune",
        "filter-l1": "prunecert.models.pruners.filter:prune",
        "flying-bird": "prunecert.models.pruners.flying_bird:prune",
        "flying-bird-plus": "prunecert.models.pruners.flying_bird:prune_plus",
        "fre": "prunecert.models.pruners.fre:prune",
        "grafting": "prunecert.models.pruners.grafting:prune",
        "harp": "prunecert.models.pruners.harp:prune",
        "harp-uniform": "prunecert.models.pruners.variants:harp_uniform",
        "heracles": "prunecert.models.pruners.variants:heracles",
        "hydra": "prunecert.models.pruners.hydra:prune",
        "hydra-uniform": "prunecert.models.pruners.variants:hydra_uniform",
        "inheritance": "prunecert.models.pruners.inheritance:prune",
        "lwm": "prunecert.models.pruners.lwm:prune",
        "lwm-2of4": "prunecert.models.pruners.lwm:prune_two_of_four",
        "lwm-global": "prunecert.models.pruners.lwm:prune_global",
        "lwm-iterative": "prunecert.models.pruners.iterative:prune",
        "lwm-rewind": "prunecert.models.pruners.rewind:prune",
        "lwm-uniform": "prunecert.models.pruners.variants:lwm_uniform",
        "mad": "prunecert.models.pruners.mad:prune",
        "random": "prunecert.models.pruners.random:prune",
        "robust-bird": "prunecert.models.pruners.robust_bird:prune",
        "sparse-vlr": "prunecert.models.pruners.sparse_vlr:prune",
        "structured": "prunecert.models.pruners.structured:prune",
        "structured-filters": "prunecert.models.pruners.structured:prune_filters",
        "structured-neurons": "prunecert.models.pruners.structured:prune_neurons",
    },
)
