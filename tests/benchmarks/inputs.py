"""How inputs and ReLUs are split on questions with few inputs: what is decided, sub-boxes, and seconds.

    python -m tests.benchmarks.inputs acasxu/instances.csv --every 13 --seconds 4 --splits relu,auto

Reads an instances.csv of VNN-COMP (files may be gzipped), asks the engine about each question in each way, and prints
a Markdown table: a row a way, with how many questions are decided, and the medians of sub-boxes, or subdomains, and
seconds over those that every way decides. Seconds are the processor's, so that other programs on the machine count in
the limit only. A network that isn't taken is named. Two ways that contradict each other end it with exit code 1.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from prunecert.errors import UserError, run_main
from prunecert.onnx.io import identity
from prunecert.page_help import PageHelp
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status, UnsupportedError
from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.formats.vnnlib import read_property
from prunecert.verifiers.process.reading import FileReading
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.warmup import warm_up

Split = Literal["auto", "input", "relu"]
SPLITS: tuple[Split, ...] = ("relu", "auto", "input")


class Cost(NamedTuple):
    """What one answer takes: subdomains of all boxes, and processor seconds."""

    status: Status
    domains: int
    seconds: float


class Questions:
    """The boxes of one property and the network, read once for all ways of splitting."""

    def __init__(self, onnx: Path, vnnlib: Path, folder: Path) -> None:
        path = folder / onnx.name
        if onnx.exists():
            path = onnx
        else:
            path.write_bytes(gzip.decompress(onnx.with_name(onnx.name + ".gz").read_bytes()))
        prop = read_property(vnnlib if vnnlib.exists() else vnnlib.with_name(vnnlib.name + ".gz"))
        sha256 = identity(path)
        allowed = VERIFIERS.get("sparse-bab")().capabilities()
        reading = FileReading(path, sha256, prop.outputs, allowed, folder / "normal")
        shape = network_info(path).sample_shape
        self._instances: list[Instance] = [
            reading.translate(instance) for instance in prop.instances(path, sha256, shape, 1.0)
        ]
        network = read_network(reading.path)
        self._engine, self._checker = Engine(network, 1), Checker(network)

    def ask(self, split: Split, seconds: float) -> Cost:
        """Asks about one box after the other until one is not proved."""
        begin, domains, status = time.process_time(), 0, Status.UNSAT
        for instance in self._instances:
            corners = instance.lower, instance.upper
            deadline = time.monotonic() + seconds - (time.process_time() - begin)
            search = Search(self._engine, self._checker, *corners, instance.spec, Limits(split=split), deadline)
            status = search.run().status
            domains += search.outcome.domains
            if status is not Status.UNSAT:
                break
        return Cost(status, domains, time.process_time() - begin)


def table(costs: Sequence[dict[Split, Cost]], splits: Sequence[Split]) -> str:
    """Returns the table of questions' costs by way."""
    heading = "| split | questions | holds | broken | subdomains, median | seconds, median |"
    lines = [heading, "|---|---:|---:|---:|---:|---:|"]
    both = [cost for cost in costs if all(each.status.decided for each in cost.values())]
    for split in splits:
        statuses = [cost[split].status for cost in costs]
        domains = median([cost[split].domains for cost in both] or [0])
        seconds = median([cost[split].seconds for cost in both] or [0.0])
        holds, broken = statuses.count(Status.UNSAT), statuses.count(Status.SAT)
        lines.append(f"| {split} | {len(costs)} | {holds} | {broken} | {domains:g} | {seconds:.2g} |")
    return "\n".join(lines)


def every_question(instances: Path, every: int) -> Iterator[tuple[str, Questions]]:
    """Yields every so many questions of a list, with their names; one that can't be read is named and left out."""
    rows = list(csv.reader(instances.read_text().splitlines()))[::every]
    with tempfile.TemporaryDirectory() as scratch:
        for onnx, vnnlib, *_ in rows:
            name = f"{Path(onnx).stem} {Path(vnnlib).stem}"
            try:
                questions = Questions(instances.parent / onnx, instances.parent / vnnlib, Path(scratch))
            except (UserError, UnsupportedError) as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            yield name, questions


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("instances", type=Path)
    command.add_argument("--every", type=int, default=1, help="take every so many questions")
    command.add_argument("--seconds", type=float, default=10.0, help="limit of each question and way")
    command.add_argument("--splits", default="relu,auto", help="ways, comma-separated: auto, input, relu")
    options = command.parse_args(arguments)
    names = options.splits.split(",")
    splits = [split for split in SPLITS if split in names]
    costs, contradictions = [], 0
    warm_up()
    for name, questions in every_question(options.instances, options.every):
        costs.append({split: questions.ask(split, options.seconds) for split in splits})
        statuses = {cost.status for cost in costs[-1].values() if cost.status.decided}
        if len(statuses) > 1:
            contradictions += 1
            print(f"{name} is a contradiction: {costs[-1]}", flush=True)
    print(table(costs, splits))
    return int(contradictions > 0)


if __name__ == "__main__":
    run_main(main)
