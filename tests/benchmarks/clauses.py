"""What clauses learned from proved subdomains would spare a search: how many of its subdomains they close beforehand.

    python -m tests.benchmarks.clauses net.onnx --images 60 --timeout 20

A subdomain that is proved says that its splits do not hold at once in any counterexample; those which its proof doesn't
need are left out, the least multipliers first, each tried by some steps of the ascent. What is left is a clause, valid
everywhere (of conflicts in branch and bound: Zhou et al. 2024, BICCOS, section 3). Of a finished tree of linear bounds
on held-out images this counts, from the top and the active part first, as if clauses of what was proved earlier were
there: subdomains visited, those that unit propagation closes before they are bounded, and those that are left. Printed
beside it are the seconds of the search, and those of leaving splits out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunecert.errors import run_main
from prunecert.page_help import PageHelp
from prunecert.verifiers.base import Instance, Status
from prunecert.verifiers.sparse.arrays import Int64Array
from prunecert.verifiers.sparse.bab.branch_and_bound import BranchAndBound
from prunecert.verifiers.sparse.bab.dual import Batch, Dual
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from tests.benchmarks.held_out import held_out

#: Steps, step sizes and decay of an ascent after a split was left out: those of a child.
_STEPS, _RATES, _DECAY = 6, (0.1, 1.0), 0.85
#: What a bound must exceed.
_MARGIN = 1e-6

#: A split: twice the neuron's number, and one more where it is active.
Literal = int


class Count(NamedTuple):
    """What clauses spare a tree.

    Args:
        subdomains: Of the tree.
        bounded: Those that would be bounded with clauses at hand.
        closed: Those that clauses close beforehand.
        splits: Mean number of splits of a leaf.
        needed: Of those that its proof needs.
        search_s: Processor seconds of the search.
        shrink_s: Processor seconds of leaving splits out.
    """

    subdomains: int
    bounded: int
    closed: int
    splits: float
    needed: float
    search_s: float
    shrink_s: float


class Clauses:
    """A set of clauses: sets of splits that exclude each other."""

    def __init__(self) -> None:
        self._rows = np.full((1024, 8), -1, dtype=np.int64)
        self._count = 0

    def add(self, clause: frozenset[Literal]) -> None:
        """Adds one."""
        rows, width = self._rows.shape
        if self._count == rows or len(clause) > width:
            wider = np.full((rows * (1 + (self._count == rows)), max(width, len(clause))), -1, dtype=np.int64)
            wider[:rows, :width] = self._rows
            self._rows = wider
        self._rows[self._count, : len(clause)] = sorted(clause)
        self._count += 1

    def exclude(self, literals: frozenset[Literal]) -> bool:
        """Says whether splits exclude each other, by themselves or after what follows from them."""
        true = set(literals)
        rows = self._rows[: self._count]
        while len(rows):
            open_ = (rows >= 0) & ~np.isin(rows, list(true))
            left = open_.sum(axis=1)
            if (left == 0).any():
                return True
            # All of a clause but one holds: the opposite of that one does, too.
            implied = set((rows[left == 1][open_[left == 1]] ^ 1).tolist())
            if any(literal ^ 1 in implied for literal in implied):
                return True
            if implied <= true:
                return False
            true |= implied
        return False


def shrunk(dual: Dual, proved: Batch) -> Batch:
    """Returns leaves without the splits that their proofs don't need."""
    leaves = proved.take(np.arange(len(proved)))
    dual.bound(leaves)
    untried = leaves.sign != 0
    while untried.any():
        neuron = np.where(untried, leaves.beta, np.inf).argmin(axis=1)
        rows = np.flatnonzero(untried[np.arange(len(leaves)), neuron])
        untried[rows, neuron[rows]] = False
        fewer, own = leaves.take(rows), np.arange(len(rows))
        fewer.sign[own, neuron[rows]] = 0
        fewer.beta[own, neuron[rows]] = 0
        fewer = dual.optimise(fewer, _STEPS, _RATES, _DECAY, target=_MARGIN)
        good = np.flatnonzero(fewer.bound > _MARGIN)
        leaves.put(rows[good], fewer.take(good))
    return leaves


def count(bab: BranchAndBound, search_s: float) -> Count:
    """Counts what clauses spare.

    Args:
        bab: A search that has ended with a tree.
        search_s: How long it took.
    """
    begin_s = time.process_time()
    proved = Batch.join(bab.leaves)
    needed = shrunk(bab.composed.dual, proved)
    shrink_s = time.process_time() - begin_s
    leaves = {int(place): row for row, place in enumerate(needed.place)}
    parent, neuron, sign = bab.tree.parent, bab.tree.neuron, bab.tree.sign
    children: dict[int, list[int]] = {}
    for entry, above in enumerate(parent):
        children.setdefault(above, []).append(entry)
    bounded = closed = 0
    for root in children.get(-1, []):
        clauses = Clauses()
        todo = [(root, frozenset[Literal]())]
        while todo:
            entry, literals = todo.pop()
            if clauses.exclude(literals):
                closed += 1
                continue
            bounded += 1
            if entry in leaves:
                clauses.add(_literals(needed.sign[leaves[entry]]))
            for child in sorted(children.get(entry, []), key=lambda place: sign[place]):
                todo.append((child, literals | {2 * neuron[child] + (sign[child] > 0)}))
    splits, needed_splits = (float((some.sign != 0).sum(axis=1).mean()) for some in (proved, needed))
    return Count(len(parent), bounded, closed, splits, needed_splits, search_s, shrink_s)


def _literals(signs: Int64Array) -> frozenset[Literal]:
    return frozenset((2 * np.flatnonzero(signs) + (signs[signs != 0] > 0)).tolist())


def counted(engine: Engine, checker: Checker, question: Instance, seconds: float) -> Count | None:
    """Returns what clauses spare a question's tree; None where there is none.

    Args:
        engine: CROWN of the network.
        checker: Of the network.
        question: The image.
        seconds: Limit.
    """
    corners = question.lower.reshape(-1), question.upper.reshape(-1)
    search = Search(engine, checker, *corners, question.spec, Limits(), time.monotonic() + seconds)
    begin_s = time.process_time()
    outcome = search.run()
    search_s = time.process_time() - begin_s
    if outcome.status is not Status.UNSAT or search.branched is None or len(search.branched.tree.parent) < 3:
        return None
    return count(search.branched, search_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each tree."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("onnx", type=Path)
    command.add_argument("--images", type=int, default=60, help="first held-out images")
    command.add_argument("--timeout", type=float, default=20.0, help="seconds for an image's search")
    options = command.parse_args(arguments)
    engine, checker, questions = held_out(options.onnx, options.images, options.timeout)
    for number, question in questions.items():
        result = counted(engine, checker, question, options.timeout)
        if result is not None:
            print(
                f"image {number}: {result.subdomains} subdomains, {result.bounded} with clauses ({result.closed} "
                f"closed beforehand); a leaf's {result.splits:.1f} splits become {result.needed:.1f}; "
                f"{result.search_s:.2f} s to search, {result.shrink_s:.2f} s to leave splits out",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    run_main(main)
