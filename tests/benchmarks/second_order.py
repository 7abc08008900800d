"""What second-order bounds of the last hidden layer gain over linear ones on the open images of a network, at the root.

    python -m tests.benchmarks.second_order net.onnx --images 110

Takes the first held-out images, and of those that are classified correctly and left open by CROWN and a first attack
prints for each class that is open α-CROWN's bound over improved hidden bounds, the certified second-order bound, how
many neurons of the last hidden layer are unstable, and processor seconds of the latter; then a Markdown row of medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from prunecert.errors import run_main
from prunecert.page_help import PageHelp
from prunecert.verifiers.base import Instance
from prunecert.verifiers.sparse.bab.branch_and_bound import BranchAndBound
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.quadratic.ascent import ascend, begin
from prunecert.verifiers.sparse.bab.quadratic.attempt import subject_of
from prunecert.verifiers.sparse.bab.quadratic.last_layer import certified
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from tests.benchmarks.held_out import held_out


class Gain(NamedTuple):
    """A class of one image: its bounds, unstable neurons of the last hidden layer, and processor seconds."""

    label: int
    linear: float
    second: float
    neurons: int
    seconds: float


def gains(engine: Engine, checker: Checker, question: Instance, steps: int, seconds: float) -> Iterator[Gain]:
    """Yields what is gained on each open class of a question.

    Args:
        engine: CROWN of the network.
        checker: Of the network.
        question: The image.
        steps: Of the second-order bounds' ascent.
        seconds: Limit of all else.
    """
    deadline = time.monotonic() + seconds
    corners = question.lower.reshape(-1), question.upper.reshape(-1)
    search = Search(engine, checker, *corners, question.spec, Limits(), deadline)
    root = search._bound()
    if root is None:
        return
    bab = BranchAndBound(search._task, search._standing, root)
    bab.start(again=True)
    for disjunct, whole in bab.second_order.wholes.items():
        linear = float(whole.bound[0])
        if linear > 0:
            continue
        begin_s = time.process_time()
        subject = subject_of(checker, root, bab.composed, bab.prover, whole)
        signs = np.zeros(subject.net.unstable, dtype=np.int8)
        layer, phases = subject.layer(), subject.phases(signs, ())
        dual = ascend(layer, phases, begin(layer), steps, np.inf, np.inf).dual
        second = certified(layer, phases, dual)
        # The other classes, in order.
        place = int(root.open[disjunct])
        yield Gain(place + (place >= (question.label or 0)), linear, second, len(phases), time.process_time() - begin_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the bounds."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("onnx", type=Path)
    command.add_argument("--images", type=int, default=100, help="first held-out images")
    command.add_argument("--steps", type=int, default=80, help="of the ascent")
    command.add_argument("--seconds", type=float, default=20.0, help="limit of an image's linear bounds")
    options = command.parse_args(arguments)
    engine, checker, questions = held_out(options.onnx, options.images, options.seconds)
    every = []
    for number, question in questions.items():
        for gain in gains(engine, checker, question, options.steps, options.seconds):
            every.append(gain)
            line = f"{gain.linear:.4f} to {gain.second:.4f}, {gain.neurons} neurons, {gain.seconds:.2f} s"
            print(f"image {number}, class {gain.label}: {line}", flush=True)
    if every:
        proved = sum(gain.second > 0 for gain in every)
        columns = [median(values) for values in zip(*every, strict=True)]
        print("| network | open classes | linear, median | second-order | proved | neurons | seconds |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        _, linear, second, neurons, seconds = columns
        bounds = f"{linear:.3f} | {second:.3f} | {proved}"
        print(f"| {options.onnx.stem} | {len(every)} | {bounds} | {neurons:g} | {seconds:.2f} |")
    return 0


if __name__ == "__main__":
    run_main(main)
