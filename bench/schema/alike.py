"""What may be asked of two networks: texts of `bench.verify --alike` and of suites, and the outputs they forbid."""

from __future__ import annotations

import math

from prunecert.errors import UserError
from prunecert.numbers import read_number
from prunecert.verifiers.base import OutputSpec

#: What may be asked of a pair, as command lines and suites have it.
ALIKE = (
    "difference:T (no output differs by more than T), class, or class:C (the same class where the first network's is \
ahead by C or more)"
)


def alike_spec(text: str, outputs: int, where: str = "--alike") -> OutputSpec:
    """Returns the unsafe outputs of a pair.

    >>> len(alike_spec("difference:0.1", 10).disjuncts), len(alike_spec("class", 10).disjuncts)
    (20, 90)
    >>> alike_spec("same", 10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    prunecert.errors.UserError: --alike 'same' is refused; allowed are difference:T (no output differs by ...

    Args:
        text: What is asked; see `ALIKE`.
        outputs: Of either network.
        where: What the text is called where it is refused.

    Raises:
        UserError: It is nothing that can be asked, or a number is out of range.
    """
    from prunecert.verifiers.sparse.pairs.specification import difference, same_class

    kind, _, amount = text.partition(":")
    number = read_number(amount) if amount else None
    if amount and number is None:
        number = math.nan
    if kind == "difference" and number is not None and not math.isnan(number):
        if not 0 < number < math.inf:
            raise UserError(f"{where} {text[:60]!r} is refused; T must be a finite number above 0.")
        return difference(number, outputs)
    if kind == "class" and (number is None or not math.isnan(number)) and not text.endswith(":"):
        if number is not None and not 0 <= number < math.inf:
            raise UserError(f"{where} {text[:60]!r} is refused; C must be a finite number of at least 0.")
        return same_class(outputs, number or 0.0)
    raise UserError(f"{where} {text[:60]!r} is refused; allowed are {ALIKE}.")
