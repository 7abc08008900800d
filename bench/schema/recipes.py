"""A suite's section `recipes`: how its networks are trained, from the general to the special."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunecert.bench.schema.yamlfile import Section
from prunecert.errors import UserError
from prunecert.models import DENSE, NETWORKS, OBJECTIVES, PRUNERS


def recipe_keys(
    network: str, objective: str, compression: float | None = None, pruner: str | None = None
) -> tuple[str, ...]:
    """Returns the keys of `recipes` that concern a cell, from the general to the special.

    Args:
        network: Its name.
        objective: Its name.
        compression: A number from 1 on; None: what all compressions share.
        pruner: Its name; None: what all pruners share.

    >>> recipe_keys("cnn5", "ibp", 100.0, "lwm")[2:]
    ('cnn5/ibp', 'cnn5/ibp/lwm', 'cnn5/ibp/100x', 'cnn5/ibp/lwm/100x')
    """
    both = f"{network}/{objective}"
    keys = ["default", network, both]
    if pruner is not None:
        keys.append(f"{both}/{pruner}")
    if compression is not None:
        keys.append(f"{both}/{compression:g}x")
    if pruner is not None and compression is not None:
        keys.append(f"{both}/{pruner}/{compression:g}x")
    return tuple(keys)


def merged(
    recipes: Mapping[str, Mapping[str, Any]],
    network: str,
    objective: str,
    compression: float | None = None,
    pruner: str | None = None,
) -> dict[str, Any]:
    """Returns a training recipe.

    Args:
        recipes: As `read_recipes` returns them.
        network: See `recipe_keys`, as for the others.
        objective: Its name.
        compression: A number from 1 on, or None.
        pruner: Its name, or None.

    >>> merged({"default": {"lr": 1}, "cnn5/ibp": {"lr": 2}, "cnn5/ibp/100x": {"lr": 3}}, "cnn5", "ibp", 100.0)
    {'lr': 3}
    """
    result: dict[str, Any] = {}
    for key in recipe_keys(network, objective, compression, pruner):
        result.update(recipes.get(key, {}))
    return result


def read_recipes(root: Section) -> dict[str, dict[str, Any]]:
    """Returns the recipes as they are written, by their keys.

    Raises:
        UserError: A key names no network, objective, pruner or compression.
    """
    section = root.section("recipes")
    if section is None:
        return {}
    recipes = {}
    for key in section.data:
        if key != "default":
            try:
                _check_key(key)
            except UserError as error:
                raise section.refusal(key, str(error)) from error
        recipes[key] = section.take(key, dict)
    return recipes


def _check_key(key: str) -> None:
    network, *rest = key.split("/", 3)
    NETWORKS.check(network)
    if rest:
        OBJECTIVES.check(rest.pop(0))
    # A pruner, a compression, or both in this order.
    if rest and (rest[0] == DENSE or rest[0] in PRUNERS):
        rest.pop(0)
    elif len(rest) > 1 and not rest[0][:1].isdigit():
        PRUNERS.check(rest[0])
    if rest:
        _check_compression("/".join(rest))


def _check_compression(text: str) -> None:
    """Refuses what isn't written as cells' names have it, which would never be asked for."""
    try:
        compression = float(text.removesuffix("x"))
    except ValueError:
        compression = 0.0
    if not 1 <= compression < float("inf") or text != f"{compression:g}x":
        raise UserError(f"{text!r} is no compression; it must be a number from 1 on and an x, e.g. 100x.")
