"""Layer rates that methods begin and end with, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunecert.bench.report.medium import Column, Table
from prunecert.models.pruners.taxonomy import marked

RATE_NOTE = (
    "begins: what the allocation keeps of a layer, with which the method begins; ends: what the network has, the mean "
    "over seeds and, of several, the least and the most. max/min: of the rates in the end, the mean over seeds: 1 is "
    "uniform."
)


@dataclass(frozen=True)
class LayerRates:
    """Rates of one method's networks, those of its seeds together.

    Args:
        network: The network.
        objective: Its objective.
        eps: The radius.
        pruner: The method.
        compression: As asked for.
        begins: Share of each layer's weights that it begins with.
        ends: Shares that the networks have, by layer.
    """

    network: str
    objective: str
    eps: str
    pruner: str
    compression: float
    begins: Mapping[str, float]
    ends: Mapping[str, Sequence[float]]

    @property
    def spreads(self) -> list[float]:
        """The largest rate over the smallest, network by network."""
        return [max(shares) / max(min(shares), 1e-12) for shares in zip(*self.ends.values(), strict=True)]


def rates_table(lines: Sequence[LayerRates]) -> Table:
    """Returns a line a layer."""
    columns: list[Column] = [
        ("network", False),
        ("pruner", False),
        ("×", True),
        ("seeds", True),
        ("layer", False),
        ("begins %", True),
        ("ends %", True),
        ("ends / begins", True),
        ("max/min", True),
    ]
    rows = []
    for line in lines:
        for place, (layer, shares) in enumerate(line.ends.items()):
            mean = sum(shares) / len(shares)
            spread = f" ({100 * min(shares):.2f} to {100 * max(shares):.2f})" if len(shares) > 1 else ""
            first = place == 0
            rows.append(
                [
                    f"{line.network}, {line.objective}, {line.eps}" if first else "",
                    marked(line.pruner) if first else "",
                    f"{line.compression:g}" if first else "",
                    str(len(shares)) if first else "",
                    layer.removesuffix(".weight"),
                    f"{100 * line.begins[layer]:.2f}",
                    f"{100 * mean:.2f}{spread}",
                    f"{mean / line.begins[layer]:.2f}",
                    f"{sum(line.spreads) / len(line.spreads):.1f}" if first else "",
                ]
            )
    return Table(columns, rows)
