"""Answer one instance as the verification competition (VNN-COMP) asks: one results file, within one limit.

    prunecert vnncomp net.onnx property.vnnlib results.txt 300

The file's first line is sat, unsat, timeout, unknown or error; behind `sat` the counterexample follows, ((X_0 value) …
(Y_0 value) …), whose outputs are onnxruntime's. Verifiers are asked one after the other until one decides: the sparse
engine, then others that are installed. The scripts of the folder vnncomp/ call this.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.options import SECONDS
from prunecert.bench.running.competition import DEFAULT, answer, results_text
from prunecert.errors import EXIT_OK, EXIT_USAGE, describe, run_main
from prunecert.files import write_text
from prunecert.page_help import PageHelp


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0, and 2 if the file says error."""
    parser = argparse.ArgumentParser(prog="prunecert vnncomp", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("onnx", type=Path, help="network, .onnx or .onnx.gz")
    parser.add_argument("vnnlib", type=Path, help="property, .vnnlib or .vnnlib.gz")
    parser.add_argument("results", type=Path, help="the file to write")
    parser.add_argument("timeout", type=SECONDS, help="seconds for everything")
    parser.add_argument("--verifiers", default=",".join(DEFAULT), help="in the order in which they are asked")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    names = tuple(name.strip() for name in options.verifiers.split(",") if name.strip())
    try:
        with tempfile.TemporaryDirectory(prefix="prunecert-") as scratch:
            verdict = answer(options.onnx, options.vnnlib, options.timeout, names, Path(scratch))
    except Exception as error:
        # The competition reads the file, whatever happens; an instance without one would count as not run.
        write_text(options.results, "error\n")
        print(f"error: {describe(error)[0]}", file=sys.stderr)
        return EXIT_USAGE
    text = results_text(verdict)
    write_text(options.results, text)
    print(f"{verdict!r}", file=sys.stderr)
    return EXIT_USAGE if text == "error\n" else EXIT_OK


if __name__ == "__main__":
    run_main(main)
