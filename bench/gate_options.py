"""The options of `bench.gate`: from a command line to a request; with ``--suite``, those of `bench.run` as well."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.gating.records import Snapshot
from prunecert.bench.gating.run import GateRequest
from prunecert.bench.running.proof_checks import EXPORTS
from prunecert.bench.running.request import RunRequest
from prunecert.bench.schema.gate import REQUIREMENTS
from prunecert.page_help import PageHelp


def gate_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Returns the argument parser of `bench.gate`."""
    parser = argparse.ArgumentParser(
        prog="prunecert gate",
        description=description,
        allow_abbrev=False,
        epilog="With --suite, all other options go to 'prunecert run'; see prunecert run --help.",
        formatter_class=PageHelp,
    )
    parser.add_argument("--baseline", type=Path, required=True, help="baseline file, made by prunecert baseline")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, help="run directory to gate")
    what.add_argument("--suite", help="run this suite first, and gate that run")
    parser.add_argument(
        "--rules", type=Path, metavar="YAML", help="file with a gate: section (default: the suite's own)"
    )
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument(
        "--skip-unavailable", action="store_true", help="gate although verifiers were not installed for the run"
    )
    parser.add_argument("--any-version", action="store_true", help="gate although verifiers have other versions")
    parser.add_argument("--fail-on-time", action="store_true", help="fail, not warn, when the run is slower")
    parser.add_argument(
        "--require", choices=REQUIREMENTS, default="", help="of each verified image, checked now (default: the rules')"
    )
    parser.add_argument("--exports", type=Path, help=f"folder for ONNX files (default: {EXPORTS})")
    parser.add_argument("--data-root", type=Path, help="folder of the images")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="folder for junit.xml, gate.json, … (default: RUN/gate)"
    )
    return parser


def directory_of(options: argparse.Namespace, rest: Sequence[str]) -> Path:
    """Returns the run directory: the one named, or that of the run to be made.

    Args:
        options: What `gate_parser` has made of the arguments.
        rest: Arguments that it left over, for `bench.run`.
    """
    if options.suite is None:
        run: Path = options.run
        return run
    from prunecert.bench.run_options import run_parser

    run_options = run_parser().parse_args(["--suite", options.suite, *rest])
    out: Path | None = run_options.out
    return out or Path("results/runs") / f"gate-{Path(options.suite).stem}-{run_options.profile}"


def request_of(options: argparse.Namespace, rest: Sequence[str], base: Snapshot, directory: Path) -> GateRequest:
    """Returns what is asked for.

    Args:
        options: What `gate_parser` has made of the arguments.
        rest: Arguments that it left over, for `bench.run`.
        base: The baseline.
        directory: The run directory.

    Raises:
        UserError: An option of the run makes no sense, or its suite can't be read.
    """
    return GateRequest(
        base=base,
        directory=directory,
        run=None if options.suite is None else _run_request(options, rest, directory),
        suite=options.suite,
        rules=options.rules,
        cells=options.cells,
        skip_unavailable=options.skip_unavailable,
        any_version=options.any_version,
        fail_on_time=options.fail_on_time,
        require=options.require,
        exports=options.exports or EXPORTS,
        data_root=options.data_root,
    )


def _run_request(options: argparse.Namespace, rest: Sequence[str], directory: Path) -> RunRequest:
    """Returns the run that is made first, with the options that it shares with the gate."""
    from prunecert.bench.run_options import request_of, run_parser

    argv = ["--suite", options.suite, *rest, "--out", str(directory)]
    for flag, folder in (("--exports", options.exports), ("--data-root", options.data_root)):
        argv += [] if folder is None else [flag, str(folder)]
    if options.cells is not None:
        argv += ["--cells", options.cells]
    if options.skip_unavailable:
        argv.append("--skip-unavailable")
    return request_of(run_parser().parse_args(argv), argv)
