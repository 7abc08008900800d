"""How many sub-boxes clipping of hidden bounds would spare where inputs are split: with and without, counted.

    python -m tests.benchmarks.hidden_clipping acasxu/instances.csv --every 13 --seconds 12

A counterexample keeps every row of its disjunct at or below 0, and with it the row's linear bound over the sub-box. So
hidden values need only be bounded over the half of the sub-box that this leaves (Zhou et al. 2025), and walking it once
more with these bounds gives a better one. Here that is done for each sub-box that its first walk leaves open, without
accounting for rounding: what comes out is a count, and no proof. Prints a row a question that is decided both ways:
sub-boxes without and with, how many were walked twice, and how many of their unstable ReLUs became stable.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from prunecert.errors import run_main
from prunecert.page_help import PageHelp
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab import input_splits
from prunecert.verifiers.sparse.bab.box_bounds import bound_boxes
from prunecert.verifiers.sparse.bab.box_program import BoxProgram, BoxScratch
from prunecert.verifiers.sparse.warmup import warm_up
from tests.benchmarks.inputs import every_question

#: What bounds are moved outwards by, relative to themselves.
_OUTWARDS = 1e-9


def largest(slopes: Float64Array, line: Float64Array) -> Float64Array:
    """Returns the largest values of linear functions over the part of [-1, 1]^d where a line is at or below 0.

    By duality that is the least of λ (ρ - m) + Σ |G_i - λ A_i| over multipliers λ >= 0; its kinks are at G_i / A_i.

    Args:
        slopes: G, [n, d].
        line: (m, A_1, …, A_d, ρ), as `bound_boxes` writes it.

    Returns:
        [n].
    """
    own, room = line[1:-1], line[-1] - line[0]
    with np.errstate(all="ignore"):
        kinks = np.maximum(np.nan_to_num(slopes / own, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    kinks = np.concatenate([np.zeros((len(slopes), 1)), kinks], axis=1)
    values = kinks * room + np.abs(slopes[:, None] - kinks[..., None] * own).sum(axis=2)
    most: Float64Array = values.min(axis=1)
    return most


class Clipping:
    """Stands in for `bound_boxes`, and walks what is open a second time.

    Attributes:
        twice: Sub-boxes that were walked twice.
        unstable: Unstable ReLUs in them.
        fixed: Of these, those that the row makes stable.
    """

    def __init__(self) -> None:
        self.twice = self.unstable = self.fixed = 0

    def bound(
        self, program: BoxProgram, work: BoxScratch, matrix: Any, offsets: Any, spans: Any, low: Any, high: Any,
        begin: int, end: int, lines: Any, bounds: Any, scores: Any,
    ) -> None:  # fmt: skip
        """Does what `bound_boxes` does, and better."""
        bound_boxes(program, work, matrix, offsets, spans, low, high, begin, end, lines, bounds, scores)
        for box in range(begin, end):
            if bounds[box] > 0 or not np.isfinite(bounds[box]):
                continue
            # The forms are those of the box that was walked last.
            bound_boxes(program, work, matrix, offsets, spans, low, high, box, box + 1, lines, bounds, scores)
            narrow = self._narrowed(program, work, lines[box, : spans[box, 1] - spans[box, 0]])
            if (narrow.lower > narrow.upper).any():
                bounds[box] = 1.0
                continue
            again = lines[box : box + 1].copy(), np.zeros(1), scores[box : box + 1].copy()
            one = slice(box, box + 1)
            bound_boxes(narrow, work, matrix, offsets, spans[one], low[one], high[one], 0, 1, *again)
            if again[1][0] > bounds[box]:
                lines[box], bounds[box], scores[box] = again[0][0], again[1][0], again[2][0]

    def _narrowed(self, program: BoxProgram, work: BoxScratch, lines: Float64Array) -> BoxProgram:
        """Returns the program with hidden bounds over what a box's lines leave of it."""
        hidden = np.arange(program.starts[1], program.starts[len(program.activated) - 1])
        inputs = lines.shape[1] - 2
        there = np.arange(work.table.shape[1]) < work.columns[hidden][:, None]
        forms = np.where(there, work.table[hidden], 0.0)
        center, slopes = forms[:, 0], forms[:, 1 : 1 + inputs]
        rest = np.abs(forms[:, 1 + inputs :]).sum(axis=1) + work.error[hidden]
        everywhere = np.abs(slopes).sum(axis=1) + rest
        lower, upper = program.lower.copy(), program.upper.copy()
        before = np.maximum(lower[hidden], center - everywhere), np.minimum(upper[hidden], center + everywhere)
        for line in lines:
            low, high = center - largest(-slopes, line) - rest, center + largest(slopes, line) + rest
            slack = _OUTWARDS * (1 + np.abs(low) + np.abs(high))
            lower[hidden] = np.maximum(lower[hidden], low - slack)
            upper[hidden] = np.minimum(upper[hidden], high + slack)
        unstable = (before[0] < 0) & (before[1] > 0)
        self.twice += 1
        self.unstable += int(unstable.sum())
        self.fixed += int((unstable & ~((lower[hidden] < 0) & (upper[hidden] > 0))).sum())
        return program._replace(lower=lower, upper=upper)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("instances", type=Path)
    command.add_argument("--every", type=int, default=1, help="take every so many questions")
    command.add_argument("--seconds", type=float, default=10.0, help="limit of each question and way")
    options = command.parse_args(arguments)
    warm_up()
    print("| question | sub-boxes | with clipping | walked twice | unstable ReLUs | of them stable then |")
    print(f"|---|{'---:|' * 5}")
    for name, questions in every_question(options.instances, options.every):
        plain, clipping = questions.ask("input", options.seconds), Clipping()
        with mock.patch.object(input_splits, "bound_boxes", clipping.bound):
            clipped = questions.ask("input", options.seconds)
        if plain.status.decided and clipped.status.decided:
            cells = plain.domains, clipped.domains, clipping.twice, clipping.unstable, clipping.fixed
            print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)
    return 0


if __name__ == "__main__":
    run_main(main)
