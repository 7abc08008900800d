"""Units that go as a whole: filters of convolutions, neurons of linear layers, channels of residual sums."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.networks.normalised import ResidualBlock
from prunecert.models.networks.wideresnet import PreactivationBlock

_PASSED = (nn.ReLU, nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)


@dataclass
class Units:
    """Units that go together: unit u of every producer is an output, and of every consumer an input.

    Where producers' outputs are added up (residual sums) they share their units, which can only go from all of them.

    Args:
        size: How many units.
        kind: ``conv`` or ``linear``, that of the producers.
        producers: Weights whose rows they are, by parameter name.
        consumers: Weights whose columns they are, by name; each unit has the same number of them, side by side.
    """

    size: int
    kind: str
    producers: dict[str, Tensor] = field(default_factory=dict)
    consumers: dict[str, Tensor] = field(default_factory=dict)

    def norms(self) -> Tensor:
        """Returns each unit's mean |w| over the producers' rows, relative to the mean of all units, [size]."""
        total = torch.zeros(self.size)
        for weight in self.producers.values():
            rows = weight.detach().abs().flatten(1).mean(1).cpu()
            total += rows / rows.mean().clamp_min(1e-12)
        return total / len(self.producers)

    def remove(self, kept: Tensor, masks: dict[str, Tensor]) -> None:
        """Clears the rows and columns of the units that are not kept.

        Args:
            kept: Which units stay, bool [size].
            masks: Masks by parameter name; changed.
        """
        for name in self.producers:
            masks[name][~kept] = False
        for name, weight in self.consumers.items():
            columns = (~kept).repeat_interleave(weight.shape[1] // self.size)
            masks[name][:, columns] = False


def units_of(model: nn.Module) -> list[Units]:
    """Returns the groups of units of a network, in its order; inputs and classes belong to none.

    Raises:
        UserError: The network has a layer that is not known.
    """
    groups: list[Units] = []
    stream: Units | None = None

    def produce(name: str, layer: nn.Conv2d | nn.Linear, join: Units | None = None) -> Units:
        group = join or Units(layer.weight.shape[0], "conv" if isinstance(layer, nn.Conv2d) else "linear")
        if join is None:
            groups.append(group)
        group.producers[f"{name}.weight"] = layer.weight
        return group

    def consume(name: str, layer: nn.Conv2d | nn.Linear, group: Units | None) -> None:
        if group is not None:
            group.consumers[f"{name}.weight"] = layer.weight

    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            consume(name, layer, stream)
            stream = produce(name, layer)
        elif isinstance(layer, PreactivationBlock):
            consume(f"{name}.conv1", layer.conv1, stream)
            inner = produce(f"{name}.conv1", layer.conv1)
            consume(f"{name}.conv2", layer.conv2, inner)
            if isinstance(layer.shortcut, nn.Conv2d):
                consume(f"{name}.shortcut", layer.shortcut, stream)
                stream = produce(f"{name}.shortcut", layer.shortcut)
            stream = produce(f"{name}.conv2", layer.conv2, stream)
        elif isinstance(layer, ResidualBlock):
            consume(f"{name}.conv1", layer.conv1, stream)
            inner = produce(f"{name}.conv1", layer.conv1)
            consume(f"{name}.conv2", layer.conv2, inner)
            if isinstance(layer.shortcut, nn.Sequential):
                conv = layer.shortcut[0]
                assert isinstance(conv, nn.Conv2d)
                consume(f"{name}.shortcut.0", conv, stream)
                stream = produce(f"{name}.shortcut.0", conv)
            stream = produce(f"{name}.conv2", layer.conv2, stream)
        elif not isinstance(layer, _PASSED):
            raise UserError(
                f"Structured pruning does not know the layer {name!r} ({type(layer).__name__}); it takes networks of "
                "Conv2d, Linear, batch norm, ReLU, pooling, Flatten and residual blocks."
            )
    return [group for group in groups if group.consumers]
