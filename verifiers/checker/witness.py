"""A counterexample, evaluated as real numbers: by intervals, and exactly where these leave it open."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from .bounds import Bounds
from .files import RefusedError, need
from .nodes import Network
from .vnnlibfile import Atom, Case


def evaluated(network: Network, cases: list[Case], x: Any) -> str:
    """Returns how it was shown that an input lies in a box, and that the network's value there is unsafe.

    Raises:
        RefusedError: It isn't.
    """
    need(np.isfinite(x).all(), "the certificate has a witness that is not finite")
    for how, evaluate in (("by intervals", _enclosed), ("exactly", _exactly)):
        ends = evaluate(network, x)
        for case in cases if ends is not None else ():
            if _met(case.shared, x, ends) and any(_met(atoms, x, ends) for atoms in case.alternatives):
                return how
    raise RefusedError("the witness isn't shown to be unsafe in real arithmetic")


def _met(atoms: list[Atom], x: Any, ends: Any) -> bool:
    """Whether constraints are met by an input and by all outputs between two ends."""
    for coefficients, limit, strict in atoms:
        most = Fraction()
        for name, factor in coefficients.items():
            at = int(name[2:])
            most += factor * (Fraction(float(x[at])) if name[0] == "X" else ends[factor > 0][at])
        if most > limit or (strict and most == limit):
            return False
    return True


def _enclosed(network: Network, x: Any) -> tuple[list[Fraction], ...]:
    """Returns lower and upper ends of the outputs by intervals."""
    bounds = Bounds(network.nodes, x.astype(np.float64), x.astype(np.float64))
    for at in range(1, len(network.nodes)):
        bounds.open(at)
        bounds.close(at, False)
    return tuple([Fraction(v) for v in ends[network.output].tolist()] for ends in (bounds.lower, bounds.upper))


def _exactly(network: Network, x: Any) -> tuple[list[Fraction], ...] | None:
    """Returns the outputs; all numbers are integers times a power of 1/2. None if a weight isn't the file's.

    A float32 number is an integer times 2**-149; a layer's output has its weights' factor and its inputs'.
    """
    whole = np.frompyfunc(lambda value: int(value * 2.0**149), 1, 1)
    values = [(whole(x.astype(np.float64)), 149)]
    for node in network.nodes[1:]:
        most = max(values[source][1] for source in node.sources)
        inputs = [values[source][0] * 2 ** (most - values[source][1]) for source in node.sources]
        if node.relu:
            values.append((np.maximum(inputs[0], 0), most))
        elif node.loose:
            return None
        else:
            out = node.forward([value[None] for value in inputs], whole)[0] + whole(node.bias) * 2**most
            values.append((out, most + 149))
    numbers, shift = values[network.output]
    return ([Fraction(int(number), 2**shift) for number in numbers],) * 2
