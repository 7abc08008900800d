"""Time the sparse engine's complete verifier beside others, and with earlier proofs beside without.

    prunecert sparse-benchmark complete --onnx NET.onnx … --images 200 --timeout 60
    prunecert sparse-benchmark reuse --onnx DENSE.onnx X2.onnx X10.onnx X20.onnx X100.onnx --images 200

Asked are the images of the set that a network classifies correctly and that CROWN leaves open, or, with --proved, all
that it classifies correctly, as published percentiles mostly are (--published sets such beside). `complete` asks every
verifier about each image in turn, in an order that changes from image to image, all with the same limit, in worker
processes that are warm; start-up and loading are not counted. `reuse` takes the networks for a chain of neighbours, and
asks the search with and without the proofs of the networks before. Times are wall-clock; an image that is not decided
counts with its time in the percentiles, with twice the limit in PAR2 and with the limit in ratios, in which images that
nobody decides don't count. A verdict of one verifier that contradicts
another's ends the command with exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.engine import answers as timed
from prunecert.bench.engine.cold import installed
from prunecert.bench.engine.complete import OURS, WITH_PROOFS, BenchmarkRequest, complete, reuse
from prunecert.bench.options import IMAGES, RADIUS, REPEATS, SECONDS, THREADS
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, run_main
from prunecert.page_help import PageHelp


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    commands = argparse.ArgumentParser(prog="prunecert sparse-benchmark", description=__doc__, formatter_class=PageHelp)
    verbs = commands.add_subparsers(dest="verb", required=True)
    for verb in ("complete", "reuse"):
        sub = verbs.add_parser(verb, description=__doc__, formatter_class=PageHelp)
        sub.add_argument("--onnx", nargs="+", type=Path, required=True, help="networks; for reuse in the chain's order")
        sub.add_argument("--images", type=IMAGES, default=200, help="the first N images of the set (default: 200)")
        sub.add_argument("--split", choices=("test", "val"), default="test", help="of CIFAR-10 (default: test)")
        sub.add_argument("--eps", type=RADIUS, default=2 / 255, help="radius, linf (default: 2/255)")
        sub.add_argument("--timeout", type=SECONDS, default=60.0, help="seconds an image (default: 60)")
        sub.add_argument("--threads", type=THREADS, default=2, help="of each verifier (default: 2)")
        sub.add_argument("--repeats", type=REPEATS, default=1, help="times that each image is asked (default: 1)")
        sub.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
        sub.add_argument("--proved", action="store_true", help="ask about images that CROWN proves, too")
        sub.add_argument(
            "--published", nargs="+", type=timed.Published.parse, default=[], metavar="FIGURES",
            help="NAME=MEDIAN,P90,P99: seconds that somebody has published, to set beside each verifier's",
        )  # fmt: skip
        sub.add_argument("--out", type=Path, help="write all answers to this JSON file")
    everyone = "default: all complete ones that are there"
    verbs.choices["complete"].add_argument("--verifiers", default="", metavar="NAME[,NAME]", help=everyone)
    return commands


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    options = parser().parse_args(argv)
    names = ("images", "split", "eps", "timeout", "threads", "repeats", "data_root", "proved")
    request = BenchmarkRequest(onnx=tuple(options.onnx), **{name: getattr(options, name) for name in names})
    if options.verb == "complete":
        present, absent = installed([name for name in options.verifiers.split(",") if name])
        sys.stderr.writelines(f"{sentence}\n" for sentence in absent)
        answers = complete(request, present)
        timed.show(timed.table(answers, request.timeout))
        timed.show(timed.by_outcome(answers, OURS, request.timeout))
    else:
        answers = reuse(request)
        timed.show(timed.table(answers, request.timeout))
        timed.say_lines(timed.reuse_summary(answers, WITH_PROOFS, OURS, request.onnx[0].name))
    timed.say_lines(timed.beside(answers, options.published))
    if options.out is not None:
        timed.write(answers, options.out)
    sentences = timed.contradictions(answers)
    timed.say_lines([f"CONTRADICTION {sentence}" for sentence in sentences])
    return EXIT_REGRESSION if sentences else EXIT_OK


if __name__ == "__main__":
    run_main(main)
