"""Write and check certificates: proofs of a property file that anybody can check (docs/certificates.md).

    prunecert certificate write proof.cert --onnx net.onnx --vnnlib prop.vnnlib --timeout 60
    prunecert certificate check proof.cert --onnx net.onnx --vnnlib prop.vnnlib
    prunecert certificate check --run results/runs/mine --workers 2

`write` proves or breaks the property by the sparse engine, checks the certificate and only then writes it. `check`
answers in one line; the folder verifiers/checker does the same without the rest of this program. With --run it checks
all certificates of a `prunecert run --certificates`: networks are found by their hashes, properties written anew.

Exit codes: 0 the certificate holds (`write`: is written); 1 it does not, or is for another network or property
(`write`: there is none, and the line says why); 2 a file can't be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from prunecert.bench.options import SECONDS, add_checking_options
from prunecert.bench.results.vnncomp import all_existing
from prunecert.bench.running.certifying import Checking, check_file, check_folder, write_file
from prunecert.errors import UserError, run_main
from prunecert.page_help import PageHelp


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    command = argparse.ArgumentParser(prog="prunecert certificate", description=__doc__, formatter_class=PageHelp)
    verbs = command.add_subparsers(dest="verb", required=True, metavar="check|write")
    for verb, words in (("check", "check certificates"), ("write", "find a proof or a counterexample and write it")):
        part, checks = verbs.add_parser(verb, help=words, formatter_class=PageHelp), verb == "check"
        part.add_argument(
            "certificate", type=Path, nargs="?" if checks else None, metavar="FILE", help="the certificate"
        )
        for flag, kind in (("--onnx", "network, .onnx or .onnx.gz"), ("--vnnlib", "property, .vnnlib or .vnnlib.gz")):
            part.add_argument(flag, type=Path, required=not checks, metavar="FILE", help=kind)
        if checks:
            add_checking_options(part)
        else:
            part.add_argument(
                "--timeout", type=SECONDS, default=300.0, metavar="S", help="limit of the search (default: 300)"
            )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(arguments)
    files = options.certificate, options.onnx, options.vnnlib
    if options.verb == "check" and options.run is not None:
        if files != (None, None, None):
            raise UserError("--run goes without FILE, --onnx and --vnnlib: it names them all.")
        names = [field.name for field in fields(Checking)]
        return check_folder(options.run, Checking(**{name: getattr(options, name) for name in names}))
    if None in files:
        raise UserError("Give FILE with --onnx and --vnnlib, or --run.")
    question = (options.onnx, "ONNX"), (options.vnnlib, "VNN-LIB")
    if options.verb == "check":
        return check_file(*all_existing((options.certificate, "certificate"), *question))
    onnx, vnnlib = all_existing(*question)
    return write_file(options.certificate, onnx, vnnlib, options.timeout)


if __name__ == "__main__":
    run_main(main)
