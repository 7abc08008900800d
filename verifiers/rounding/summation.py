"""How far a float32 runtime's outputs may be from the real-valued ones, in whatever order it adds.

A forward error analysis (Higham 2002, sections 3.1 and 4.2) over a box, by intervals. Let a node's sources be computed
as â with |â - a| <= e, and let it add n products and a bias. In any order, with or without fused multiply-adds, the sum
that is computed is within γ_k (|W| |â| + |b|) of W â + b, where k = n + 3 leaves room for a rounded weight of an
average (n + 19 where there is batch normalisation, which stands as z - mean and then a factor and a shift, and which a
runtime may fold into the layer before), and W â + b is within |W| e of the node's value. Subnormal numbers, flushed or
not, cost less than 2**-120 for each term and weight. No partial sum is larger than (1 + γ_k) (|W| |â| + |b|): where
float32 doesn't hold that, a sum may end in infinity, and nothing is said.

It is about sums of products: convolutions by Winograd's method or Fourier transforms, TF32 and float16 are not covered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.checker.bounds import Bounds
from prunecert.verifiers.checker.nodes import Network, Node

_UNIT, _TINY, _LARGEST = 2.0**-24, 2.0**-120, float(np.finfo(np.float32).max)
#: What the float64 arithmetic of this analysis, whose terms are all at least 0, may take off.
_UP = 1 + 1e-9


def output_error(network: Network, lower: npt.NDArray[Any], upper: npt.NDArray[Any]) -> float:
    """Returns a bound on |ŷ - y| of each output over a box.

    Args:
        network: As the checker reads it.
        lower: Lower corner, flat.
        upper: Upper corner.

    Returns:
        At least 0; infinite where nothing can be said.
    """
    bounds = Bounds(network.nodes, lower.astype(np.float64), upper.astype(np.float64))
    errors: list[Any] = [np.zeros(network.nodes[0].size)]
    with np.errstate(all="ignore"):
        # A runtime folds batch normalisation into weights, which rounds each of them some times more.
        more = 19 if any(node.loose and node.terms == Node.terms for node in network.nodes) else 3
        for node in network.nodes[1:]:
            bounds.add()
            sources = [errors[source][None] for source in node.sources]
            if node.relu:
                errors.append(sources[0][0])
                continue
            k = node.terms[0] + more
            if k * _UNIT > 0.5:
                return float("inf")
            gamma = k * _UNIT / (1 - k * _UNIT)
            sizes = [bounds.largest(s)[None] + e for s, e in zip(node.sources, sources, strict=True)]
            ones = [np.ones_like(e) for e in sources]
            moved, products, weights = (node.forward(values, abs)[0] for values in (sources, sizes, ones))
            total = products + abs(node.bias)
            # A runtime may divide the sum of an average at its end.
            if not (_UP * (1 + gamma) * total * (k if node.loose else 1) < _LARGEST).all():
                return float("inf")
            rounding = gamma * total + _TINY * k * (1 + weights)
            errors.append(_UP * (_UP * moved + _UP * rounding))
    worst = float(np.max(errors[network.output], initial=0.0))
    return worst if np.isfinite(worst) else float("inf")
