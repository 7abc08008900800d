"""Proofs that cut inputs: a box is divided until walks over each of its parts prove it, by the checker's own bounds.

    [0, 1]² ── x0 at 0.5 ──┬── bounds, leaf
                           └── x1 at 0.5 ──┬── bounds, leaf
                                           └── bounds, leaf

It needs no search of the engine's, whose splits of inputs are clipped in ways that a certificate can't say; it is for
boxes of few inputs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.checker.nodes import Network
from prunecert.verifiers.checker.proof import LARGEST_DEPTH, Tree
from prunecert.verifiers.checker.vnnlibfile import Case
from prunecert.verifiers.sparse.proofs.certificate import (
    Bounded,
    CaseProof,
    Cut,
    Entry,
    Leaf,
    SiteBounds,
    stream,
)

Array = npt.NDArray[np.float64]

#: Inputs that may vary, and parts that a proof may have.
MOST_INPUTS, MOST_PARTS = 20, 2**14


class UnprovedBoxError(ValueError):
    """A part was not proved; the message says why."""


def few_inputs(case: Case) -> bool:
    """Whether a box is one that may be cut."""
    return int(np.count_nonzero(case.upper > case.lower)) <= MOST_INPUTS


def cut_boxes(network: Network, case: Case, walked: Sequence[SiteBounds], deadline: float) -> CaseProof:
    """Returns a proof of a case that cuts inputs.

    Args:
        network: As the checker reads it.
        case: The case.
        walked: How a part is bounded.
        deadline: `time.monotonic` at which to end.

    Raises:
        UnprovedBoxError: There is none with so many parts, or in time.
    """
    trees = [_tree(network, case, span, walked, deadline) for span in case.spans]
    return CaseProof([SiteBounds() for _ in walked], trees)


def _tree(
    network: Network, case: Case, span: tuple[int, int], walked: Sequence[SiteBounds], deadline: float
) -> list[Entry]:
    """Returns the tree of one alternative, a part before what follows it."""
    entries: list[Entry] = []
    todo: list[tuple[Array, Array, int]] = [(case.lower, case.upper, 0)]
    while todo:
        if time.monotonic() > deadline or len(entries) > 2 * MOST_PARTS:
            raise UnprovedBoxError(f"{len(todo)} parts of the box are open, {len(entries)} steps of the proof are done")
        low, high, depth = todo.pop()
        with np.errstate(all="ignore"):
            part = Tree(stream(CaseProof(walked, [])), network, case._replace(lower=low, upper=high))
            leaf = _leaf(part, span)
            if leaf is not None:
                entries += [Bounded(walked), leaf]
                continue
            at = _widest(part, span, low, high)
        value = 0.5 * low[at] + 0.5 * high[at]
        if depth >= LARGEST_DEPTH or not low[at] < value < high[at]:
            raise UnprovedBoxError("a part of the box can't be cut any further")
        entries.append(Cut(at, float(value)))
        above, below = low.copy(), high.copy()
        above[at] = below[at] = value
        # The last one is taken first: x <= value.
        todo += [(above, high, depth + 1), (low, below, depth + 1)]
    return entries


def _leaf(part: Tree, span: tuple[int, int]) -> Leaf | None:
    """Returns the proof by one row of a part over which that row is above 0, or None."""
    first, last = span
    rows = np.eye(len(part.nodes[-1].bias))[first:last]
    least: Array = part.root.bounds.below(len(part.nodes) - 1, rows, 0)
    if not len(least) or not least.max() > 0:
        return None
    weights = (np.arange(last - first) == least.argmax()).astype(np.float32)
    return Leaf(weights, np.zeros(0, dtype=np.float32))


def _widest(part: Tree, span: tuple[int, int], low: Array, high: Array) -> int:
    """Returns the input whose range, by the weights' magnitudes, moves the alternative's rows most."""
    varying = np.flatnonzero(high > low)
    if not len(varying):
        raise UnprovedBoxError("a point of the box is not proved")
    values: list[Any] = [np.diag(high - low)[varying]]
    for node in part.nodes[1:]:
        sources = [values[source] for source in node.sources]
        values.append(sources[0] if node.relu else node.forward(sources, abs))
    return int(varying[values[-1][:, slice(*span)].sum(axis=1).argmax()])
