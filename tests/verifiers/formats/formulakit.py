"""What a formula says at a point, in rationals and by nothing of the reader's own."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from prunecert.verifiers.formats.vnnlib_formulas import Atom, Formula, Junction, Negation


def holds(formula: Formula, point: Sequence[Fraction]) -> bool:
    """Returns whether a formula is true at a point, whose coordinates its variables index."""
    match formula:
        case bool():
            return formula
        case Atom(terms=terms, limit=limit, strict=strict):
            value = sum((c * point[i] for i, c in terms), Fraction(0))
            return value < limit if strict else value <= limit
        case Negation(part=part):
            return not holds(part, point)
        case Junction(all_of=both, parts=parts):
            return (all if both else any)(holds(part, point) for part in parts)
