"""Networks with other layers than their architecture has, as plain data that a card carries.

``{"grafted": {"1": [[16, 16, 16], [16, 1, 1]]}}``: layer 1, a ReLU, is a `GraftedReLU` of neurons and slopes of these
shapes. ``{"factorised": {"2": [4, 9], "5": [8]}}``: the weights of layers 2, a convolution, and 5, a linear layer, are
products of factors of these ranks (`models.networks.factorised`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from torch import nn

from prunecert.errors import UserError
from prunecert.models.networks.factorised import factorise
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
        if kind not in ("factorised", "grafted") or not isinstance(places, Mapping):
            raise UserError(
                f"The surgery {kind!r} is refused; allowed are 'grafted', a mapping of layers to shapes, and "
                "'factorised', one of layers to ranks."
            )
        if kind == "factorised":
            factorise(model, places)
            continue
        for name, shapes in places.items():
            layer = dict(model.named_modules()).get(name)
            neurons, slopes = shapes if isinstance(shapes, list | tuple) and len(shapes) == 2 else (None, None)
            shared = _is_shape(neurons) and slopes == [neurons[0], 1, 1]
            if not isinstance(layer, nn.ReLU) or not _is_shape(neurons) or not (shared or slopes == neurons):
                raise UserError(
                    f"The surgery on layer {name!r} with shapes {shapes!r} is refused: it needs a ReLU of the network, "
                    "the shape of its neurons, and that of their slopes, the same or one a channel."
                )
            replace_layer(model, name, GraftedReLU(neurons, slopes))


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    sizes = shape if isinstance(shape, list) and len(shape) in (1, 3) else [0]
    return all(type(size) is int and 0 < size <= _NEURONS for size in sizes) and math.prod(sizes) <= _NEURONS


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
