"""From formulas to boxes with unsafe outputs: disjunctive normal form, exact bounds, rows in binary64.

Two sets are kept of each case. The *outer* one is closed, contains the file's, and is what a proof is about: strict
inequalities count as weak ones, and what binary64 can't hold is rounded outwards. The *inner* one is contained in the
file's, and is where a counterexample has to lie: strict inequalities stay strict, rounding goes inwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.formats.vnnlib_formulas import Atom, Formula, Junction, Negation, Step, complete
from prunecert.verifiers.formats.vnnlib_text import UnsupportedPropertyError

DoubleArray: TypeAlias = npt.NDArray[np.float64]
#: An AND of atoms.
Clause: TypeAlias = tuple[Atom, ...]

#: More AND-clauses than this after multiplying out are refused: the largest VNN-COMP files have some thousands.
MAX_CLAUSES = 100_000
#: Atoms of all clauses together.
MAX_ATOMS = 5_000_000
#: Numbers in the corners of all boxes, and in all constraint matrices, together.
MAX_CELLS = 50_000_000

#: Rows whose largest coefficient is outside of these are scaled, so that products with outputs stay in range.
_SMALL, _LARGE = Fraction(1, 2**100), Fraction(2**100)


def clauses(formulas: list[Formula], name: str) -> tuple[list[Atom], list[Clause]]:
    """Returns the disjunctive normal form of an AND of formulas.

    Returns:
        Atoms that belong to every clause, and the clauses without them.

    Raises:
        UnsupportedPropertyError: It is too large.
    """
    form = _NormalForm(name)
    # Formulas with one clause go first, so that multiplying out touches them once.
    forms = sorted((complete(form.of(formula, True)) for formula in formulas), key=len)
    product: list[Clause] = [()]
    common: list[Atom] = []
    for alternatives in forms:
        if len(alternatives) == 1:
            common += alternatives[0]
        else:
            product = form.multiplied(product, alternatives)
    return common, product


class _NormalForm:
    """Multiplies ANDs and ORs out; what a formula uses twice is multiplied out once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._known: dict[tuple[int, bool], list[Clause]] = {}

    def of(self, formula: Formula, positive: bool) -> Step:
        """Calculates the clauses of a formula, or of its negation."""
        if isinstance(formula, bool):
            return [()] if formula is positive else []
        if isinstance(formula, Atom):
            return [(formula if positive else formula.negated(),)]
        key = (id(formula), positive)
        if key not in self._known:
            if isinstance(formula, Negation):
                self._known[key] = yield self.of(formula.part, not positive)
            else:
                parts = []
                for part in formula.parts:
                    parts.append((yield self.of(part, positive)))
                self._known[key] = self._joined(parts, formula, positive)
        return self._known[key]

    def _joined(self, parts: list[list[Clause]], formula: Junction, positive: bool) -> list[Clause]:
        if formula.all_of is positive:
            product: list[Clause] = [()]
            for part in parts:
                product = self.multiplied(product, part)
            return product
        self.check(sum(map(len, parts)), 0)
        return [clause for part in parts for clause in part]

    def multiplied(self, left: list[Clause], right: list[Clause]) -> list[Clause]:
        """Returns the clauses of an AND."""
        atoms = len(right) * sum(map(len, left)) + len(left) * sum(map(len, right))
        self.check(len(left) * len(right), atoms)
        return [a + b for a in left for b in right]

    def check(self, count: int, atoms: int) -> None:
        """Refuses what would fill the memory."""
        if count > MAX_CLAUSES or atoms > MAX_ATOMS:
            limit = f"{MAX_CLAUSES} clauses" if count > MAX_CLAUSES else f"{MAX_ATOMS} comparisons"
            raise UnsupportedPropertyError(
                f"{self._name} has over {limit} once its ANDs and ORs are multiplied out; split the file."
            )


def rounded(value: Fraction, name: str, *, up: bool) -> float:
    """Rounds to binary64 in the direction asked for.

    Raises:
        UserError: It is too large.
    """
    try:
        near = float(value)
    except OverflowError:
        raise UserError(f"{name} has a constant that is too large for binary64.") from None
    if (Fraction(near) < value) if up else (Fraction(near) > value):
        near = math.nextafter(near, math.inf if up else -math.inf)
    if not math.isfinite(near):
        raise UserError(f"{name} has a constant that is too large for binary64.")
    return near


@dataclass
class Box:
    """A box of inputs, each bound exact.

    Args:
        name: What to call the file in messages.
        lower: Lower corner, rounded downwards; shape [inputs], -inf where there is none.
        upper: Upper corner, rounded upwards.
        inner_lower: Least numbers of binary64 above the lower bounds; `lower` itself where both are the same.
        inner_upper: Largest numbers of binary64 below the upper bounds.
        exact: By (index, whether it is the upper bound): the bound and whether it is strict, where it isn't the plain
            number in the corner.
    """

    name: str
    lower: DoubleArray
    upper: DoubleArray
    inner_lower: DoubleArray
    inner_upper: DoubleArray
    exact: dict[tuple[int, bool], tuple[Fraction, bool]] = field(default_factory=dict)

    def tightened(self, atoms: list[Atom]) -> Box:
        """Returns the part of the box where the atoms about inputs hold."""
        if not atoms:
            return self
        box = Box(
            self.name,
            self.lower.copy(),
            self.upper.copy(),
            self.inner_lower.copy(),
            self.inner_upper.copy(),
            dict(self.exact),
        )
        for atom in atoms:
            ((index, scale),) = atom.terms
            box._bound(index, scale > 0, atom.limit / scale, atom.strict)
        return box

    def _bound(self, index: int, is_upper: bool, value: Fraction, strict: bool) -> None:
        current = self._current(index, is_upper)
        sign = 1 if is_upper else -1
        if current is not None and (sign * current[0], not current[1]) <= (sign * value, not strict):
            return
        outer, inner = (self.upper, self.inner_upper) if is_upper else (self.lower, self.inner_lower)
        outer[index] = rounded(value, self.name, up=is_upper)
        inside = rounded(value, self.name, up=not is_upper)
        if strict and inside == value:
            inside = math.nextafter(inside, -math.inf if is_upper else math.inf)
        inner[index] = inside
        self.exact[index, is_upper] = (value, strict)

    def _current(self, index: int, is_upper: bool) -> tuple[Fraction, bool] | None:
        if (index, is_upper) in self.exact:
            return self.exact[index, is_upper]
        value = float((self.upper if is_upper else self.lower)[index])
        return (Fraction(value), False) if math.isfinite(value) else None

    def gap(self) -> int | None:
        """Returns the index of an input for which no value is left; None if there is none."""
        crossed = self.lower > self.upper
        if crossed.any():
            return int(np.argmax(crossed))
        for index, _ in self.exact:
            low, high = self._current(index, False), self._current(index, True)
            if low and high and (low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1]))):
                return index
        return None

    def unbounded(self) -> int | None:
        """Returns the index of an input that lacks a bound; None if there is none."""
        missing = ~(np.isfinite(self.lower) & np.isfinite(self.upper))
        return int(np.argmax(missing)) if missing.any() else None

    def key(self) -> tuple[bytes, ...]:
        """Tells boxes apart."""
        return tuple(a.tobytes() for a in (self.lower, self.upper, self.inner_lower, self.inner_upper))


def specification(groups: list[list[Atom]], outputs: int, name: str) -> OutputSpec:
    """Makes the constraint matrices of clauses' atoms about outputs.

    A clause without any is one that every output meets; it becomes a row of zeros, which any verifier can take.

    Raises:
        UnsupportedPropertyError: Coefficients can't be held in binary64.
    """
    if not all(groups):
        return OutputSpec(((np.zeros((1, outputs)), np.zeros(1)),))
    pairs, limits = [], []
    for atoms in groups:
        a, b, limit = np.zeros((len(atoms), outputs)), np.zeros(len(atoms)), np.zeros(len(atoms))
        for i, atom in enumerate(atoms):
            terms, bound = _in_range(atom, name)
            for j, c in terms:
                a[i, j] = float(c)
            b[i] = rounded(bound, name, up=True)
            limit[i] = rounded(bound, name, up=False)
            if atom.strict and limit[i] == bound:
                limit[i] = math.nextafter(limit[i], -math.inf)
        pairs.append((a, b))
        limits.append(limit)
    same = all(np.array_equal(b, limit) for (_, b), limit in zip(pairs, limits, strict=True))
    return OutputSpec(tuple(pairs), () if same else tuple(limits))


def _in_range(atom: Atom, name: str) -> tuple[tuple[tuple[int, Fraction], ...], Fraction]:
    """Multiplies a row by a positive number, if need be, so that binary64 holds its coefficients exactly."""
    largest = max(abs(c) for _, c in atom.terms)
    if _SMALL <= largest <= _LARGE and all(_held(c) for _, c in atom.terms):
        return atom.terms, atom.limit
    common = Fraction(
        math.lcm(*(c.denominator for _, c in atom.terms)), math.gcd(*(c.numerator for _, c in atom.terms))
    )
    largest *= common
    # By a power of two to between 1/2 and 2: coprime whole numbers may be large all the same.
    common *= Fraction(2) ** (largest.denominator.bit_length() - largest.numerator.bit_length())
    if len(atom.terms) == 1:
        common = 1 / abs(atom.terms[0][1])
    terms = tuple((i, c * common) for i, c in atom.terms)
    if not all(_held(c) for _, c in terms):
        raise UnsupportedPropertyError(
            f"{name} has a linear constraint on outputs whose coefficients binary64 can't hold exactly; write each "
            "coefficient as one decimal."
        )
    return terms, atom.limit * common


def _held(value: Fraction) -> bool:
    """Whether a coefficient is a number of binary64."""
    try:
        return Fraction(float(value)) == value
    except OverflowError:
        return False
