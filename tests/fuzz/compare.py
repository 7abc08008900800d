"""Compares what the reader makes of a file with what the file says, point by point."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.formats.vnnlib import Property
from tests.fuzz.oracle import NotUnderstoodError, Oracle

_Point: TypeAlias = npt.NDArray[np.float64]


def difference(text: str, spec: Property, draw: random.Random, tries: int = 40) -> str | None:
    """Says at which point the reader's sets and the file differ; None if at none that was tried.

    A counterexample by the reader has to be one by the file, and the other way round; and one by the file has to lie in
    the closed sets that proofs are about.

    Args:
        text: The file's text.
        spec: What the reader made of it.
        draw: Chooses the points.
        tries: Number of points.

    Raises:
        NotUnderstoodError: The file's meaning isn't clear to the oracle.
    """
    oracle = Oracle(text)
    if (oracle.count("X"), oracle.count("Y")) != (spec.inputs, spec.outputs):
        return f"{spec.inputs} inputs and {spec.outputs} outputs"
    for x, y in _points(text, spec, draw, tries):
        expected = oracle.holds(x.tolist(), y.tolist())
        inner = any(case.contains(x) and case.spec.violated_by(y) for case in spec.cases)
        outer = any(
            bool(np.all((case.lower <= x) & (x <= case.upper))) and OutputSpec(case.spec.disjuncts).violated_by(y)
            for case in spec.cases
        )
        if inner != expected or (expected and not outer):
            return f"x {x.tolist()}, y {y.tolist()}: the file says {expected}, the reader {inner}, proofs {outer}"
    return None


def _points(text: str, spec: Property, draw: random.Random, tries: int) -> Iterator[tuple[_Point, _Point]]:
    """Yields points on a grid of small numbers and of those that stand in the file, as float32 has them."""
    with np.errstate(over="ignore"):
        numbers = [float(np.float32(word)) for word in re.findall(r"[-+]?[0-9]+(?:\.[0-9]+)?", text[:20_000])][-60:]
    grid = [v for v in numbers if abs(v) < 1e30] + [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0]
    corners = [side for case in spec.cases[:5] for side in (case.lower, case.upper) if np.all(np.abs(side) < 1e30)]
    for _ in range(tries):
        if corners and draw.random() < 0.7:
            x = draw.choice(corners).astype(np.float32).astype(np.float64)
            if draw.random() < 0.5:
                x[draw.randrange(spec.inputs)] = draw.choice(grid)
        else:
            x = np.array([draw.choice(grid) for _ in range(spec.inputs)])
        y = np.array([draw.choice(grid) for _ in range(spec.outputs)])
        if draw.random() < 0.3:
            y[:] = y[0]
        yield x, y


__all__ = ["NotUnderstoodError", "difference"]
