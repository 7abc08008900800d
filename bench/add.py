"""Verify a network of your own, and say what pruning has kept of its dense one.

    prunecert add pruned.onnx --eps 2/255 --dense dense.onnx
    prunecert add mypkg.nets:make_pruned --dense mypkg.nets:make_dense --data mnist --eps 0.1 0.2
    prunecert add net.onnx --data images.npz --eps 2/255        # with x_test and y_test in it

A network is an ONNX file, `module:attribute` (a PyTorch module or a function that makes one), or a .safetensors
checkpoint of `prunecert train`. Beside the results, the run's folder gets suite.yaml: change it, and run it again with
`prunecert run --suite`. The same command again goes on where the last one stopped.

Exit codes: 0 fine; 1 verifiers contradict each other; 2 bad input, or no verifier takes the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.options import IMAGES, SECONDS
from prunecert.bench.running.adding import Addition, add, arrays_entry, kept_accuracies, run_folder
from prunecert.bench.running.critical_radii import RadiusRequest, find_radii
from prunecert.bench.schema.cell import parse_eps
from prunecert.errors import EXIT_REGRESSION, EXIT_USAGE, run_main
from prunecert.page_help import PageHelp
from prunecert.printable import say


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    command = argparse.ArgumentParser(prog="prunecert add", description=__doc__, formatter_class=PageHelp)
    command.add_argument("network", help="an .onnx file, module:attribute, or a .safetensors checkpoint")
    command.add_argument("--eps", required=True, nargs="+", metavar="R", help="radii in the sup norm, e.g. 2/255")
    command.add_argument("--dense", default="", metavar="NETWORK", help="the network that it was pruned from")
    command.add_argument("--name", default="", help="what to call it (default: by its file)")
    command.add_argument("--data", default="cifar10", help="a data set, e.g. mnist, or an .npz file (default: cifar10)")
    command.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the data")
    command.add_argument("--images", type=IMAGES, default=100, metavar="N", help="first test images (default: 100)")
    command.add_argument("--verifiers", default="", metavar="NAME,…", help="who is asked (default: what is installed)")
    command.add_argument("--timeout", type=SECONDS, default=20.0, metavar="S", help="for each image (default: 20)")
    command.add_argument(
        "--critical-radius", type=IMAGES, nargs="?", const=10, metavar="N",
        help="close in on the radius up to which each of the first N images holds: proved, and broken (default: 10)",
    )  # fmt: skip
    command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    command.add_argument("--out", type=Path, metavar="DIR", help="run's folder (default: results/runs/added-NAME)")
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    addition = Addition(
        network=options.network,
        dense=options.dense,
        name=options.name,
        radii=tuple(dict.fromkeys(parse_eps(text) for text in options.eps)),
        data=arrays_entry(Path(options.data), options.network) if options.data.endswith(".npz") else options.data,
        images=options.images,
        verifiers=tuple(name.strip() for name in options.verifiers.split(",") if name.strip()),
        timeout=options.timeout,
        out=options.out or run_folder(options.name or options.network),
        data_root=options.data_root,
        device=options.device,
    )
    result = add(addition)
    for kept in kept_accuracies(result.out):
        say(kept)
    if options.critical_radius is None or result.exit_code == EXIT_USAGE:
        return result.exit_code
    contradictions = find_radii(result.plans, RadiusRequest(result.out, options.critical_radius), say)
    for line in contradictions:
        say(f"CONTRADICTION: {line}")
    return EXIT_REGRESSION if contradictions else result.exit_code


if __name__ == "__main__":
    run_main(main)
