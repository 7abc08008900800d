"""What certificates cost: bytes, and seconds of searching, writing and checking, against network, sparsity and leaves.

    python -m tests.benchmarks.certificates onnx_exports/cifar10-4nets --match 'cnn-small*x10*' --properties 20

Reads the folder's instances.csv, as bench.export writes it, and prints a Markdown table: one row a network and way of
proving; medians and largest. Seconds are the processor's, of this process alone (`time.process_time`): *searched* is
what `sparse-bab` takes to answer, *written* what the certificate costs beyond that (its check before it is written left
out), *checked* what a stranger's checker takes, network and property read by it included. Properties that nobody
decides are counted in a row of their own. `OMP_NUM_THREADS=1` makes these seconds of one thread.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from prunecert.verifiers.base import Status
from prunecert.verifiers.checker import check
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.formats.vnnlib import read_property
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certificates import Certifier
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.onnx.reader import read_network as read_sparse
from prunecert.verifiers.sparse.threads import threads


class Cost(NamedTuple):
    """What one certificate costs: its kind, leaves and bytes, and processor seconds."""

    how: str
    leaves: int
    size: int
    searched: float
    written: float
    checked: float


def weights(onnx: Path) -> tuple[int, float]:
    """Returns the number of multiplications of one evaluation, zeros left out, and the share of zeros among weights."""
    nodes = read_network(onnx.read_bytes()).nodes
    counts = [np.asarray(node.weights) for node in nodes if node.terms != (2, 1) and not node.relu]
    total, zeros = sum(array.size for array in counts), sum(int((array == 0).sum()) for array in counts)
    products = sum(
        int((np.asarray(node.weights) != 0).sum()) * (node.size // node.shape[0])
        for node in nodes
        if not node.relu and node.sources and np.asarray(node.weights).ndim > 1
    )
    return products, zeros / total


def measured(onnx: Path, properties: list[Path], timeout: float, folder: Path) -> Iterator[Cost]:
    """Searches, writes and checks, and yields what that costs for each property."""
    layers = read_sparse(onnx)
    engine, checker = Engine(layers, threads()), Checker(layers, threads())
    certifier, target = Certifier(onnx, (engine, checker)), folder / "certificate"
    for vnnlib in properties:
        (case,) = read_property(vnnlib).cases
        begin = time.process_time()
        # What bench.export writes is float32.
        lower, upper = case.lower.astype(np.float32), case.upper.astype(np.float32)
        run = Search(engine, checker, lower, upper, case.spec, Limits(), time.monotonic() + timeout)
        outcome = run.run()
        searched = time.process_time()
        if outcome.status not in (Status.UNSAT, Status.SAT):
            yield Cost(f"none ({outcome.status})", 0, 0, searched - begin, 0.0, 0.0)
            continue
        written, content = certifier.certify(vnnlib.read_bytes(), timeout, finished=run, witness=outcome.witness)
        ended = time.process_time()
        if written.reason:
            yield Cost(f"none ({written.reason})", 0, 0, searched - begin, ended - searched, 0.0)
            continue
        target.write_bytes(content)
        written_s, begin_check = ended - searched, time.process_time()
        check(target, onnx, vnnlib)
        checked = time.process_time() - begin_check
        # Writing includes a check, but for the reading of the network.
        yield Cost(written.how, written.leaves, len(content), searched - begin, max(0.0, written_s - checked), checked)


def spread(values: list[float], form: str) -> str:
    """Returns median and largest."""
    return f"{format(median(values), form)} to {format(max(values), form)}"


def main() -> None:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("folder", type=Path)
    command.add_argument("--match", default="*", help="names of networks, comma-separated shell patterns")
    command.add_argument("--properties", type=int, default=20, help="of each network")
    command.add_argument("--timeout", type=float, default=30.0, help="seconds of each search")
    command.add_argument("--scratch", type=Path, default=Path("/tmp"))
    options = command.parse_args()
    patterns = options.match.split(",")
    pairs: dict[str, list[Path]] = {}
    for network, vnnlib, _ in csv.reader((options.folder / "instances.csv").read_text().splitlines()):
        if any(fnmatch.fnmatch(Path(network).stem, pattern) for pattern in patterns):
            pairs.setdefault(network, []).append(options.folder / vnnlib)
    print(
        "| network | products | zeros | proof | n | leaves | bytes | searched s | written s | checked s "
        "| checked / searched |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for network, properties in pairs.items():
        products, zeros = weights(options.folder / network)
        groups: dict[str, list[Cost]] = {}
        for cost in measured(
            options.folder / network, properties[: options.properties], options.timeout, options.scratch
        ):
            groups.setdefault(cost.how, []).append(cost)
        groups["all"] = [cost for group in groups.values() for cost in group]
        for how, group in groups.items():
            ratio = sum(c.checked for c in group) / max(1e-9, sum(c.searched for c in group))
            print(
                f"| {Path(network).stem} | {products:,} | {zeros:.0%} | {how} | {len(group)} | "
                f"{spread([c.leaves for c in group], 'g')} | {spread([c.size for c in group], ',.0f')} | "
                f"{spread([c.searched for c in group], '.2f')} | {spread([c.written for c in group], '.2f')} | "
                f"{spread([c.checked for c in group], '.2f')} | {ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
