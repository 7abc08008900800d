"""Registries of lazily imported targets, so that listing names imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from prunecert.errors import UserError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to ``"module:attribute"`` targets, imported when first asked for.

    Args:
        kind: What the names stand for, in the singular; used in messages.
        targets: Initial names and targets.

    >>> numbers: Registry[type] = Registry("number", {"exact": "fractions:Fraction", "decimal": "decimal:Decimal"})
    >>> list(numbers), "exact" in numbers
    (['decimal', 'exact'], True)
    >>> numbers.get("exact")(1, 3)
    Fraction(1, 3)
    >>> numbers.get("exakt")
    Traceback (most recent call last):
    prunecert.errors.UserError: Unknown number 'exakt'. Did you mean 'exact'? Available: decimal, exact.
    """

    def __init__(self, kind: str, targets: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._targets: dict[str, str] = dict(targets or {})
        self._loaded: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._targets))

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def register(self, name: str, target: str) -> None:
        """Adds a name, e.g. from a plug-in or a test.

        Raises:
            ValueError: The name stands for another target already.
        """
        if self._targets.get(name, target) != target:
            raise ValueError(f"{self.kind} {name!r} is registered already as {self._targets[name]}")
        self._targets[name] = target

    def check(self, name: str) -> str:
        """Returns `name` if it is known.

        Raises:
            UserError: It is not; the message names the nearest and all known names.
        """
        if name not in self._targets:
            raise UserError(did_you_mean(self.kind, name, self._targets))
        return name

    def get(self, name: str) -> T:
        """Imports and returns what `name` stands for.

        Raises:
            UserError: The name is not known.
        """
        if self.check(name) not in self._loaded:
            module, _, attribute = self._targets[name].partition(":")
            self._loaded[name] = cast(T, getattr(importlib.import_module(module), attribute))
        return self._loaded[name]
