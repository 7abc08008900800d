"""VNN-LIB 1.0: which outputs are unsafe over which boxes of inputs.

A decimal is the binary64 number nearest to it, as for VNN-COMP's checker; what is computed from these is exact.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

from .files import need

#: A comment, a list of words alone, or what else there is.
_TOKEN = re.compile(r";[^\n]*|\([^();]*\)|[()]|[^\s();]+")
_NUMBER = re.compile(r"[+-]?(\d{1,400}\.?\d{0,400}|\.\d{1,400})([eE][+-]?\d{1,9})?")
_VARIABLE = re.compile(r"[XY]_(0|[1-9]\d{0,8})")
_DEEPEST, _MOST_ATOMS, _SIGNS = 64, 2**22, {"<=": 1, "<": 1, ">=": -1, ">": -1}

#: A constraint: sum of coefficients times variables <= (if strict: <) a limit. Python compares floats and fractions as
#: the numbers that they are.
Atom = tuple[dict[str, Any], Any, bool]


class Case(NamedTuple):
    """A box and what is unsafe over it: outputs y with rows y <= limits for all rows of one span.

    Args:
        lower: Float64, rounded down.
        upper: Rounded up.
        rows: [R, outputs], exact.
        limits: [R], rounded up.
        spans: First and last row of each alternative.
        alternatives: Constraints of each, inputs' and outputs', exact, but for
        shared: Constraints on inputs that all have, exact.
    """

    lower: Any
    upper: Any
    rows: Any
    limits: Any
    spans: list[tuple[int, int]]
    alternatives: list[list[Atom]]
    shared: list[Atom]


def _statements(text: str) -> list[Any]:
    stack: list[list[Any]] = [[]]
    for word in _TOKEN.findall(text):
        if word == "(":
            stack.append([])
        elif word == ")":
            stack[-2].append(stack.pop())
        elif word[0] != ";":
            stack[-1].append(word[1:-1].split() if word[0] == "(" else word)
        need(0 < len(stack) < _DEEPEST, "the property's parentheses are nested too deeply")
    (whole,) = stack
    return whole


def _term(term: Any) -> dict[str, Fraction]:
    """Returns the coefficients of a linear term; the constant is that of ""."""
    if isinstance(term, str):
        need(_NUMBER.fullmatch(term) or _VARIABLE.fullmatch(term), f"the property has {term[:40]!r}, which isn't taken")
        return {term: Fraction(1)} if term[0] in "XY" else {"": Fraction(float(term))}
    parts, total = [_term(part) for part in term[1:]], dict[str, Fraction]()
    if term[0] == "*" and len(parts) == 2 and min(map(len, parts)) == 1 and "" in (*parts[0], *parts[1]):
        factor, other = parts if list(parts[0]) == [""] else parts[::-1]
        need(list(factor) == [""], "the property multiplies variables")
        return {name: factor[""] * value for name, value in other.items()}
    need(term[0] in ("+", "-") and parts, f"the property has {str(term)[:40]}, which isn't taken")
    for at, part in enumerate(parts):
        for name, value in part.items():
            minus = term[0] == "-" and (at > 0 or len(parts) == 1)
            total[name] = total.get(name, Fraction()) + (-value if minus else value)
    return total


def _alternatives(formula: Any) -> list[list[Atom]]:
    """Returns a formula in disjunctive normal form."""
    kind, *parts = formula
    if kind in _SIGNS:
        need(len(parts) == 2, "the property compares more than two terms")
        (left, right), sign = parts, _SIGNS[kind]
        if isinstance(left, str) and isinstance(right, str) and _VARIABLE.fullmatch(left) and _NUMBER.fullmatch(right):
            # Most of a file is of this form; what follows says the same, more slowly.
            need(abs(most := sign * float(right)) < math.inf, "the property has a number that float64 doesn't hold")
            return [[({left: sign}, most, len(kind) == 1)]]
        total = _term(["-", *parts[::sign]])
        limit = -total.pop("", Fraction())
        return [[({name: value for name, value in total.items() if value}, limit, len(kind) == 1)]]
    need(kind in ("and", "or"), f"the property has {str(formula)[:40]}, which isn't taken")
    factors = [_alternatives(part) for part in parts]
    if kind == "or":
        return [atoms for factor in factors for atoms in factor]
    size = math.prod(map(len, factors)) * max(1, sum(max(map(len, factor), default=0) for factor in factors))
    need(size <= _MOST_ATOMS, "the property has too many alternatives")
    return [[atom for atoms in choice for atom in atoms] for choice in product(*factors)]


def _rounded(value: Any, up: bool) -> float:
    nearest = float(value)
    if nearest == value or (nearest > value) == up:
        return nearest
    return math.nextafter(nearest, math.inf if up else -math.inf)


def _row(atom: Atom, outputs: int) -> Any:
    row = np.zeros(outputs)
    for name, value in atom[0].items():
        row[int(name[2:])] = float(value)
        need(float(value) == value, "the property has a coefficient that float64 doesn't hold")
    return row


def read_property(content: bytes, inputs: int, outputs: int) -> list[Case]:
    """Reads what a network of so many inputs and outputs must not do; alternatives whose box is empty are left out."""
    names, formulas = list[Any](), list[Any]()
    for kind, *rest in _statements(content.decode()):
        declares = rest[-1] == "Real" and (kind, rest[1:-1]) in (("declare-const", []), ("declare-fun", [[]]))
        need(declares or (kind == "assert" and len(rest) == 1), f"the property has a command {kind} that isn't taken")
        (names if declares else formulas).append(rest[0])
    expected = [f"X_{i}" for i in range(inputs)] + [f"Y_{i}" for i in range(outputs)]
    need(sorted(names) == sorted(expected), f"the property doesn't declare {inputs} inputs and {outputs} outputs")
    cases: dict[Any, tuple[list[Atom], list[tuple[list[Atom], list[Atom]]]]] = {}
    # What all alternatives share because it is asserted by itself: each is on one input.
    atomic = [(id(formula), _alternatives(formula)[0][0]) for formula in formulas if formula[0] in _SIGNS]
    shared = {place: atom for place, atom in atomic if len(atom[0]) == 1 and min(atom[0])[0] == "X"}
    for atoms in _alternatives(["and", *(formula for formula in formulas if id(formula) not in shared)]):
        boxed = [atom for atom in atoms if len(atom[0]) == 1 and next(iter(atom[0]))[0] == "X"]
        unsafe = [atom for atom in atoms if {name[0] for name in atom[0]} == {"Y"}]
        need(len(boxed) + len(unsafe) == len(atoms), "the property has a constraint not on one input, or on outputs")
        # Alternatives that share their constraints on inputs, as objects, share a box.
        cases.setdefault(tuple(map(id, boxed)), (boxed, []))[1].append((unsafe, atoms))
    return [case for own in cases.values() for case in _case(list(shared.values()), *own, inputs, outputs)]


def _case(shared: list[Atom], boxed: list[Atom], rest: list[Any], inputs: int, outputs: int) -> list[Case]:
    low, high = list[Any]([None] * inputs), list[Any]([None] * inputs)
    for coefficients, limit, _ in shared + boxed:
        ((name, factor),) = coefficients.items()
        at, value, side = int(name[2:]), limit / factor, high if factor.numerator > 0 else low
        side[at] = value if side[at] is None else min(side[at], value) if side is high else max(side[at], value)
    need(None not in low and None not in high, "the property leaves an input without a bound")
    if any(a > b for a, b in zip(low, high, strict=True)):
        return []
    rows = [atom for unsafe, _ in rest for atom in unsafe]
    ends = np.cumsum([0, *(len(unsafe) for unsafe, _ in rest)]).tolist()
    matrix, limits = np.stack([_row(atom, outputs) for atom in rows]), [_rounded(limit, True) for _, limit, _ in rows]
    lower, upper = (np.array([_rounded(value, up) for value in side]) for side, up in ((low, False), (high, True)))
    return [Case(lower, upper, matrix, np.array(limits), list(pairwise(ends)), [atoms for _, atoms in rest], shared)]
