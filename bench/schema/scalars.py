"""Reads ``key=value`` options: values as YAML 1.2 has them, so that ``1e-4`` is a number."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import yaml

from prunecert.errors import UserError
from prunecert.printable import shortened

#: Letters of a value, and lists within lists, that a setting may have.
_MAX_LENGTH, _MAX_DEPTH = 2_000, 5
_ALLOWED = "the value must be a number, a word, true or false"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2."""


# Before YAML 1.1's own, which wants a point and a sign in 1.0e-4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def scalar(text: str) -> Any:
    """Reads a value.

    Raises:
        ValueError: It is no plain value: not finite, too long, nested deeply, or no YAML.
    """
    if len(text) > _MAX_LENGTH or sum(text.count(c) for c in "[{&*!") > 20:
        raise ValueError("it is too long")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, ValueError, KeyError, OverflowError, RecursionError) as error:
        # The library raises a KeyError for `!!bool maybe`, a ValueError for a day that no month has.
        raise ValueError("it is no YAML") from error
    _check(value, 0)
    return value


def _check(value: Any, depth: int) -> None:
    """Refuses what is no plain data, or what JSON can't hold."""
    match value:
        case None | bool() | str():
            return
        case int() if abs(value) < 2**63:
            return
        case float() if math.isfinite(value):
            return
        case list() if depth < _MAX_DEPTH:
            for item in value:
                _check(item, depth + 1)
        case dict() if depth < _MAX_DEPTH and all(isinstance(key, str) for key in value):
            for item in value.values():
                _check(item, depth + 1)
        case _:
            raise ValueError("it is no plain value")


def settings_for(names: Sequence[str], given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads ``key=value`` (for every verifier) and ``verifier.key=value``; values are YAML scalars.

    Raises:
        UserError: An item has another form, or names a verifier that isn't asked.
    """
    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    for item in given:
        shown = shortened(repr(item), 100)
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UserError(f"--settings {shown} is refused; allowed is key=value or verifier.key=value.")
        owner, dot, rest = key.partition(".")
        if dot and owner not in names:
            raise UserError(
                f"--settings {shown} names the verifier {shortened(repr(owner), 60)}; this run has {', '.join(names)}."
            )
        try:
            value = scalar(text)
        except ValueError:
            raise UserError(f"--settings {shown} is refused; {_ALLOWED}.") from None
        for name in [owner] if dot else names:
            settings[name][rest if dot else key] = value
    return settings
