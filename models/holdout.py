"""Whether the images that are held out of training were held out of a network's, by what its card says."""

from __future__ import annotations

from typing import Any

#: What stands in place of ``validation split`` in a card's `measured` where somebody else trained the network, or the
#: one that it began with.
FOREIGN_SPLIT = "validation split, which whoever trained it first may have trained on"


def saw_held_out(recipe: Any) -> bool:
    """Returns whether a network was trained on the validation split, too, which says nothing of it then.

    Args:
        recipe: That of its card; anything, since anybody may have written it.

    Example:
        >>> saw_held_out({"holdout": False}), saw_held_out({})
        (True, False)
    """
    return isinstance(recipe, dict) and recipe.get("holdout") is False


def is_foreign(recipe: Any, measured: Any) -> bool:
    """Returns whether somebody else trained a network, or the one that it began with, on images that nobody here knows.

    Args:
        recipe: That of its card.
        measured: What its card says of how it was measured; descendants of an imported network say it there.

    Example:
        >>> is_foreign({"imported": "0a1b"}, "validation split"), is_foreign({}, f"{FOREIGN_SPLIT}; PGD")
        (True, True)
    """
    return (isinstance(recipe, dict) and "imported" in recipe) or FOREIGN_SPLIT in str(measured)
