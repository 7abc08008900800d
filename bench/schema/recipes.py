"""A suite's section `recipes`: how its networks are trained, from the general to the special."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunecert.bench.schema.yamlfile import Section
from prunecert.errors import UserError
from prunecert.models import NETWORKS, OBJECTIVES


def merged(
    recipes: Mapping[str, Mapping[str, Any]], network: str, objective: str, compression: float | None = None
) -> dict[str, Any]:
    """Returns a training recipe.

    Args:
        recipes: As `read_recipes` returns them.
        network: Its keys come after ``default``'s.
        objective: Then come those of both.
        compression: Then those of this compression; None: what all compressions share.

    >>> merged({"default": {"lr": 1}, "cnn5/ibp": {"lr": 2}, "cnn5/ibp/100x": {"lr": 3}}, "cnn5", "ibp", 100.0)
    {'lr': 3}
    """
    keys = ["default", network, f"{network}/{objective}"]
    if compression is not None:
        keys.append(f"{network}/{objective}/{compression:g}x")
    result: dict[str, Any] = {}
    for key in keys:
        result.update(recipes.get(key, {}))
    return result


def read_recipes(root: Section) -> dict[str, dict[str, Any]]:
    """Returns the recipes as they are written, by their keys.

    Raises:
        UserError: A key names no network, objective or compression.
    """
    section = root.section("recipes")
    if section is None:
        return {}
    recipes = {}
    for key in section.data:
        network, *rest = key.split("/", 2)
        if key != "default":
            try:
                NETWORKS.check(network)
                if rest:
                    OBJECTIVES.check(rest[0])
                if len(rest) > 1:
                    _check_recipe_compression(rest[1])
            except UserError as error:
                raise section.refusal(key, str(error)) from error
        recipes[key] = section.take(key, dict)
    return recipes


def _check_recipe_compression(text: str) -> None:
    """Refuses what isn't written as cells' names have it, which would never be asked for."""
    try:
        compression = float(text.removesuffix("x"))
    except ValueError:
        compression = 0.0
    if not 1 <= compression < float("inf") or text != f"{compression:g}x":
        raise UserError(f"{text!r} is no compression; it must be a number from 1 on and an x, e.g. 100x.")
