"""What pruning and int8 keep of what was proved, by which way, and in what time: the table of docs/pairs.md.

    python -m tests.benchmarks.retention --document docs/pairs.md
    python -m tests.benchmarks.retention --families 'cnn-small_ibp_eps2' --images 20

Takes held-out images in their order. What `sparse-bab` proves of a dense network is followed into the pruned ones, and
what it proves of any of them into that network's int8 form. Each guarantee is tried in all ways, whatever the others
say: *intervals* of the smaller network; *differential*, the margin of the larger one less what the margins can differ
by; *fresh*, `sparse-bab` as if nothing were known. A row counts guarantees by the first way that has them, and how many
each way would have alone.

Seconds are the processor's, of this process alone (`time.process_time`), medians over a row's guarantees; measuring
what float32 may do, which every proof needs, is left out. `OMP_NUM_THREADS=1` makes them seconds of one thread. It ends
within --minutes, but for the image that is under way then: each family gets an equal share of what is left, and of it
each pair of networks, so that not all guarantees of a large network are followed.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np

from prunecert.bench.planning.exports import Calibration, Export, export_cell, int8_export
from prunecert.bench.planning.plan import robustness_instance
from prunecert.bench.results.schema import between_marks
from prunecert.bench.running.margin_transfer import Transfer, carries
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import run_main
from prunecert.files import write_text
from prunecert.models.checkpoint_folders import CHECKPOINTS, locate
from prunecert.models.data import Dataset
from prunecert.models.datasets.source import load_split
from prunecert.page_help import PageHelp
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status, Verifier
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.rounding import guard
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.quantised.question import read_quantised

FAMILIES = ("cnn-small_ibp_eps2", "cnn-small_mtl-ibp_eps2", "cnn-large_ibp_eps2", "cnn-large_mtl-ibp_eps2")
MEMBERS = ("dense_x1_s0", "lwm_x2_s0", "lwm_x10_s0", "lwm_x100_s0")
EPS = Fraction(2, 255)
SUITE = "cifar10-4nets"
BEGIN = "<!-- made by python -m tests.benchmarks.retention: begin -->"
END = "<!-- made by python -m tests.benchmarks.retention: end -->"
HEAD = (
    "| from | to | guarantees | intervals | differential | fresh | lost | open | alone: intervals | differential "
    "| fresh | s: intervals | differential | fresh |",
    f"|---|---|{12 * '---:|'}",
)


class Loaded:
    """A network that verifiers of this process have read, from the first question until `release`."""

    def __init__(self, name: str, export: Export, data: Dataset, timeout: float) -> None:
        self.name, self.export = name, export
        self._data, self._timeout = data, timeout
        self._verifiers: dict[str, Verifier] = {}

    def release(self) -> None:
        """Gives back the memory that verifiers have taken."""
        self._verifiers = {}

    def _asked(self, name: str) -> Verifier:
        if name not in self._verifiers:
            verifier = VERIFIERS.get(name)({})
            verifier.start()
            verifier.load(self.export.path)
            self._verifiers[name] = verifier
        return self._verifiers[name]

    def question(self, place: int) -> Instance:
        """Returns the question about an image."""
        return robustness_instance(self.export, self._data, place, EPS, self._timeout, self.name)

    def correct(self, place: int) -> bool:
        """Whether it takes the image for what it is."""
        (logits,) = outputs(self.export.path, self._data.images[place : place + 1])
        return int(np.argmax(logits)) == int(self._data.labels[place])

    def ask(self, verifier: str, question: Instance) -> tuple[Status, float]:
        """Returns a verifier's answer, and the seconds it took."""
        subject = self._asked(verifier)
        prepared = guard.prepare(type(subject), question)
        begin = time.process_time()
        (verdict,) = subject.solve([prepared])
        seconds = time.process_time() - begin
        return guard.guard(type(subject), question, verdict).status, seconds


@dataclass
class Row:
    """What became of one network's guarantees in another.

    Args:
        first: The network that they are of.
        second: The other.
        ways: Guarantees by the first way that has them, or by what became of them.
        alone: Those that each way has, whatever the others do.
        seconds: By way.
    """

    first: str
    second: str
    ways: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"intervals": [], "differential": [], "fresh": []})

    def add(self, proved: dict[str, bool], fate: str) -> None:
        """Counts one guarantee; `fate` is what it is if no way has it."""
        self.ways[next((way for way, holds in proved.items() if holds), fate)] += 1
        self.alone.update(way for way, holds in proved.items() if holds)

    def markdown(self) -> str:
        """Returns it as a table's line."""
        kept = ("intervals", "differential", "fresh")
        times = (f"{median(self.seconds[way]):.3f}" if self.seconds[way] else "–" for way in kept)
        counts = (*(self.ways[way] for way in (*kept, "lost", "open")), *(self.alone[way] for way in kept))
        line = (self.first, self.second, self.ways.total(), *counts, *times)
        return f"| {' | '.join(map(str, line))} |"


def follow(parent: Loaded, child: Loaded, places: list[int], end: float) -> tuple[Row, list[int]]:
    """Tries all ways for a network's guarantees until `time.monotonic` is `end`; returns which images are proved fresh.

    Args:
        parent: The network whose guarantees they are.
        child: The other.
        places: Images.
        end: When to stop.
    """
    row = Row(parent.name, child.name)
    proved: list[int] = []
    transfer = Transfer(read_network(parent.export.path))
    transfer.add(child.name, read_quantised(child.export.path) or read_network(child.export.path))
    for number, place in enumerate(places):
        if number and time.monotonic() > end:
            break
        question = child.question(place)
        if not child.correct(place):
            row.add({}, "lost")
            continue
        guard.measure(question)
        status, seconds = child.ask("sparse-ibp", question)
        holds = {"intervals": status is Status.UNSAT}
        row.seconds["intervals"].append(seconds)
        begin = time.process_time()
        bounds = transfer.bounds(child.name, question)
        row.seconds["differential"].append(time.process_time() - begin)
        holds["differential"] = carries(bounds, question)
        status, seconds = child.ask("sparse-bab", question)
        row.seconds["fresh"].append(seconds)
        holds["fresh"] = status is Status.UNSAT
        if holds["fresh"]:
            proved.append(place)
        if status is Status.SAT and any(holds.values()):
            raise RuntimeError(f"{child.name}, image {place}: proved and broken")
        row.add(holds, "lost" if status is Status.SAT else "open")
    child.release()
    return row, proved


class Family:
    """A dense network and what was pruned from it, one after the other: pairs of large ones take gigabytes.

    Args:
        name: What their names begin with.
        data: Images.
        calibration: Images for int8 networks.
        options: The command's.
    """

    def __init__(self, name: str, data: Dataset, calibration: Calibration, options: argparse.Namespace) -> None:
        self._name, self._data, self._calibration, self._options = name, data, calibration, options
        self.members = [member for member in MEMBERS if locate(CHECKPOINTS, f"{name}_{member}").is_file()]

    def rows(self, end: float) -> Iterator[Row]:
        """Yields them, measured until `time.monotonic` is `end`."""
        dense, *pruned = self.members
        parent = self._load(dense)
        # Half as many pairs as there are steps: each is followed twice, and the dense network's proofs come first.
        steps = 2 * len(self.members)
        until = time.monotonic() + (end - time.monotonic()) / steps
        guarantees = []
        for place in range(self._options.images):
            if place and time.monotonic() > until:
                break
            if parent.correct(place) and parent.ask("sparse-bab", parent.question(place))[0] is Status.UNSAT:
                guarantees.append(place)
        parent.release()
        left = itertools.count(steps - 1, -1)

        def share() -> float:
            return time.monotonic() + (end - time.monotonic()) / max(next(left), 1)

        yield follow(parent, self._load(dense, int8=True), guarantees, share())[0]
        for member in pruned:
            child = self._load(member)
            row, proved = follow(parent, child, guarantees, share())
            yield row
            yield follow(child, self._load(member, int8=True), proved, share())[0]

    def _load(self, member: str, *, int8: bool = False) -> Loaded:
        name, folder = f"{self._name}_{member}", self._options.exports
        export = export_cell(locate(CHECKPOINTS, name), folder)
        if int8:
            name, export = f"{name}_int8", int8_export(export, folder, self._calibration)
        return Loaded(name, export, self._data, self._options.timeout)


def main() -> int:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("--families", default=",".join(FAMILIES), help="of networks, comma-separated")
    command.add_argument("--images", type=int, default=100, help="most of each family")
    command.add_argument("--timeout", type=float, default=5.0, help="seconds of each fresh proof")
    command.add_argument("--minutes", type=float, default=13.0, help="of all")
    command.add_argument("--exports", type=Path, default=Path("onnx_exports/retention"))
    command.add_argument("--data-root", type=Path)
    command.add_argument("--document", type=Path, help="a page with the marks between which the table goes")
    options = command.parse_args()
    end = time.monotonic() + 60 * options.minutes
    source = load_suite(SUITE).data
    data = load_split(source, "val", options.data_root)
    calibration = Calibration(lambda: data.images)
    lines = list(HEAD)
    print(*HEAD, sep="\n", flush=True)
    families = options.families.split(",")
    for left, family in zip(range(len(families), 0, -1), families, strict=True):
        until = time.monotonic() + (end - time.monotonic()) / left
        for row in Family(family, data, calibration, options).rows(until):
            print(row.markdown(), flush=True)
            lines.append(row.markdown())
    if options.document is not None:
        text = options.document.read_text(encoding="utf-8")
        write_text(options.document, between_marks(text, BEGIN, END, "\n".join([*lines, ""])))
    return 0


if __name__ == "__main__":
    run_main(main)
