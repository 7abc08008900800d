"""Networks of the registry, built for the images of a data set."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from prunecert.errors import UserError
from prunecert.models import NETWORKS

#: CIFAR-10's, which all networks take.
SHAPE, CLASSES = (3, 32, 32), 10


def build_network(name: str, shape: Sequence[int] = SHAPE, classes: int = CLASSES) -> nn.Module:
    """Returns a network with new weights.

    Args:
        name: In `NETWORKS`.
        shape: Channels, height and width of an image.
        classes: How many outputs.

    >>> build_network("cnn-small", (1, 8, 8), 10)[0]
    Conv2d(1, 16, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))

    Raises:
        UserError: The name is unknown, or the network is for other images only.
    """
    builder = NETWORKS.get(name)
    if not takes_shapes(name):
        if (tuple(shape), classes) != (SHAPE, CLASSES):
            raise UserError(
                f"Network {name!r} is for images of shape {list(SHAPE)} and {CLASSES} classes, and this data has "
                f"{list(shape)} and {classes}; allowed are {', '.join(one for one in NETWORKS if takes_shapes(one))}, "
                "or a builder of your own that takes shape and classes."
            )
        return builder()
    with warnings.catch_warnings():
        # torch warns of layers without weights, which are refused below.
        warnings.simplefilter("ignore")
        network = builder(shape=tuple(shape), classes=classes)
    if any(parameter.numel() == 0 for parameter in network.parameters()):
        raise UserError(f"Network {name!r} is refused for images of shape {list(shape)}: they are too small for it.")
    return network


def takes_shapes(name: str) -> bool:
    """Whether a network is built for images of any shape and any number of classes."""
    return {"shape", "classes"} <= set(inspect.signature(NETWORKS.get(name)).parameters)


def build_for(name: str, card: Mapping[str, Any]) -> nn.Module:
    """Returns a network for the data that a card names; nothing stands for CIFAR-10.

    Raises:
        UserError: See `build_network`; or the card says no shape.
    """
    if not card:
        return build_network(name)
    shape, classes = card.get("shape"), card.get("classes")
    sizes = shape if isinstance(shape, list | tuple) else []
    fits = len(sizes) == 3 and all(isinstance(size, int) and 0 < size <= 4096 for size in sizes)
    if not fits or not isinstance(classes, int) or not 2 <= classes <= 100_000:
        raise UserError(f"A card's data {dict(card)!r} is refused; it must have a shape of three sizes and classes.")
    return build_network(name, sizes, classes)
