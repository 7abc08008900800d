"""Write and check certificates: proofs of a property file that anybody can check (docs/certificates.md).

    python -m bench.certificate write proof.cert --onnx net.onnx --vnnlib prop.vnnlib --timeout 60
    python -m bench.certificate check proof.cert --onnx net.onnx --vnnlib prop.vnnlib

`write` proves or breaks the property by the sparse engine, checks the certificate and only then writes it. `check`
answers in one line; the folder verifiers/checker does the same without the rest of this program.

Exit codes: 0 the certificate holds (`write`: is written); 1 it does not, or is for another network or property
(`write`: there is none, and the line says why); 2 a file can't be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.options import SECONDS
from prunecert.bench.results.vnncomp import existing
from prunecert.bench.running.certifying import check_file, write_file
from prunecert.errors import run_main


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    command = argparse.ArgumentParser(
        prog="prunecert certificate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = command.add_subparsers(dest="verb", required=True, metavar="check|write")
    for verb, words in (("check", "check a certificate"), ("write", "find a proof or a counterexample and write it")):
        part = verbs.add_parser(verb, help=words)
        part.add_argument("certificate", type=Path, metavar="FILE", help="the certificate")
        part.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="network, .onnx or .onnx.gz")
        part.add_argument("--vnnlib", type=Path, required=True, metavar="FILE", help="property, .vnnlib or .vnnlib.gz")
        if verb == "write":
            part.add_argument(
                "--timeout", type=SECONDS, default=300.0, metavar="S", help="limit of the search (default: 300)"
            )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(arguments)
    onnx, vnnlib = existing(options.onnx, "ONNX"), existing(options.vnnlib, "VNN-LIB")
    if options.verb == "check":
        return check_file(existing(options.certificate, "certificate"), onnx, vnnlib)
    return write_file(options.certificate, onnx, vnnlib, options.timeout)


if __name__ == "__main__":
    run_main(main)
