"""Tries to break a run's proofs with a million points of each network, in the runtime that users have.

    python -m tests.benchmarks.sampling RUN
    python -m tests.benchmarks.sampling RUN --cells '*_int8' --points 100000 --cores 2

RUN is a run's directory. For every network and every pair of networks of which it has proofs, points of the boxes are
run in onnxruntime, as it optimises graphs by itself (int8 files become integer products there) and without: the two
round differently, and a proof holds of both. A third of the points are drawn evenly, a third are corners, and a third
are the worst point so far with some of its coordinates drawn anew, corners again: a climb, which comes nearest.

Prints a Markdown table: for each network its proofs, the points, the least margin that any point had (by how much an
output missed what the property forbids), and how many points broke a proof. Ends with 1 if one did: that point is a
wrong `unsat`. Questions over l2 balls are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from prunecert.bench.planning import select
from prunecert.bench.planning.pairs import with_pairs
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.row_types import PairRow, VerdictRow
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import Log
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, run_main
from prunecert.page_help import PageHelp
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec, Status

HEAD = ("| network | proofs | points | least margin | broken |", "|---|---:|---:|---:|---:|")
#: Points of a box that are run together.
BATCH = 250


@dataclass(frozen=True)
class Tally:
    """What became of a network's proofs.

    Args:
        name: The cell, and of a pair its partner.
        proofs: Questions that are proved.
        points: Points that were run, each in two ways.
        least: The least margin.
        broken: Points whose outputs a proof forbids.
    """

    name: str
    proofs: int
    points: int
    least: float
    broken: int

    def markdown(self) -> str:
        """Returns it as a table's line."""
        return f"| {self.name} | {self.proofs} | {self.points:,} | {self.least:.3g} | {self.broken} |"


class Runtime:
    """A network in onnxruntime, with its graph as the file has it and as onnxruntime rewrites it."""

    def __init__(self, path: Path, cores: int) -> None:
        self._sessions = [self._session(path, cores, optimised) for optimised in (False, True)]
        shape = self._sessions[0].get_inputs()[0].shape
        self._input, self._shape = self._sessions[0].get_inputs()[0].name, shape[1:]
        #: Whether the file takes several inputs at once.
        self._batched = not isinstance(shape[0], int)

    @staticmethod
    def _session(path: Path, cores: int, optimised: bool) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def outputs(self, points: FloatArray) -> list[npt.NDArray[np.float64]]:
        """Returns outputs of shape [n, classes], by either way; points have shape [n, inputs]."""
        batch = points.reshape(len(points), *self._shape)
        parts = [batch] if self._batched else [batch[i : i + 1] for i in range(len(batch))]
        return [
            np.concatenate([session.run(None, {self._input: part})[0].reshape(len(part), -1) for part in parts]).astype(
                np.float64
            )
            for session in self._sessions
        ]


def margins(spec: OutputSpec, outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns by how much each output misses what is unsafe, at most 0 where it is unsafe.

    Args:
        spec: What is unsafe.
        outputs: Shape [n, classes].

    Returns:
        Shape [n]: the least over the disjuncts of the largest row of A y - b.
    """
    rows: list[npt.NDArray[np.float64]] = [(outputs @ a.T - b).max(axis=1) for a, b in spec.disjuncts]
    least: npt.NDArray[np.float64] = np.min(rows, axis=0)
    return least


def draw(rng: np.random.Generator, question: Instance, worst: FloatArray | None, count: int) -> FloatArray:
    """Returns points of a question's box, of shape [count, inputs]: even ones, corners, and neighbours of the worst."""
    lower, upper = question.lower.reshape(-1), question.upper.reshape(-1)
    corners = np.where(rng.random((count, lower.size)) < 0.5, lower, upper)
    kinds = rng.integers(0, 3, count)
    even = lower + rng.random((count, lower.size), dtype=np.float32) * (upper - lower)
    points = np.where((kinds == 0)[:, None], even, corners)
    if worst is not None:
        share = rng.choice([0.002, 0.02, 0.2], (count, 1))
        points = np.where((kinds == 2)[:, None] & (rng.random(points.shape) >= share), worst, points)
    # Rounding in the sum may have left the box.
    return np.clip(points, lower, upper).astype(np.float32)


def attack(questions: Sequence[Instance], name: str, points: int, cores: int, seed: int) -> Tally:
    """Runs points of the boxes of one network's proofs, as many of each.

    Args:
        questions: What is proved, of one file.
        name: What the line is called.
        points: Of all questions together.
        cores: Of onnxruntime.
        seed: Of the points.
    """
    rng = np.random.default_rng(seed)
    runtime = Runtime(questions[0].onnx, cores)
    least, broken, total = np.inf, 0, 0
    share = -(-points // len(questions))
    for question in questions:
        worst, lowest = None, np.inf
        for begin in range(0, share, BATCH):
            batch = draw(rng, question, worst, min(BATCH, share - begin))
            for outputs in runtime.outputs(batch):
                values = margins(question.spec, outputs)
                broken += sum(map(question.spec.violated_by, outputs[values <= 0]))
                if values.min() < lowest:
                    worst, lowest = batch[values.argmin()], values.min()
            total += len(batch)
        least = min(least, lowest)
    return Tally(name, len(questions), total, float(least), broken)


def proofs_of(run: Path) -> tuple[SessionRow, dict[str, set[int]]]:
    """Returns a run's last session, and the images that have been proved, by the key of the question."""
    session, proofs = None, dict[str, set[int]]()
    for row in Log(run).rows():
        if isinstance(row, SessionRow):
            session = row
        elif isinstance(row, VerdictRow | PairRow) and row.status == Status.UNSAT:
            proofs.setdefault(row.key, set()).add(row.image)
    if session is None:
        raise UserError(f"{run} has no session.")
    return session, proofs


def plans_of(session: SessionRow, options: argparse.Namespace) -> Iterator[tuple[str, CellPlan]]:
    """Yields the run's plans as they would be made today, pairs behind all networks, with their names."""
    suite = load_suite(session.suite, session.profile)
    cells = select.choose(suite, options.cells, None, None)
    installed, _ = select.check_installed(cells, "cpu", skip=True)
    data = select.load_data(suite.data, cells, options.data_root)
    exports = options.exports / suite.name / "onnx"

    def tell(text: str) -> None:
        print(text, file=sys.stderr)

    plans, _ = select.prepare(suite, cells, installed, data, options.checkpoints, exports, tell, options.data_root)
    yield from ((plan.name, plan) for plan in plans)
    _, pairs = with_pairs(plans, installed, options.checkpoints, exports, tell)
    yield from ((f"{pair.name} and {pair.partner.name}, {pair.alike}", pair) for pair in pairs)


def questions_of(plan: CellPlan, proofs: dict[str, set[int]]) -> Iterator[Instance]:
    """Yields what of a plan has been proved over boxes, once for each image."""
    for position in range(plan.images):
        image = int(plan.data.indices[position])
        stage = next((stage for stage, key in enumerate(plan.keys) if image in proofs.get(key, ())), None)
        if stage is not None and (question := plan.instance(position, stage)).norm == "linf":
            yield question


def tallies(options: argparse.Namespace) -> Iterable[Tally]:
    """Yields a line for each network or pair of which anything is proved."""
    session, proofs = proofs_of(options.run)
    for name, plan in plans_of(session, options):
        if questions := list(questions_of(plan, proofs)):
            yield attack(questions, name, options.points, options.cores, options.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 1 if a proof was broken."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("run", type=Path, metavar="RUN")
    command.add_argument("--cells", help="shell patterns of cell names, comma-separated")
    command.add_argument("--points", type=int, default=1_000_000, help="of each network")
    command.add_argument("--cores", type=int, default=1, help="that onnxruntime uses")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--checkpoints", type=Path, default=select.CHECKPOINTS)
    command.add_argument("--exports", type=Path, default=Path("onnx_exports"))
    command.add_argument("--data-root", type=Path)
    options = command.parse_args(argv)
    print(*HEAD, sep="\n", flush=True)
    lines, broken = 0, 0
    for tally in tallies(options):
        print(tally.markdown(), flush=True)
        lines, broken = lines + 1, broken + tally.broken
    if not lines:
        raise UserError(f"{options.run} has no proofs over boxes that these cells, data and versions still have.")
    return EXIT_REGRESSION if broken else EXIT_OK


if __name__ == "__main__":
    run_main(main)
