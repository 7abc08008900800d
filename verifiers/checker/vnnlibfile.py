"""VNN-LIB 1.0: which outputs are unsafe over which boxes of inputs.

A decimal is the binary64 number nearest to it, as for VNN-COMP's checker; what is computed from these is exact.
"""

import math
import re
from collections import Counter
from fractions import Fraction
from itertools import compress, pairwise, product
from typing import Any, NamedTuple

import numpy as np

from .files import need

#: A comment, a list of words alone, or what else there is.
_TOKEN = re.compile(r";[^\r\n]*|\([^();]*\)|[()]|[^\s();]+")
_NUMBER = re.compile(r"(?a)[+-]?(\d{1,400}\.?\d{0,400}|\.\d{1,400})([eE][+-]?\d{1,9})?")
_VARIABLE = re.compile(r"(?a)[XY]_(0|[1-9]\d{0,8})")
_DEEPEST, _MOST_ATOMS, _MOST_ENTRIES = 64, 2**22, 2**27
_SIGNS = {"<=": 1, "<": 1, ">=": -1, ">": -1}

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


def _expressions(text: str) -> list[Any]:
    """Returns nested lists of words."""
    stack: list[list[Any]] = [[]]
    for word in _TOKEN.findall(text):
        if word == "(":
            stack.append([])
            need(len(stack) < _DEEPEST, "the property's parentheses are nested too deeply")
        elif word == ")":
            stack[-2].append(stack.pop())
        elif word[0] != ";":
            stack[-1].append(word[1:-1].split() if word[0] == "(" else word)
    (whole,) = stack
    return whole


def _term(term: Any) -> dict[str, Any]:
    """Returns the coefficients of a linear term; the constant is that of ""."""
    if isinstance(term, str):
        need(_NUMBER.fullmatch(term) or _VARIABLE.fullmatch(term), f"the property has {term[:40]!r}, which isn't taken")
        return {term: Fraction(1)} if term[0] in "XY" else {"": Fraction(float(term))}
    kind, *parts = term[0], *map(_term, term[1:])
    if kind == "*" and len(parts) == 2:
        factor, other = sorted(parts, key=lambda part: part.keys() != {""})
        need(factor.keys() == {""}, "the property multiplies variables")
        return {name: factor[""] * value for name, value in other.items()}
    need(kind in ("+", "-") and parts, f"the property has {str(term)[:40]}, which isn't taken")
    first, *rest = parts if kind == "+" or len(parts) > 1 else ({}, *parts)
    total = Counter(first)
    for part in rest:
        (total.update if kind == "+" else total.subtract)(part)
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
    factors = _factors(parts)
    return _conjunction(factors) if kind == "and" else [atoms for factor in factors for atoms in factor]


def _factors(formulas: list[Any]) -> list[list[list[Atom]]]:
    """Returns formulas in disjunctive normal form each, of which no more are expanded than memory holds."""
    factors, size = list[list[list[Atom]]](), 0
    for formula in formulas:
        factors.append(_alternatives(formula))
        size += sum(map(len, factors[-1]))
        need(size <= _MOST_ATOMS, "the property has too many alternatives")
    return factors


def _conjunction(factors: list[list[list[Atom]]]) -> list[list[Atom]]:
    """Returns formulas in normal form, all of which hold, as one."""
    size = math.prod(map(len, factors)) * max(1, sum(max(map(len, factor), default=0) for factor in factors))
    need(size <= _MOST_ATOMS, "the property has too many alternatives")
    return [[atom for atoms in choice for atom in atoms] for choice in product(*factors)]


def _rounded(value: Fraction, towards: float) -> float:
    nearest = float(value)
    wrong = nearest < value if towards > 0 else nearest > value
    return math.nextafter(nearest, towards) if wrong else nearest


def _row(atom: Atom, outputs: int) -> Any:
    row = np.zeros(outputs)
    for name, value in atom[0].items():
        row[int(name[2:])] = float(value)
        need(float(value) == value, "the property has a coefficient that float64 doesn't hold")
    return row


def _on(atoms: list[Atom], kind: str) -> list[Atom]:
    return [atom for atom in atoms if {name[0] for name in atom[0]} == {kind}]


def read_property(content: bytes, inputs: int, outputs: int) -> list[Case]:
    """Reads what a network of so many inputs and outputs must not do; alternatives whose box is empty are left out."""
    names, formulas = list[Any](), list[Any]()
    for kind, *rest in _expressions(content.decode()):
        declares = rest[-1] == "Real" and (kind, rest[1:-1]) in (("declare-const", []), ("declare-fun", [[]]))
        need(declares or (kind == "assert" and len(rest) == 1), f"the property has a command {kind} that isn't taken")
        (names if declares else formulas).append(rest[0])
    expected = [f"X_{i}" for i in range(inputs)] + [f"Y_{i}" for i in range(outputs)]
    need(sorted(names) == sorted(expected), f"the property doesn't declare {inputs} inputs and {outputs} outputs")
    factors = _factors(formulas)
    # What is asserted of inputs alone, without alternatives, is shared by all of these.
    alone = [len(factor) == 1 and len(_on(factor[0], "X")) == len(factor[0]) for factor in factors]
    shared = [atom for factor in compress(factors, alone) for atom in factor[0]]
    cases: dict[Any, tuple[list[Atom], list[list[Atom]]]] = {}
    for atoms in _conjunction([factor for factor, own in zip(factors, alone, strict=True) if not own]):
        # Alternatives that share their constraints on inputs, as objects, share a box.
        boxed = _on(atoms, "X")
        cases.setdefault(tuple(map(id, boxed)), (boxed, []))[1].append(atoms)
    return [case for own in cases.values() for case in _case(shared, *own, inputs, outputs)]


def _case(shared: list[Atom], boxed: list[Atom], alternatives: list[Any], inputs: int, outputs: int) -> list[Case]:
    """Returns the case of alternatives whose constraints on inputs are the same; none if no input meets them."""
    unsafe = [_on(atoms, "Y") for atoms in alternatives]
    plain = all(len(boxed) + len(own) == len(atoms) for own, atoms in zip(unsafe, alternatives, strict=True))
    plain = plain and all(len(atom[0]) == 1 for atom in shared + boxed)
    need(plain, "the property has a constraint not on one input, or on outputs")
    low, high = list[Any]([-math.inf] * inputs), list[Any]([math.inf] * inputs)
    for coefficients, limit, _ in shared + boxed:
        ((name, factor),) = coefficients.items()
        side, tighter = (high, min) if factor > 0 else (low, max)
        side[int(name[2:])] = tighter(side[int(name[2:])], limit / factor)
    need(-math.inf not in low and math.inf not in high, "the property leaves an input without a bound")
    if any(a > b for a, b in zip(low, high, strict=True)):
        return []
    rows = [atom for own in unsafe for atom in own]
    need(len(rows) * outputs <= _MOST_ENTRIES, "the property has too many constraints on outputs")
    matrix, limits = np.stack([_row(atom, outputs) for atom in rows]), [_rounded(atom[1], math.inf) for atom in rows]
    lower, upper = ([_rounded(value, to) for value in side] for side, to in ((low, -math.inf), (high, math.inf)))
    spans = list(pairwise(np.cumsum([0, *map(len, unsafe)]).tolist()))
    return [Case(np.array(lower), np.array(upper), matrix, np.array(limits), spans, alternatives, shared)]
