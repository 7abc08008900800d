"""What certificates cost: bytes, and seconds of searching, writing and checking, against network, sparsity and leaves.

    python -m tests.benchmarks.certificates onnx_exports/costs --export --document docs/certificates.md
    python -m tests.benchmarks.certificates onnx_exports/cifar10-4nets --match 'cnn-small*x10*' --properties 20

With --export it first exports the networks of `CELLS` into the folder. With --document the table is put between the
marks of a page. It ends within --minutes, but for the property that is under way then: each network gets an equal share
of what is left, and as many of its properties as fit in.

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
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from prunecert.bench import export
from prunecert.bench.results.schema import between_marks
from prunecert.errors import run_main
from prunecert.files import write_text
from prunecert.page_help import PageHelp
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
from prunecert.verifiers.sparse.warmup import warm_up

#: What is measured for the page.
CELLS = {
    "cifar10-4nets": (
        *(f"cnn-small_mtl-ibp_eps2_{pruned}_s0" for pruned in ("dense_x1", "lwm_x10", "lwm_x100")),
        *(f"cnn-large_mtl-ibp_eps2_{pruned}_s0" for pruned in ("dense_x1", "lwm_x10", "lwm_x100")),
    ),
    "cifar10-certified": ("cnn5_mtl-ibp_eps2_lwm_x10_s0",),
}
BEGIN = "<!-- made by python -m tests.benchmarks.certificates: begin -->"
END = "<!-- made by python -m tests.benchmarks.certificates: end -->"


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


def measured(onnx: Path, properties: list[Path], timeout: float, until: float, folder: Path) -> Iterator[Cost]:
    """Searches, writes and checks, and yields what that costs for each property, until `time.monotonic` is so late."""
    layers = read_sparse(onnx)
    engine, checker = Engine(layers, threads()), Checker(layers, threads())
    certifier, target = Certifier(onnx, (engine, checker)), folder / "certificate"
    for number, vnnlib in enumerate(properties):
        if number and time.monotonic() > until:
            return
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
        written, content = certifier.certify(vnnlib.read_bytes(), timeout, finished=[run], witness=outcome.witness)
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


def instances(folder: Path, match: str) -> dict[Path, list[Path]]:
    """Returns a folder's networks and their properties."""
    pairs: dict[Path, list[Path]] = {}
    for network, vnnlib, _ in csv.reader((folder / "instances.csv").read_text().splitlines()):
        if any(fnmatch.fnmatch(Path(network).stem, pattern) for pattern in match.split(",")):
            pairs.setdefault(folder / network, []).append(folder / vnnlib)
    return pairs


def table(pairs: dict[Path, list[Path]], count: int, timeout: float, end: float) -> Iterator[str]:
    """Yields a line for each network and way of proving, when it is known; `end` is a value of `time.monotonic`."""
    with tempfile.TemporaryDirectory(prefix="prunecert-") as scratch:
        for left, (network, properties) in zip(range(len(pairs), 0, -1), pairs.items(), strict=True):
            products, zeros = weights(network)
            groups: dict[str, list[Cost]] = {}
            until = time.monotonic() + (end - time.monotonic()) / left
            for cost in measured(network, properties[:count], timeout, until, Path(scratch)):
                groups.setdefault(cost.how, []).append(cost)
            groups["all"] = [cost for group in groups.values() for cost in group]
            for how, group in groups.items():
                ratio = sum(c.checked for c in group) / max(1e-9, sum(c.searched for c in group))
                yield (
                    f"| {network.stem} | {products:,} | {zeros:.0%} | {how} | {len(group)} | "
                    f"{spread([c.leaves for c in group], 'g')} | {spread([c.size for c in group], ',.0f')} | "
                    f"{spread([c.searched for c in group], '.2f')} | {spread([c.written for c in group], '.2f')} | "
                    f"{spread([c.checked for c in group], '.2f')} | {ratio:.2f} |"
                )


def head() -> Iterator[str]:
    """Yields the table's first lines."""
    yield (
        "| network | products | zeros | proof | n | leaves | bytes | searched s | written s | checked s "
        "| checked / searched |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"


def main() -> int:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("folder", type=Path)
    command.add_argument("--export", action="store_true", help="export the networks of CELLS into the folder first")
    command.add_argument("--match", default="*", help="names of networks, comma-separated shell patterns")
    command.add_argument("--properties", type=int, default=40, help="most of each network")
    command.add_argument("--timeout", type=float, default=20.0, help="seconds of each search")
    command.add_argument("--minutes", type=float, default=11.0, help="of all, export included")
    command.add_argument("--document", type=Path, help="a page with the marks between which the table goes")
    options = command.parse_args()
    end = time.monotonic() + 60 * options.minutes
    # Compiling, where that is due, is no part of anything that is measured.
    warm_up()
    folders = [options.folder / suite for suite in CELLS] if options.export else [options.folder]
    for suite, cells in CELLS.items() if options.export else ():
        words = ["--suite", suite, "--cells", ",".join(cells), "--out", str(options.folder / suite)]
        # Most of a set are classified correctly; the others make no property.
        export.main([*words, "--images", str(2 * options.properties)])
    lines = []
    pairs = {onnx: files for folder in folders for onnx, files in instances(folder, options.match).items()}
    for line in itertools.chain(head(), table(pairs, options.properties, options.timeout, end)):
        print(line, flush=True)
        lines.append(line)
    if options.document is not None:
        text = options.document.read_text(encoding="utf-8")
        write_text(options.document, between_marks(text, BEGIN, END, "\n".join([*lines, ""])))
    return 0


if __name__ == "__main__":
    run_main(main)
