"""Compare `prunecert run` with the loop that one writes today: the verifier's own command line, once for each instance.

Both get the same ONNX files, properties, limits, cores and number of processes. Three sides: `loop` starts NeuralSAT or
alpha-beta-CROWN once for each line of instances.csv; `run` is `prunecert run` with the suite's cascade; `alone` is the
same with that verifier only, so that one sees what comes from the warm process and what from the cascade. Writes
comparison.json and comparison.md. Exit code 1 if a side proves what another breaks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from prunecert.bench.comparison.report import markdown, write
from prunecert.bench.comparison.request import SIDES, TOOLS, ComparisonRequest
from prunecert.bench.comparison.run import run_comparison
from prunecert.bench.options import IMAGES, SEED, WORKERS
from prunecert.bench.planning import select
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, run_main
from prunecert.page_help import PageHelp


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert compare", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("--suite", default="cifar10-4nets", help="name of a shipped suite, or a .yaml file")
    parser.add_argument("--profile", default="default", help="whose limits hold on all sides (default: default)")
    parser.add_argument("--verifier", default="neuralsat", help=f"{' or '.join(TOOLS)} (default: neuralsat)")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument("--images", type=IMAGES, help="the first N images instead of the profile's number")
    parser.add_argument("--image-seed", type=SEED, help="draw the images with this seed instead of taking the first")
    parser.add_argument("--loop-sample", type=IMAGES, metavar="K", help="loop over K instances, and scale its time up")
    parser.add_argument("--seed", type=SEED, default=0, help="of --loop-sample (default: 0)")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"which to run, in order (default: {','.join(SIDES)})")
    parser.add_argument("--workers", type=WORKERS, help="processes side by side on every side (default: one a core)")
    parser.add_argument("--out", type=Path, help="folder to write (default: results/comparisons/SUITE-VERIFIER)")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    where = "folder of trained cells (default: ./checkpoints, then those that ship; in a checkout the zoo)"
    parser.add_argument("--checkpoints", type=Path, default=select.CHECKPOINTS, help=where)
    parser.add_argument("--abcrown", type=Path, metavar="PATH", help="a checkout of alpha-beta-CROWN")
    return parser


def request_of(options: argparse.Namespace, argv: Sequence[str]) -> ComparisonRequest:
    """Returns what the options ask for; they are named alike."""
    names = [field.name for field in fields(ComparisonRequest) if field.name != "argv"]
    return ComparisonRequest(**{name: getattr(options, name) for name in names}, argv=tuple(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Returns:
        0, or 1 if a side proves what another breaks.

    Raises:
        UserError: Anything about the input, or a command that failed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    request = request_of(parser().parse_args(arguments), arguments)
    result = run_comparison(request)
    files = write(result, request.folder)
    print(markdown(result))
    for line in result["differences"]:
        print(f"decided on some sides only: {line}")
    for line in result["contradictions"]:
        print(f"CONTRADICTION: {line}")
    for path in files:
        print(f"wrote {path}")
    return EXIT_REGRESSION if result["contradictions"] else EXIT_OK


if __name__ == "__main__":
    run_main(main)
