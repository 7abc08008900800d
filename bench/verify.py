"""Verify anybody's ONNX network against anybody's VNN-LIB property.

One pair, or a benchmark in VNN-COMP's layout; with one verifier or several, which are then checked against each other.

    prunecert verify --onnx net.onnx --vnnlib prop.vnnlib --verifier neuralsat --timeout 60
    prunecert verify --instances instances.csv --verifier crown,abcrown --out results/runs/acasxu

Written to the folder of --out: results.csv as VNN-COMP has it (a folder for each verifier if there are several), a
counterexample file for each `sat` with the record of its replay beside it, the verifiers' own output in logs/, and a
log with the full verdicts. The same command again goes on where the last one stopped.

A file's property may have several boxes: it is `sat` if one of them is, and `unsat` only if all are. A counterexample
must lie in the box that the file states, compared in binary64, and keep its strict inequalities; `docs/vnnlib.md` says
how files and instance lists are read. What the text gives away is answered without a verifier, with a warning: an
empty input set is `unsat`, a box without a constraint on the outputs `sat`. A row of a list that can't be read ends in
`error` and costs no other row its answer; equal rows are answered once and listed as often as they are asked.

--with NET2 asks whether two networks are alike over the boxes of --vnnlib, as --alike says, or what a VNN-LIB 2.0 query
over two networks asks (docs/pairs.md). Both become one file, so that every verifier can be asked; `sparse-pair` is made
for it, and takes networks of one architecture.

--compact hands the verifiers the network without the units that do nothing. Answers are about the network as it was
given all the same: a counterexample counts only if it is one there, too.

Exit codes: 0 fine; 1 a contradiction (one verifier proves what another breaks), or no certificate where --certificate
asks for one; 2 bad input or a broken run: some property ended in `error`, which is no answer, or is `unsupported` by
every verifier that was asked, which results.csv has as `unknown`. Limits that were reached (timeout, memout) and
`unknown` are answers. `--retry error` asks again what went wrong, and keeps the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from prunecert.bench.running.verification import run_properties
from prunecert.bench.verify_options import request_of, verify_parser
from prunecert.errors import run_main


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    return verify_parser(__doc__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    return run_properties(request_of(parser().parse_args(arguments), arguments))


if __name__ == "__main__":
    run_main(main)
