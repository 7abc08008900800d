"""Networks with other layers than their architecture has, as plain data that a card carries.

``{"grafted": {"1": [16, 16, 16]}}``: layer 1, a ReLU, is a `GraftedReLU` of that shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from prunecert.errors import UserError
from prunecert.models.networks.grafted import GraftedReLU

#: More neurons than any network's layer here has.
_NEURONS = 2**24


def operate(model: nn.Module, surgery: Mapping[str, Any]) -> None:
    """Puts the other layers into a network, in place; their values are those of new layers.

    Args:
        model: A network of its architecture.
        surgery: What to put where.

    Raises:
        UserError: It is no surgery that is known, or doesn't fit the network.
    """
    for kind, places in surgery.items():
        if kind != "grafted" or not isinstance(places, Mapping):
            raise UserError(f"The surgery {kind!r} is refused; allowed is 'grafted', a mapping of layers to shapes.")
        for name, shape in places.items():
            layer = dict(model.named_modules()).get(name)
            sizes = shape if isinstance(shape, list | tuple) else []
            fits = all(isinstance(size, int) and size > 0 for size in sizes) and 0 < len(sizes) <= 3
            if not isinstance(layer, nn.ReLU) or not fits or math.prod(sizes) > _NEURONS:
                raise UserError(
                    f"The surgery on layer {name!r} with shape {shape!r} is refused: it needs a ReLU of the network, "
                    "and the shape of its neurons."
                )
            replace_layer(model, name, GraftedReLU(sizes))


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts a layer in the place of another one, in place.

    Args:
        model: The network.
        name: Dotted name of the layer that goes.
        layer: What comes.
    """
    parent, _, own = name.rpartition(".")
    holder = model.get_submodule(parent)
    holder._modules[own] = layer.train(model.training)
