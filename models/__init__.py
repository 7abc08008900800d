"""Networks, data, objectives, pruners, checkpoints: everything up to the ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prunecert.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.masks import Masks

#: Network builders: ``build() -> nn.Module`` for inputs [N, 3, 32, 32] in [0, 1] and 10 logits.
NETWORKS: Registry[Callable[[], nn.Module]] = Registry(
    "network",
    {
        "cnn-large": "models.networks.cnn:cnn_large",
        "cnn-small": "models.networks.cnn:cnn_small",
        "cnn5": "models.networks.normalised:cnn5",
        "cnn5-standardised": "models.networks.normalised:cnn5_standardised",
        "cnn7": "models.networks.cnn:cnn7",
        "cnn7-standardised": "models.networks.normalised:cnn7_standardised",
        "resnet-2b": "models.networks.normalised:resnet_2b",
        "vgg-8": "models.networks.normalised:vgg_8",
        "vgg16": "models.networks.vgg:vgg16",
        "wrn-28-4": "models.networks.wideresnet:wrn_28_4",
    },
)

#: Training objectives: ``loss(model, x, y, eps, *, progress, ...) -> tensor``.
OBJECTIVES: Registry[Callable[..., Tensor]] = Registry(
    "objective",
    {
        "crown-ibp": "models.objectives.crown_ibp:loss",
        "ibp": "models.objectives.ibp:loss",
        "mixtrain": "models.objectives.mixtrain:loss",
        "mtl-ibp": "models.objectives.mtl_ibp:loss",
        "natural": "models.objectives.natural:loss",
        "pgd": "models.objectives.pgd:loss",
        "sabr": "models.objectives.sabr:loss",
        "smoothing": "models.objectives.smoothing:loss",
        "smoothing-stability": "models.objectives.smoothing_stability:loss",
        "trades": "models.objectives.trades:loss",
    },
)

#: Objectives that train with Gaussian noise: their radius is its standard deviation, sigma, and no l-infinity radius.
NOISE_OBJECTIVES = frozenset({"smoothing", "smoothing-stability"})

#: Objectives and add-ons that bound the network, so that all of its layers must have bounds.
BOUNDING = frozenset({"crown-ibp", "fast-ibp", "ibp", "mixtrain", "mtl-ibp", "nrs", "sabr"})

#: Terms that a recipe may add to any objective's loss, with the same interface.
ADDONS: Registry[Callable[..., Tensor]] = Registry(
    "add-on",
    {
        "fast-ibp": "models.addons.fast_ibp:term",
        "nrs": "models.addons.nrs:term",
    },
)

#: Pruners: ``prune(model, compression, ...) -> Masks``; see `models.pruners` for what they may ask for. Those that
#: train do so through a closure: no pruner knows the objective.
PRUNERS: Registry[Callable[..., Masks]] = Registry(
    "pruner",
    {
        "drop-grow": "models.pruners.drop_grow:prune",
        "filter-l1": "models.pruners.filter:prune",
        "hydra": "models.pruners.hydra:prune",
        "lwm": "models.pruners.lwm:prune",
        "lwm-global": "models.pruners.lwm:prune_global",
        "lwm-iterative": "models.pruners.iterative:prune",
        "lwm-rewind": "models.pruners.rewind:prune",
        "random": "models.pruners.random:prune",
        "structured": "models.pruners.structured:prune",
        "structured-filters": "models.pruners.structured:prune_filters",
        "structured-neurons": "models.pruners.structured:prune_neurons",
    },
)
