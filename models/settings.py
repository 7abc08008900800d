"""What the settings of objectives, add-ons and pruners may be: said once, in the annotation of the keyword.

    def loss(model, x, y, eps, *, progress=1.0, alpha: Share = 0.01, steps: Count = 8, best: Switch = 0): ...

A recipe's settings are checked against that before anything is loaded or trained. `Annotated` with `NumberRange` or
`Choices` says what the names below don't; a keyword with a plain type takes every finite number, or text, of it.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from prunecert.errors import UserError, did_you_mean
from prunecert.printable import shortened
from prunecert.ranges import NumberRange, show_number

_Function = TypeVar("_Function", bound=Callable[..., Any])
_MOST, _MOST_COUNT = 10**6, 10**9
_LONGEST_VALUE = 100
_NONE = NumberRange()
_KINDS: Mapping[type, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


class Choices:
    """The values that a setting may have, where they are few.

    Args:
        values: Which.
    """

    def __init__(self, *values: str | int) -> None:
        self.values = values


#: A share of something, or a weight that takes its complement from another.
Share = Annotated[float, NumberRange(at_least=0, at_most=1)]
#: A share that is neither nothing nor all.
ProperShare = Annotated[float, NumberRange(above=0, below=1)]
#: A share that isn't nothing.
PositiveShare = Annotated[float, NumberRange(above=0, at_most=1)]
#: What a term of a loss is multiplied by, a learning rate over another, and the like; 0 switches it off.
Weight = Annotated[float, NumberRange(at_least=0, at_most=_MOST)]
#: A learning rate, a size, a factor that can't be 0.
Positive = Annotated[float, NumberRange(above=0, at_most=_MOST)]
#: How many, from 1 on.
Count = Annotated[int, NumberRange(at_least=1, at_most=_MOST_COUNT)]
#: How many, which may be none.
CountFromZero = Annotated[int, NumberRange(at_least=0, at_most=_MOST_COUNT)]
#: 1 for yes and 0 for no.
Switch = Annotated[int, Choices(0, 1)]


@dataclass(frozen=True)
class RecipeSetting:
    """A setting, as it is declared.

    >>> steps = RecipeSetting("steps", int, 8, NumberRange(at_least=1))
    >>> steps.allowed, steps.why_refused(8), steps.why_refused(1.5)
    ('a whole number, 1 or more', '', 'it must be a whole number, 1 or more.')

    Args:
        name: Its name.
        kind: The type of its values: str, bool, int or float, for which whole numbers count, too.
        default: What it is where nothing is said; `inspect.Parameter.empty` where something must be.
        limits: What a number must keep.
        choices: All values; empty: any within the limits.
    """

    name: str
    kind: type
    default: Any
    limits: NumberRange = _NONE
    choices: tuple[str | int, ...] = ()

    @property
    def allowed(self) -> str:
        """What it must be, in words."""
        if self.choices:
            *others, last = map(str, self.choices)
            return f"{', '.join(others)} or {last}" if others else last
        kind, limits = _KINDS[self.kind], str(self.limits)
        return f"{kind}{' ' if limits.startswith(('from', 'above', 'below', 'within')) else ', '}{limits}".rstrip(", ")

    def why_refused(self, value: object) -> str:
        """Returns why a value is refused, as the end of a sentence; nothing if it is allowed."""
        fits = isinstance(value, (int, float) if self.kind is float else self.kind)
        if not fits or isinstance(value, bool) != (self.kind is bool):
            return f"it must be {self.allowed}."
        if self.choices:
            return "" if value in self.choices else f"it must be {self.allowed}."
        if isinstance(value, str | bool):
            return ""
        assert isinstance(value, int | float)
        # A whole number of thousands of digits is too large for a float, and isn't infinite.
        finite = abs(value) <= sys.float_info.max if isinstance(value, int) else math.isfinite(value)
        return "" if finite and self.limits.hold(value) else f"it must be {self.allowed}."

    def refuse(self, value: object, where: str, of: str) -> None:
        """Refuses a value that isn't allowed.

        Args:
            value: What is to be set.
            where: Where that stands, as messages begin; nothing: in a call.
            of: Whose setting it is; nothing: a key of its own.

        Raises:
            UserError: It is refused.
        """
        why = self.why_refused(value)
        if not why:
            return
        if self.choices and self.kind is str:
            name = value if isinstance(value, str) else show_value(value)
            sentence = did_you_mean(f"{self.name} of {of}" if of else self.name, name, map(str, self.choices))
            raise UserError(f"{where}: {sentence}" if where else sentence)
        if not where:
            shown = show_number(value) if isinstance(value, float) else show_value(value)
            raise UserError(f"{self.name} {shown} is refused: {why}")
        raise UserError(f"{where}{'.' if of else ': '}{self.name} is {show_value(value)}; {why}")


def show_value(value: object) -> str:
    """Returns a refused value as text; Python writes no whole number of thousands of digits."""
    try:
        return shortened(repr(value), _LONGEST_VALUE)
    except ValueError:
        return "a number of thousands of digits"


def setting(name: str, annotation: Any, default: Any) -> RecipeSetting:
    """Returns a setting as it is annotated.

    >>> setting("share", Share, 0.5).allowed, setting("mode", Literal["a", "b"], "a").allowed
    ('a number from 0 to 1', 'a or b')

    Args:
        name: Its name.
        annotation: Of its keyword: a type, `Annotated` or not, or `Literal`; anything else, or nothing, is as the
            default's type, and then all numbers are alike.
        default: Its default.
    """
    base, *more = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    choices = next((one.values for one in more if isinstance(one, Choices)), ())
    if get_origin(base) is Literal:
        choices = get_args(base)
        base = type(choices[0])
    if base not in _KINDS:
        base = type(default) if isinstance(default, str | bool) else float
    limits = next((one for one in more if isinstance(one, NumberRange)), _NONE)
    return RecipeSetting(name, base, default, limits, tuple(choices))


def settings_of(function: Callable[..., Any], reserved: Collection[str]) -> dict[str, RecipeSetting]:
    """Returns what can be set of an objective, an add-on or a pruner, by name.

    Args:
        function: The objective, add-on or pruner.
        reserved: Keywords that whoever calls it gives.
    """
    parameters = inspect.signature(function).parameters
    return {
        name: setting(name, _annotation(function, parameter), parameter.default)
        for name, parameter in parameters.items()
        if name not in reserved
    }


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Returns a parameter's annotation; what can't be looked up in its module is left as the text that it is."""
    while isinstance(function, functools.partial):
        function = function.func
    names = getattr(inspect.unwrap(function), "__globals__", {})
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return get_type_hints(holder, names, include_extras=True)[parameter.name]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return parameter.annotation


def check_settings(
    values: object, function: Callable[..., Any], reserved: Collection[str], of: str, where: str
) -> None:
    """Checks settings against what is declared: each exists, and its value is allowed.

    Args:
        values: The settings, a mapping.
        function: What they are for.
        reserved: Its keywords that are no settings.
        of: What it is, e.g. ``objective 'ibp'``.
        where: How messages call the place.

    Raises:
        UserError: One doesn't, or isn't.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {show_value(values)}; it must be a mapping of settings.")
    declared = settings_of(function, reserved)
    for name, value in values.items():
        if name not in declared:
            raise UserError(f"{where}: " + did_you_mean(f"setting of {of}", str(name), declared))
        declared[name].refuse(value, where, of)


def checked(function: _Function, reserved: Collection[str]) -> _Function:
    """Returns a function that checks its settings when it is called, so that its body need not.

    Args:
        function: What has them, by keyword.
        reserved: Its keywords that are no settings.
    """
    declared: dict[str, RecipeSetting] = {}

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        if not declared:
            declared.update(settings_of(function, reserved))
        for name, value in keywords.items():
            if name in declared:
                declared[name].refuse(value, "", "")
        return function(*args, **keywords)

    wrapped: Any = call
    return wrapped  # type: ignore[no-any-return]
