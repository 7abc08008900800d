"""A counterexample, evaluated as real numbers: by intervals, and exactly where these leave it open."""

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
    for _ in network.nodes[1:]:
        bounds.add()
    return tuple([Fraction(v) for v in ends[network.output].tolist()] for ends in (bounds.lower, bounds.upper))


def _exactly(network: Network, x: Any) -> tuple[list[Fraction], ...] | None:
    """Returns the outputs, or None if a weight isn't the file's.

    A float32 number is an integer times 2**-149, and the value of node k one times 2**(-149 (k + 1)).
    """
    whole, one = np.frompyfunc(lambda value: int(value * 2.0**149), 1, 1), 2**149
    values = [whole(x.astype(np.float64))]
    for at, node in enumerate(network.nodes[1:]):
        inputs = [(values[source] * one ** (at - source))[None] for source in node.sources]
        if node.loose:
            return None
        out = np.maximum(inputs[0], 0) * one if node.relu else node.forward(inputs, whole)
        values.append(out[0] + whole(node.bias) * one ** (at + 1))
    return ([Fraction(int(number), one ** (network.output + 1)) for number in values[network.output]],) * 2
