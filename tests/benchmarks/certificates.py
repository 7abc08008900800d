"""What certificates cost: bytes, and seconds of finding and checking, against network, sparsity and leaves.

    python -m tests.benchmarks.certificates onnx_exports/cifar10-4nets --match 'cnn-small*x10*' --properties 20

Reads the folder's instances.csv, as bench.export writes it, and prints a Markdown table: one row a network and way of
proving. Seconds are those of this process alone (`time.process_time`), for checking and for finding.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from prunecert.verifiers.checker import check
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.sparse.certificates import Certifier, Written


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


def measured(
    onnx: Path, properties: list[Path], timeout: float, folder: Path
) -> Iterator[tuple[Written, float, float]]:
    """Writes and checks a certificate of each property; yields it with seconds of finding and of checking."""
    certifier, target = Certifier(onnx), folder / "certificate"
    for vnnlib in properties:
        begin = time.process_time()
        written = certifier.write(vnnlib, target, timeout)
        middle = time.process_time()
        if not written.reason:
            check(target, onnx, vnnlib)
        checking = time.process_time() - middle
        # Writing includes a check.
        yield written, middle - begin - checking, checking


def main() -> None:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("folder", type=Path)
    command.add_argument("--match", default="*", help="names of networks")
    command.add_argument("--properties", type=int, default=20, help="of each network")
    command.add_argument("--timeout", type=float, default=30.0, help="seconds of each search")
    command.add_argument("--scratch", type=Path, default=Path("/tmp"))
    options = command.parse_args()
    pairs: dict[str, list[Path]] = {}
    for network, vnnlib, _ in csv.reader((options.folder / "instances.csv").read_text().splitlines()):
        if fnmatch.fnmatch(Path(network).stem, options.match):
            pairs.setdefault(network, []).append(options.folder / vnnlib)
    print("| network | products | zeros | proof | certificates | leaves | bytes | found in s | checked in s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for network, properties in pairs.items():
        products, zeros = weights(options.folder / network)
        groups: dict[str, list[tuple[Written, float, float]]] = {}
        items = measured(options.folder / network, properties[: options.properties], options.timeout, options.scratch)
        for item in items:
            groups.setdefault(item[0].how or f"none ({item[0].status})", []).append(item)
        for how, group in groups.items():
            leaves, sizes = [w.leaves for w, _, _ in group], [w.size for w, _, _ in group]
            print(
                f"| {Path(network).stem} | {products:,} | {zeros:.0%} | {how} | {len(group)} | {median(leaves):g} to "
                f"{max(leaves)} | {median(sizes):,.0f} to {max(sizes):,} | {median(f for _, f, _ in group):.2f} to "
                f"{max(f for _, f, _ in group):.2f} | {median(c for _, _, c in group):.2f} to "
                f"{max(c for _, _, c in group):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
