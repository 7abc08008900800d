"""Registries of lazily imported targets, so that listing names imports nothing heavy.

Beside what they are made with, they hold what installed packages offer as entry points (``prunecert.pruners`` and so
on) and what the modules named in the environment variable `PLUGINS` register; ``module:attribute`` stands for itself.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, cast

from prunecert.errors import UserError, did_you_mean

T = TypeVar("T")

#: Modules to be imported before a name is looked up, with commas between; the option --plugin adds to it.
PLUGINS = "PRUNECERT_PLUGINS"
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Registry(Generic[T]):
    """Names to ``"module:attribute"`` targets, imported when first asked for.

    Args:
        kind: What the names stand for, in the singular; used in messages, and in the name of the group of entry points:
            ``pruner`` has ``prunecert.pruners``, ``add-on`` has ``prunecert.addons``.
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
        self._complete = False

    @property
    def group(self) -> str:
        """The group of entry points that packages offer such things in."""
        return f"prunecert.{re.sub('[^a-z]', '', self.kind)}s"

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._targets))

    def __contains__(self, name: object) -> bool:
        if name in self._targets:
            return True
        self._discover()
        return name in self._targets or (isinstance(name, str) and _TARGET.fullmatch(name) is not None)

    def _discover(self) -> None:
        """Adds what plug-ins and installed packages offer, once; a name that is there already stays what it is.

        Raises:
            UserError: A plug-in can't be imported.
        """
        if self._complete:
            return
        self._complete = True
        import_plugins()
        for entry in importlib.metadata.entry_points(group=self.group):
            self._targets.setdefault(entry.name, entry.value)

    def register(self, name: str, target: str) -> None:
        """Adds a name, e.g. from a plug-in or a test.

        Raises:
            ValueError: The name stands for another target already.
        """
        if self._targets.get(name, target) != target:
            raise ValueError(f"{self.kind} {name!r} is registered already as {self._targets[name]}")
        self._targets[name] = target

    def check(self, name: str, among: Callable[[str], bool] | None = None) -> str:
        """Returns `name` if it is known.

        Args:
            name: The name.
            among: Says which known names the message is to name; None: all.

        Raises:
            UserError: It is not; the message names the nearest and all known names.
        """
        if name not in self:
            raise UserError(did_you_mean(self.kind, name, filter(among, self) if among else self._targets))
        return name

    def get(self, name: str) -> T:
        """Imports and returns what `name` stands for.

        Raises:
            UserError: The name is not known; or it is ``module:attribute``, which can't be imported.
        """
        if self.check(name) not in self._loaded:
            if name in self._targets:
                module, _, attribute = self._targets[name].partition(":")
                self._loaded[name] = cast(T, getattr(importlib.import_module(module), attribute))
            else:
                self._loaded[name] = cast(T, imported(name, self.kind))
        return self._loaded[name]


def imported(target: str, what: str) -> object:
    """Returns what ``module:attribute`` stands for; modules in the current folder are found, too.

    Args:
        target: The module and the attribute.
        what: What it is to be, for the message.

    >>> imported("fractions:Fraction", "number")(1, 2)
    Fraction(1, 2)

    Raises:
        UserError: It can't be imported.
    """
    module, _, attribute = target.partition(":")
    _search_here()
    try:
        value: object = importlib.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (Exception, SystemExit) as error:
        # Foreign code may raise anything while it is imported, and a script without a main guard ends the program.
        raise UserError(
            f"The {what} {target!r} can't be imported ({type(error).__name__}: {error}); write module:attribute of a "
            "module that Python finds from here."
        ) from error
    return value


def import_plugins() -> None:
    """Imports the modules that `PLUGINS` names; they register what they bring.

    Raises:
        UserError: One can't be imported.
    """
    for name in filter(None, (part.strip() for part in os.environ.get(PLUGINS, "").split(","))):
        _search_here()
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"The plug-in {name!r} can't be imported ({type(error).__name__}: {error}); name a module that Python "
                "finds from here."
            ) from error


def _search_here() -> None:
    """Lets modules of the current folder be found, behind all others, as ``python -m`` does."""
    here = os.getcwd()  # noqa: PTH109
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
