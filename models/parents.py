"""Parents: dense checkpoints that stand in for a pre-trained network, imported ones among them.

A recipe names its parent, and a name can come to stand for another file. So a cell's card has the SHA-256 of the parent
that it began with, and what was trained from another file of that name is neither skipped nor replaced silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunecert.errors import UserError
from prunecert.models import DENSE, checkpoint_folders
from prunecert.models.building import CLASSES, SHAPE
from prunecert.models.checkpoint import Card, load_card
from prunecert.models.job import Job

#: Of a SHA-256, in messages.
_DIGITS = 12


def find_parent(name: str, folder: Path) -> Path | None:
    """Returns the card of the parent of a name: beside what is trained, then where checkpoints go, then what ships.

    Args:
        name: Its name.
        folder: Where checkpoints are trained to.
    """
    cards = (place / f"{name}.json" for place in _places(folder))
    return next((card for card in cards if card.is_file()), None)


def parent_file(job: Job, folder: Path) -> Path:
    """Returns the checkpoint that a job begins with in place of a pre-trained network.

    Args:
        job: A job whose recipe names one.
        folder: Where checkpoints are trained to.

    Raises:
        UserError: There is none of that name, it isn't a dense one of the job's network, it has seen what the job holds
            out, or the job's pruner begins at the initial weights.
    """
    name = job.recipe.parent
    file = find_parent(name, folder)
    if file is None:
        raise UserError(
            f"{job.name}: there is no parent {name!r} {_described(folder)}; allowed is the name of a dense checkpoint, "
            "without its ending."
        )
    card = load_card(file)
    if card.network != job.network or card.kept != card.weights or card.surgery:
        raise UserError(
            f"{job.name}: the parent {name!r} is refused: it is a {card.network} that keeps {card.kept:,} of "
            f"{card.weights:,} weights; it must be a dense {job.network}."
        )
    if _images(card.data) != _images(job.data):
        raise UserError(
            f"{job.name}: the parent {name!r} is refused: it is for {_images(card.data)}, and the suite's data has "
            f"{_images(job.data)}."
        )
    _refuse_use(job, seen=card.saw_held_out)
    return file.with_suffix(".safetensors")


def refuse_as_parent(job: Job, parent: Job) -> None:
    """Refuses a cell that is to be trained first as another's parent where its checkpoint would be refused.

    Args:
        job: A job whose recipe names the parent.
        parent: The job of that name, of the same suite.

    Raises:
        UserError: See `parent_file`.
    """
    if parent.network != job.network or parent.pruner != DENSE:
        raise UserError(
            f"{job.name}: the parent {parent.name!r} is refused: it is a {parent.network} by {parent.pruner}; it must "
            f"be a dense {job.network}."
        )
    _refuse_use(job, seen=not parent.recipe.holdout)


def _refuse_use(job: Job, *, seen: bool) -> None:
    """Refuses a parent that has seen what the job holds out, and any where the job begins at the initial weights."""
    name = job.recipe.parent
    if job.recipe.holdout and seen:
        raise UserError(
            f"{job.name}: the parent {name!r} is refused: it was trained on the held-out images, too, on which "
            f"{job.name} is measured; allowed are a parent that was trained without them and, but in a search, "
            "holdout: false."
        )
    if job.from_scratch:
        raise UserError(
            f"{job.name}: {job.pruner} begins at the initial weights, so that a parent has no use; leave out "
            "parent, or choose another pruner."
        )


def other_parent(card: Card, job: Job, folder: Path) -> str:
    """Returns how a card's parent differs from the one that its job would begin with now, as ``from another parent …``.

    Returns nothing where it doesn't, or can't be known: the card is of a time when none had a parent's hash, or the
    parent is gone.

    Args:
        card: Of the job's checkpoint.
        job: The job.
        folder: Where checkpoints are trained to.

    Raises:
        UserError: The parent's card can't be read.
    """
    file = find_parent(job.recipe.parent, folder) if job.recipe.parent and card.parent_sha256 else None
    if file is None:
        return ""
    sha256 = load_card(file).sha256
    if sha256 == card.parent_sha256:
        return ""
    return (
        f"from another parent (its {job.recipe.parent!r} had the SHA-256 {card.parent_sha256[:_DIGITS]}…, and "
        f"{str(file.with_suffix('.safetensors'))!r} has {sha256[:_DIGITS]}…)"
    )


def _places(folder: Path) -> list[Path]:
    """Returns where parents are looked for, the folder of what ships last."""
    places = (folder, checkpoint_folders.CHECKPOINTS, checkpoint_folders.ZOO)
    own = dict.fromkeys(place for place in places if place.resolve() != checkpoint_folders.ZOO.resolve())
    return [*own, checkpoint_folders.ZOO]


def _described(folder: Path) -> str:
    """Returns where parents are looked for, in words."""
    own = ", ".join(repr(str(place)) for place in _places(folder)[:-1])
    return f"in {own} or among the shipped checkpoints" if own else "among the shipped checkpoints"


def _images(data: Mapping[str, Any]) -> str:
    shape, classes = data.get("shape", SHAPE), data.get("classes", CLASSES)
    return f"images of shape {list(shape)} in {classes} classes"
