"""What checkpoints alone tell: whether classes with larger gradients lose more, and the rates that layers end with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.bench.report import impact, impact_tables
from prunecert.bench.report.impact_tables import ImpactTable
from prunecert.bench.report.rates_table import RATE_NOTE, LayerRates, rates_table
from prunecert.bench.schema.cell import fitting
from prunecert.errors import UserError
from prunecert.models import DENSE
from prunecert.models.checkpoint_folders import checkpoint_files, locate, places
from prunecert.models.pruners.taxonomy import UNIFORM_RATES

if TYPE_CHECKING:
    from prunecert.models.checkpoint import Card
    from prunecert.models.groups import Groups

#: Pruners that find layer rates of their own, starting from an allocation.
LEARNED_RATES = ("harp", "harp-uniform", "heracles")


def cards_of(
    folder: Path, cells: str | None, compressions: frozenset[float] | None, only: frozenset[str] | None = None
) -> list[Card]:
    """Returns the cards of a folder of checkpoints that are asked for, and those of all its dense networks.

    Networks on other data than CIFAR-10, and those that must not be published, are left out.

    Args:
        folder: The folder.
        cells: Shell patterns of names; None: all.
        compressions: Only these; None: all.
        only: Only cells of these names; None: all.

    Raises:
        UserError: It is no folder, or a pattern fits nothing.
    """
    from prunecert.models.checkpoint import load_card

    if not any(place.is_dir() for place in places(folder)):
        raise UserError(f"{folder} is refused: --about gradients and rates need a folder of checkpoints.")
    files = checkpoint_files(folder)
    if not files:
        raise UserError(
            f"{folder} is refused: it holds no checkpoint; --about gradients and rates need a folder of them."
        )
    cards = [load_card(path) for path in files]
    cards = [card for card in cards if not card.data and not card.unfit and (only is None or card.name in only)]
    if cells is not None:
        names = set(fitting((card.name for card in cards), cells, str(folder)))
        cards = [card for card in cards if card.pruner == DENSE or card.name in names]
    if compressions is not None:
        cards = [card for card in cards if card.pruner == DENSE or card.compression in compressions]
    return cards


def gradients(cards: Sequence[Card], folder: Path, data_root: Path | None) -> Iterator[ImpactTable]:
    """Yields, for each pruned checkpoint, how its classes' excess loss goes with the dense network's gradients.

    Args:
        cards: See `cards_of`.
        folder: Where the checkpoints are.
        data_root: Folder of the data, or None to look for it.

    Raises:
        UserError: No pruned one has its dense control beside it.
    """
    from prunecert.models.checkpoint import load_model
    from prunecert.models.data import load
    from prunecert.models.groups import measure

    dense = {(card.network, card.objective, card.eps, card.seed): card for card in cards if card.pruner == DENSE}
    controls = [(card, dense.get((card.network, card.objective, card.eps, card.seed))) for card in cards]
    pairs = [(card, control) for card, control in controls if card.pruner != DENSE and control is not None]
    whole = sorted({card.name for pair in pairs for card in pair if card.saw_held_out})
    pairs = [pair for pair in pairs if not any(card.saw_held_out for card in pair)]
    if not pairs:
        reason = f" of which the held-out images tell; trained on them, too: {', '.join(whole)}" if whole else ""
        raise UserError(f"{folder} holds no pruned checkpoint with its dense control{reason}.")
    data = load("val", data_root, allow_sample=False)
    measured: dict[str, Groups] = {}
    lines = []
    for card, control in pairs:
        if control.name not in measured:
            model = load_model(locate(folder, control.name))[0]
            measured[control.name] = measure(model, data.images, data.labels, data.classes)
        model = load_model(locate(folder, card.name))[0]
        after = measure(model, data.images, data.labels, data.classes, gradients=False)
        lines.append((card.name, measured[control.name], after))
    yield ImpactTable(
        f"Excess loss by class on {len(data)} held-out images",
        impact_tables.gradients_table(lines, impact.class_names(data.source)),
        impact_tables.GRADIENT_NOTE
        + (
            f" Left out with what is compared with them, since trained on these images, too: {', '.join(whole)}."
            if whole
            else ""
        ),
    )


def rates(cards: Sequence[Card], folder: Path) -> Iterator[ImpactTable]:
    """Yields the rates that layers begin and end with, of the methods that find their own.

    Args:
        cards: See `cards_of`.
        folder: Where they are from.

    Raises:
        UserError: There is none of such a method.
    """
    groups: dict[tuple[str, str, str, str, float], list[Card]] = defaultdict(list)
    for card in cards:
        if card.pruner in LEARNED_RATES:
            groups[card.network, card.objective, card.eps, card.pruner, card.compression].append(card)
    if not groups:
        raise UserError(
            f"{folder} holds no checkpoint of {', '.join(LEARNED_RATES)} that is asked for; train one, e.g. by "
            "prunecert train --suite cifar10-methods --cells '*_harp_*'."
        )
    lines = [_layer_rates(group) for _, group in sorted(groups.items())]
    yield ImpactTable("Rates of layers, in % of their weights", rates_table(lines), RATE_NOTE)


def _layer_rates(cards: Sequence[Card]) -> LayerRates:
    first = cards[0]
    begins = initial_shares(first)
    for card in cards:
        if absent := [name for name in begins if name not in card.sparsity_by_layer]:
            raise UserError(
                f"The card of {card.name!r:.80} is refused: sparsity_by_layer lacks {absent[0]!r}, a layer of "
                f"{card.network}; restore it, or train the network again."
            )
    ends = {name: [1 - card.sparsity_by_layer[name] for card in cards] for name in begins}
    return LayerRates(first.network, first.objective, first.eps, first.pruner, first.compression, begins, ends)


def initial_shares(card: Card) -> dict[str, float]:
    """Returns the share of each layer's weights that its allocation keeps, in the network's order.

    Args:
        card: Of a pruner that begins with an allocation: its recipe's, or a uniform one for a variant that has that.
    """
    from prunecert.models.building import SHAPE, build_for
    from prunecert.models.masks import prunable
    from prunecert.models.pruners.allocation import allocate, budget
    from prunecert.models.pruners.both_budgets import for_network

    model = build_for(card.network, card.data)
    shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
    sizes = {name: weight.numel() for name, weight in prunable(model).items()}
    name = "uniform" if card.pruner in UNIFORM_RATES else str(card.recipe.get("allocation", "uniform"))
    allocation = for_network(name, model, card.data.get("shape", SHAPE), card.compression)
    kept = allocate(shapes, budget(sum(sizes.values()), card.compression), allocation)
    return {name: kept[name] / sizes[name] for name in sizes}
