"""What pruning keeps of a dense control's accuracies, as a table: of checkpoints' cards, or of verified networks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from prunecert.bench.report.medium import Table
from prunecert.bench.results.decode import why
from prunecert.bench.results.quantities import Amount, Count, Name, Ratio, Seed
from prunecert.bench.results.summary_cells import SummaryCell
from prunecert.bench.schema.cell import fitting
from prunecert.errors import UserError
from prunecert.models import DENSE
from prunecert.models.checkpoint_folders import CHECKPOINTS, checkpoint_files, places
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind

#: What stands for the pruner of a network that somebody else trained; it is nobody's dense control here.
_IMPORTED = "imported"
#: Stages of training that go before the pruned network's own: the dense one's, learned scores, the search for a mask.
_BEFORE_PRUNING = ("pretrain", "scores", "search")
#: What stands first among pruners at one compression: the simplest.
_ORDER = ("lwm", "lwm-iterative", "lwm-rewind", "hydra")


@dataclass(frozen=True)
class Line:
    """A network of the table.

    Args:
        group: Network, objective, radius and seed: what it shares with its dense control.
        name: The cell's name, which a selection is matched against.
        pruner: Its pruner, or ``dense``.
        compression: The ratio asked for.
        shares: Accuracies in [0, 1] by the column's heading; what wasn't measured is missing.
        shown: How a share is written, where that is more than the percentage.
        origin: What must be equal for a comparison with the control: how it was trained and measured.
        note: Text of the last column.
        epochs: Of all its training, where a difference from the control's is marked and not refused.
    """

    group: tuple[str, str, str, int]
    name: str
    pruner: str
    compression: float
    shares: Mapping[str, float]
    shown: Mapping[str, str]
    origin: tuple[object, ...]
    note: str = ""
    epochs: int | None = None


#: Headings of the accuracies in a card, and which of them "kept" is about.
CARD = {"clean": "clean %", "pgd": "PGD %", "ibp": "IBP %", "crown_ibp": "CROWN-IBP %", "noisy": "noisy %"}
CARD_KEPT = ("clean %", "PGD %", "CROWN-IBP %", "noisy %")
RUN_KEPT = ("clean %", "under attack %", "verified % (95 %)")


class _Epochs(Struct, kw_only=True):
    """What of a recipe the table is about."""

    pretrain_epochs: Count
    prune_epochs: Count
    finetune_epochs: Count
    parent: str = ""
    holdout: bool = True


class _CardNumbers(Struct, kw_only=True):
    """What of a card the table is about; somebody else may have written the card."""

    network: Name
    objective: Name
    eps: Name
    seed: Seed
    pruner: Name
    compression: Ratio
    accuracy: dict[str, Amount]
    recipe: _Epochs
    throughput: dict[str, Amount]
    data_fingerprint: Name
    device: Name


def of_card(card: Any, folder: Path = CHECKPOINTS) -> Line:
    """Returns the line of a checkpoint's card (`models.checkpoint.Card`).

    Args:
        card: The card.
        folder: Where the parent that its network began with is looked for, whose epochs count.

    Raises:
        UserError: A field is missing, of another type, or out of its range.
    """
    fields = {key: getattr(card, key) for key in _CardNumbers.__struct_fields__}
    imported = isinstance(card.recipe, dict) and "imported" in card.recipe
    if imported:
        # Nobody here knows its epochs.
        fields["recipe"] = dict.fromkeys(("pretrain_epochs", "prune_epochs", "finetune_epochs"), 0)
        fields["pruner"] = _IMPORTED
    try:
        numbers = msgspec.convert(fields, _CardNumbers)
        measured = numbers.accuracy["images"] if numbers.recipe.holdout else None
    except (msgspec.ValidationError, KeyError, RecursionError) as error:
        where, reason = ("accuracy", "it lacks images") if isinstance(error, KeyError) else why(error)
        raise UserError(
            f"The card of {card.name!r:.80} is refused: {where}: {reason}; restore it, or train the network again."
        ) from error
    shares = {heading: numbers.accuracy[key] for key, heading in CARD.items() if key in numbers.accuracy}
    epochs = _IMPORTED if imported else _epochs(card, numbers.recipe, folder)
    # Of the stage that trains the pruned network's weights: fine-tuning, or that of a pruner that prunes in rounds.
    rate = next((rate for stage, rate in numbers.throughput.items() if stage not in _BEFORE_PRUNING), None)
    return Line(
        group=(numbers.network, numbers.objective, numbers.eps, numbers.seed),
        name=card.name,
        pruner=numbers.pruner,
        compression=numbers.compression,
        shares=shares,
        shown={},
        origin=(epochs, measured, numbers.data_fingerprint),
        note=("epochs unknown" if imported else f"{epochs}")
        + (f", {rate:,.0f}/s on {numbers.device}" if rate else "")
        + ("" if numbers.recipe.holdout else ", on all training images")
        + (", perhaps trained on these images" if card.foreign else ""),
    )


def _epochs(card: Any, recipe: _Epochs, folder: Path, generations: int = 8) -> int | str:
    """Returns how many epochs a network was trained for, its parent's training included; words where that is gone."""
    own = recipe.prune_epochs + recipe.finetune_epochs
    if not recipe.parent:
        return recipe.pretrain_epochs + own
    from prunecert.models.checkpoint import load_card
    from prunecert.models.parents import find_parent

    file = find_parent(recipe.parent, folder) if generations else None
    parent = None if file is None else load_card(file)
    if parent is None or parent.sha256 != card.parent_sha256:
        return f"{own} after {recipe.parent}"
    try:
        before = _epochs(parent, msgspec.convert(parent.recipe, _Epochs), folder, generations - 1)
    except msgspec.ValidationError:
        return f"{own} after {recipe.parent}"
    return before + own if isinstance(before, int) else f"{own} after {before}"


def of_cell(cell: SummaryCell, epochs: int | None = None) -> Line | None:
    """Returns the line of a cell of a run's summary, or None if it isn't finished.

    A cell that its note says to be attacked only has no verified accuracy.

    Args:
        cell: The cell.
        epochs: Of all the network's training, where that is recorded.
    """
    if not cell.finished:
        return None
    shares = {"clean %": cell.clean, "under attack %": cell.attacked}
    # Cells over l2 balls have a note, too, and are proved.
    proving = any(name not in VERIFIERS or VERIFIERS.get(name).kind is not Kind.ATTACK for name in cell.by_verifier)
    if proving or not cell.note:
        shares["verified % (95 %)"] = cell.verified
    verified = cell.verified
    shown = f"{verified.value or 0.0:.1%} ({verified.low:.1%}–{verified.high:.1%})".replace("%", "")
    return Line(
        group=(cell.network, cell.objective, cell.eps, cell.seed),
        name=cell.name,
        pruner=cell.pruner,
        compression=cell.compression,
        # A cell without images has no shares.
        shares={heading: share.value for heading, share in shares.items() if share.value is not None},
        shown={"verified % (95 %)": shown},
        origin=(cell.images, cell.data_fingerprint),
        note=str(cell.undecided.total),
        epochs=epochs,
    )


def markdown(lines: Iterable[Line], kept: Sequence[str], note: str, digits: int) -> str:
    """Returns the table.

    Args:
        lines: The networks, in any order.
        kept: Headings of the accuracies that are compared with the control's.
        note: Heading of the last column.
        digits: Decimals of the shares kept.
    """
    lines = sorted(lines, key=place)
    controls = {line.group: line for line in lines if line.pruner == DENSE}
    headings = [h for h in dict.fromkeys([*CARD.values(), *RUN_KEPT]) if any(h in line.shares for line in lines)]
    compared = [h for h in kept if h in headings]
    of = " / ".join(h.split(" %")[0] for h in compared)
    shares = [(heading, True) for heading in headings]
    named = (("network, objective, ε, seed", False), ("pruner", False), ("×", True))
    unequal: list[str] = []
    # Networks that were trained on all images have nothing measured on their cards, so that nothing is compared.
    against = [(f"kept of dense, %: {of}", False)] if compared else []
    columns = (*named, *shares, *against, (note, True))
    rows = []
    for line in lines:
        cells = [line.shown.get(h, f"{100 * line.shares[h]:.1f}") if h in line.shares else "" for h in headings]
        parts = [", ".join(map(str, line.group)), line.pruner, f"{line.compression:g}", *cells]
        control = controls.get(line.group)
        shares_kept = _kept(line, control, compared, digits)
        if control is not None and (mark := _more_epochs(line, control)):
            shares_kept += " *"
            unequal.append(mark)
        rows.append([*parts, *([shares_kept] if compared else []), line.note])
    remark = [f"\\* Trained for other epochs than the dense control: {', '.join(unequal)}.", ""] if unequal else []
    return "\n".join([*Table(columns, rows).markdown(), "", *remark])


def _more_epochs(line: Line, control: Line) -> str:
    """Returns how a network's epochs differ from its control's, or nothing where they don't or aren't known."""
    if line.epochs is None or control.epochs is None or line.epochs == control.epochs or line.pruner == DENSE:
        return ""
    return f"{line.name} {line.epochs} in place of {control.epochs}"


def place(line: Line) -> tuple[object, ...]:
    """Returns where a line stands: by network, objective, radius, seed, compression, and the simplest pruner first."""
    network, objective, eps, seed = line.group
    rank = _ORDER.index(line.pruner) if line.pruner in _ORDER else len(_ORDER)
    return (network, objective, eps, seed, line.compression, line.pruner != DENSE, rank, line.pruner)


def _kept(line: Line, control: Line | None, headings: Sequence[str], digits: int) -> str:
    if line.pruner in (DENSE, _IMPORTED):
        return ""
    if control is None:
        return "no dense control"
    if control.origin != line.origin:
        return "the control was made in another way"
    both = [h for h in headings if h in line.shares and control.shares.get(h, 0.0) > 0]
    return " / ".join(f"{100 * line.shares[h] / control.shares[h]:.{digits}f}" for h in both)


def kept_of_control(line: Line, control: Line | None) -> str:
    """Returns what a run's network keeps of its control's accuracies, in the order of `RUN_KEPT`: ``98 / 97 / 97``."""
    return _kept(line, control, RUN_KEPT, 0)


def _read_cards(folder: Path) -> list[Line]:
    from prunecert.models.checkpoint import load_card

    paths = checkpoint_files(folder)
    if not paths:
        raise UserError(f"{folder} holds no checkpoints; give a folder of *.safetensors with their cards.")
    cards = [load_card(path) for path in paths]
    return [of_card(card, folder) for card in cards if not card.unfit]


def kept_of_checkpoints(
    folder: Path | None = None,
    compressions: Collection[float] | None = None,
    patterns: str | None = None,
    only: Collection[str] | None = None,
) -> str:
    """Returns the table of a folder of checkpoints, by their cards.

    Args:
        folder: The folder; None: those of `models.checkpoint_folders`.
        compressions: Only these ratios; None: all.
        patterns: Only cells whose name fits one of these comma-separated shell patterns; None: all.
        only: Only cells of these names; None: all.

    Raises:
        UserError: There are no checkpoints, a card can't be read, or nothing of what is asked for is there.
    """
    folder = CHECKPOINTS if folder is None else folder
    if not any(place.exists() for place in places(folder)):
        raise UserError(
            f"{folder} does not exist; give a folder of checkpoints, a run or its summary.json, or entries."
        )
    lines = _chosen(_read_cards(folder), compressions, patterns, only, str(folder))
    return markdown(lines, CARD_KEPT, "epochs, images/s", 1)


def kept_of_cells(
    cells: Iterable[SummaryCell],
    source: str,
    compressions: Collection[float] | None = None,
    patterns: str | None = None,
    only: Collection[str] | None = None,
    *,
    epochs: Mapping[str, int] | None = None,
) -> str:
    """Returns the table of what complete verifiers have judged.

    Args:
        cells: The networks; those that aren't finished are left out.
        source: Where they are from, for messages.
        compressions: Only these ratios; None: all.
        patterns: Only cells whose name fits one of these comma-separated shell patterns; None: all.
        only: Only cells of these names; None: all.
        epochs: Of all the training of networks, by name, where that is recorded.

    Raises:
        UserError: Nothing of what is asked for is there.
    """
    by_name = epochs or {}
    lines = [line for cell in cells if (line := of_cell(cell, by_name.get(cell.name))) is not None]
    return markdown(_chosen(lines, compressions, patterns, only, source), RUN_KEPT, "undecided", 0)


def _chosen(
    lines: Sequence[Line],
    compressions: Collection[float] | None,
    patterns: str | None,
    only: Collection[str] | None,
    source: str,
) -> list[Line]:
    """Returns the networks asked for.

    Raises:
        UserError: There are none.
    """
    chosen = [line for line in lines if only is None or line.name in only]
    chosen = [line for line in chosen if compressions is None or line.compression in compressions]
    if patterns is not None:
        names = set(fitting((line.name for line in chosen), patterns, source))
        chosen = [line for line in chosen if line.name in names]
    if not chosen:
        raise UserError(f"{source} holds no finished network of those asked for.")
    return chosen
