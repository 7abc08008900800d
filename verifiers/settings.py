"""What can be set of a verifier: each setting declared once, with its default, what is allowed and what it means."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunecert.errors import UserError, did_you_mean
from prunecert.printable import shortened
from prunecert.ranges import NumberRange, show_number

#: Longest part of a refused value that is repeated.
_LONGEST_VALUE = 200
#: What the verifiers keep a whole number in.
_LARGEST_INT = 2**63 - 1
#: Kinds of questions for which a setting may do nothing, in the words of help texts and answers.
WITHOUT: Mapping[str, str] = {
    "l2": "over l2 balls",
    "int8": "on quantised networks",
    "curves": "on networks with Sigmoid or Tanh",
    "inputs": "where inputs alone are split",
}
_KINDS = {str: "text", bool: "true or false", dict: "a mapping", int: "a whole number", float: "a number"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting of a verifier.

    >>> steps = Setting(default=40, above=0, help="gradient steps of a restart")
    >>> steps.allowed, steps.check("pgd", "steps", 100)
    ('above 0', 100)
    >>> steps.check("pgd", "steps", 0)
    Traceback (most recent call last):
        ...
    prunecert.errors.UserError: Setting 'steps' of verifier 'pgd' is 0; it must be above 0.

    Args:
        default: Its default; every value must be of its type, but for whole numbers, which count as float, too.
        at_least: Least value allowed; None: there is none.
        above: What a value must be above.
        at_most: Largest value allowed.
        below: What a value must be below.
        choices: Values allowed; empty: any of the type, within the range.
        later: Whether it came when results without it were published: at its default it is left out of what is
            recorded, so that identifiers of questions stay.
        idle: Kinds of questions, of `WITHOUT`, for which it does nothing; an answer says so of a value that was given.
        help: What it means, in one sentence without a full stop.
    """

    default: Any
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    later: bool = False
    idle: tuple[str, ...] = ()
    help: str

    def __post_init__(self) -> None:
        if type(self.default) not in _KINDS:
            raise TypeError(f"A setting is text, a number, a truth value or a mapping: {self}.")
        numeric = isinstance(self.default, int | float) and not isinstance(self.default, bool)
        if self._limits and (not numeric or not self._limits.hold(self.default)):
            raise TypeError(f"A setting's limits are for numbers, and its default must keep them: {self}.")
        if self.choices and self.default not in self.choices:
            raise TypeError(f"A setting's default must be one of its choices: {self}.")
        if not set(self.idle) <= set(WITHOUT):
            raise TypeError(f"A setting is idle for kinds of questions among {', '.join(WITHOUT)}: {self}.")

    @property
    def allowed(self) -> str:
        """What is allowed besides the type, e.g. ``"1 or more"``; empty: all values of the type."""
        if self.choices:
            return ", ".join(self.choices)
        return str(self._limits)

    @property
    def _limits(self) -> NumberRange:
        return NumberRange(at_least=self.at_least, above=self.above, at_most=self.at_most, below=self.below)

    def check(self, verifier: str, name: str, value: Any) -> Any:
        """Returns a value as it is recorded: a whole number as float where the default is one.

        Args:
            verifier: Whose setting it is.
            name: What it is called.
            value: What was given.

        Raises:
            UserError: It is of another type than the default, none of the choices, or out of range.
        """
        kind = type(self.default)
        if kind in (int, float) and isinstance(value, int) and not isinstance(value, bool):
            if abs(value) > (_LARGEST_INT if kind is int else sys.float_info.max):
                raise UserError(
                    f"Setting {name!r} of verifier {verifier!r} is refused: it has too many digits; it must be "
                    f"{self.allowed or 'a smaller number'}."
                )
            value = kind(value)
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise UserError(
                f"Setting {name!r} of verifier {verifier!r} is {_shown(value)}; it must be of type "
                f"{kind.__name__} (default {self.default!r})."
            )
        if self.choices and value not in self.choices:
            raise UserError(did_you_mean(f"value of {verifier}'s setting {name!r}", value, self.choices))
        if not self._limits.hold(value):
            raise UserError(f"Setting {name!r} of verifier {verifier!r} is {_shown(value)}; it must be {self.allowed}.")
        return value


def resolve(verifier: str, declared: Mapping[str, Setting], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns all settings of a verifier: what was given, and the defaults of the others but for `Setting.later` ones.

    Args:
        verifier: Its name.
        declared: Its settings.
        overrides: Values by name.

    Raises:
        UserError: A name or a value is refused.
    """
    values = {name: setting.default for name, setting in declared.items()}
    for name, value in (overrides or {}).items():
        if name not in declared:
            raise UserError(did_you_mean(f"setting of verifier {verifier!r}", name, declared))
        values[name] = declared[name].check(verifier, name, value)
    return {
        name: value for name, value in values.items() if not (declared[name].later and value == declared[name].default)
    }


def idle(declared: Mapping[str, Setting], values: Mapping[str, Any], kinds: Iterable[str]) -> str:
    """Says which settings were given that do nothing for a question; empty: none.

    >>> settings = {"depth": Setting(default=3, idle=("l2",), help="levels"), "seed": Setting(default=0, help="any")}
    >>> idle(settings, {"depth": 5, "seed": 1}, ["l2"])
    'no effect over l2 balls: depth'
    >>> idle(settings, {"depth": 3, "seed": 1}, ["l2"])
    ''

    Args:
        declared: A verifier's settings.
        values: What they are set to; at its default one counts as not given.
        kinds: Of the question.
    """
    said: list[str] = []
    named: set[str] = set()
    for kind in kinds:
        names = [
            name
            for name, setting in declared.items()
            if name not in named and kind in setting.idle and values.get(name, setting.default) != setting.default
        ]
        named.update(names)
        if names:
            said.append(f"no effect {WITHOUT[kind]}: {', '.join(names)}")
    return "; ".join(said)


def rows(declared: Mapping[str, Setting]) -> Iterable[tuple[str, str, str, str]]:
    """Yields a line of text for each setting: its name, default, what is allowed, and what it means."""
    for name, setting in declared.items():
        default = show_number(setting.default) if isinstance(setting.default, float) else str(setting.default)
        if isinstance(setting.default, bool):
            default = default.lower()
        meaning = setting.help
        if setting.idle:
            meaning += f"; no effect {_listed([WITHOUT[kind] for kind in setting.idle])}"
        yield name, default or '""', setting.allowed or _KINDS[type(setting.default)], meaning


def paragraph(declared: Mapping[str, Setting]) -> str:
    """Returns the section ``Settings:`` of a verifier's docstring."""
    lines = ["Settings:"]
    for name, default, allowed, meaning in rows(declared):
        text = f"{name}: {meaning} (default {default}; {allowed})."
        lines += textwrap.wrap(text, 116, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False)
    return "\n".join(lines)


def _listed(parts: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _shown(value: Any) -> str:
    """Returns a refused value as text; Python writes no whole number of thousands of digits."""
    try:
        return shortened(repr(value), _LONGEST_VALUE)
    except ValueError:
        return "a number of thousands of digits"
