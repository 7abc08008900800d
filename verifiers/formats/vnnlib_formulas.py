"""The values that expressions of VNN-LIB have: exact linear terms, and formulas as atoms joined by AND, OR and NOT."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from prunecert.errors import UserError
from prunecert.verifiers.formats.vnnlib_text import shown

#: Of one number.
MAX_DIGITS = 5_000

#: A decimal, as VNN-LIB and people write it.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

#: Letter (``"X"`` or ``"Y"``) and index of a declared variable.
Variable: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class LinearTerm:
    """A linear term: sum of coefficients times variables, plus a constant."""

    coefficients: Mapping[Variable, Fraction]
    constant: Fraction


@dataclass(frozen=True, slots=True, eq=False)
class Atom:
    """``sum of coefficients times variables <= limit``, or ``<`` if it is strict; variables are all X or all Y."""

    letter: str
    terms: tuple[tuple[int, Fraction], ...]
    limit: Fraction
    strict: bool

    def negated(self) -> Atom:
        """Returns the atom that holds just where this one doesn't."""
        return Atom(self.letter, tuple((i, -c) for i, c in self.terms), -self.limit, not self.strict)


@dataclass(frozen=True, slots=True, eq=False)
class Junction:
    """An AND or an OR of formulas."""

    all_of: bool
    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Negation:
    """A formula that holds where another one doesn't."""

    part: Formula


Formula: TypeAlias = bool | Atom | Junction | Negation
Value: TypeAlias = LinearTerm | Formula
#: A step of a calculation: yields what it waits for, gets its value sent, returns its own.
Step: TypeAlias = Generator[Any, Any, Any]


def complete(start: Step) -> Any:
    """Runs a calculation whose steps wait for one another, on a stack of its own."""
    stack, value = [start], None
    while stack:
        try:
            waited_for = stack[-1].send(value)
        except StopIteration as ended:
            stack.pop()
            value = ended.value
        else:
            stack.append(waited_for)
            value = None
    return value


def number(token: str, name: str) -> float | None:
    """Returns the binary64 number nearest to a decimal; None if the token is no number.

    Raises:
        UserError: It is too large for binary64, or so small that binary64 has only 0 for it.
    """
    if not NUMBER.fullmatch(token):
        return None
    if len(token) > MAX_DIGITS:
        raise UserError(f"{name} has a number of {len(token)} characters; allowed are up to {MAX_DIGITS}.")
    value = float(token)
    if math.isfinite(value) and (value != 0.0 or not re.search("[1-9]", token.lower().partition("e")[0])):
        return value
    raise UserError(f"{name} has the number {shown(token)}, which is too {'large' if value else 'small'} for binary64.")


def varies(term: LinearTerm) -> bool:
    """Whether a term has a variable."""
    return any(term.coefficients.values())


def all_of(parts: Sequence[Formula]) -> Formula:
    """Returns the AND of formulas."""
    return parts[0] if len(parts) == 1 else Junction(True, tuple(parts))


def any_of(parts: Sequence[Formula]) -> Formula:
    """Returns the OR of formulas."""
    return parts[0] if len(parts) == 1 else Junction(False, tuple(parts))


def negation(part: Formula) -> Formula:
    """Returns the formula that holds where another one doesn't."""
    return part.part if isinstance(part, Negation) else Negation(part)
