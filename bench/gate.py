"""The CI regression gate: compare a run with its baseline, image by image.

With --run an existing run is gated. With --suite the suite is run first, by bench.run and its options, and gated;
what makes a comparison impossible, such as other limits, data, versions, images or verifiers, is found before the first
image. The suite's networks may be your own ONNX files: see docs/gate.md.
Exit code 0: fine; 1: a regression or a contradiction; 2: wrong usage, a run that is not complete, or one in which a
verifier failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from prunecert.bench.gating import badge, baseline_file, github, junit, markdown, series, table
from prunecert.bench.gating.certificates import Sources, with_certificates
from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.records import Snapshot, of_run
from prunecert.bench.gating.refusal import planned, refuse_incomparable
from prunecert.bench.gating.result import GateResult
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.running.proof_checks import EXPORTS
from prunecert.bench.schema.cell import fitting
from prunecert.bench.schema.gate import REQUIREMENTS, RuleSet
from prunecert.bench.schema.suite import available_suites, load_rules, load_suite
from prunecert.errors import UserError, ending_at_once, run_main
from prunecert.files import write_text

#: What a gate that could compare leaves in its report folder beside ``junit.xml``.
WRITTEN = ("gate.json", "gate.md", "benchmark-bigger.json", "benchmark-smaller.json", "badge.json", "badge.svg")


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(
        prog="prunecert gate",
        description=__doc__,
        allow_abbrev=False,
        epilog="With --suite, all other options go to bench.run; see python -m bench.run --help.",
    )
    parser.add_argument("--baseline", type=Path, required=True, help="baseline file, made by bench.baseline")
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


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Args:
        argv: Arguments; the process's own by default.
        environment: Environment variables; the process's own by default. ``GITHUB_ACTIONS`` and
            ``GITHUB_STEP_SUMMARY`` are looked at.

    Raises:
        UserError: The two can't be compared; the report folder then says so as well.
    """
    environment = os.environ if environment is None else environment
    own = parser()
    options, rest = own.parse_known_args(sys.argv[1:] if argv is None else argv)
    if rest and options.suite is None:
        own.error(f"unrecognized arguments: {' '.join(rest)} (bench.run's options need --suite)")
    console = Console(highlight=False)
    folder: Path | None = options.report
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"--report {folder} is refused: it is a file; give a folder.")
    try:
        base = baseline_file.read(options.baseline)
        directory = options.run if options.suite is None else _out(options, rest)
        folder = folder or directory / "gate"
        # Before the long work, not after it.
        rules = _rules(options, base)
        required = options.require or rules.require
        cells = _cells(base, options.cells)
        if options.suite is not None:
            _run(options, [*rest, *(["--certificates"] if required else [])], directory, base, cells)
        snapshot = of_run(directory)
        result = compare(
            base,
            snapshot,
            rules,
            cells=cells,
            skip_unavailable=options.skip_unavailable,
            any_version=options.any_version,
            fail_on_time=options.fail_on_time,
        )
        if required:
            sources = Sources(options.exports or EXPORTS, options.data_root, options.suite)
            result = with_certificates(result, snapshot, directory, sources)
    except UserError as error:
        # A mistyped --run is not to be made into a folder.
        there = options.report is not None or (folder is not None and folder.parent.is_dir())
        _refuse(str(error), folder if there else None, environment)
        raise
    table.show(result, console)
    _write(result, folder, console)
    github.append_summary(environment, markdown.render(result))
    if github.active(environment):
        for line in github.commands(result):
            print(line)
    return result.exit_code


def _out(options: argparse.Namespace, rest: Sequence[str]) -> Path:
    """Returns the run directory of the one-line form."""
    from prunecert.bench.run_options import run_parser

    run_options = run_parser().parse_args(["--suite", options.suite, *rest])
    out: Path | None = run_options.out
    return out or Path("results/runs") / f"gate-{Path(options.suite).stem}-{run_options.profile}"


def _run(
    options: argparse.Namespace, rest: Sequence[str], directory: Path, base: Snapshot, cells: Sequence[str] | None
) -> None:
    """Runs the suite, unless it couldn't be compared with the baseline when it is done.

    What the run's exit code stands for is in the run, so the gate finds it there.
    """
    from prunecert.bench.run_options import request_of, run_parser
    from prunecert.bench.running.run import run_suite

    argv = ["--suite", options.suite, *rest, "--out", str(directory)]
    for flag, folder in (("--exports", options.exports), ("--data-root", options.data_root)):
        argv += [] if folder is None else [flag, str(folder)]
    if options.cells is not None:
        argv += ["--cells", options.cells]
    if options.skip_unavailable:
        argv.append("--skip-unavailable")
    names = list(base.cells if cells is None else cells)

    def inspect(session: SessionRow) -> None:
        refuse_incomparable(
            base,
            planned(session, base),
            names,
            skip_unavailable=options.skip_unavailable,
            any_version=options.any_version,
        )

    request = request_of(run_parser().parse_args(argv), argv)
    # A sample is compared with a sample only: without the data nothing is begun.
    request = replace(request, sample=any(data.sample for data in base.head.data))
    run_suite(request, inspect=inspect)


def _cells(base: Snapshot, patterns: str | None) -> list[str] | None:
    """Returns the baseline's cells that fit the patterns; None for all."""
    if patterns is None:
        return None
    return fitting(base.cells, patterns, "the baseline")


def _rules(options: argparse.Namespace, base: Snapshot) -> RuleSet:
    """Returns the rules of --rules; else those of the suite; else the defaults."""
    if options.rules is not None:
        return load_rules(options.rules)
    suite = options.suite or base.head.suite
    if options.suite is not None or suite in available_suites():
        return load_suite(suite).gate or RuleSet()
    return RuleSet()


def _write(result: GateResult, folder: Path, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "junit.xml": junit.render(result),
        "gate.md": markdown.render(result),
        "gate.json": _json(result.to_json()),
        "benchmark-bigger.json": _json(series.bigger_is_better(result)),
        "benchmark-smaller.json": _json(series.smaller_is_better(result)),
        "badge.json": _json(badge.endpoint(result)),
        "badge.svg": badge.svg(result),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    console.print(f"wrote {', '.join(texts)} in {folder}", markup=False, soft_wrap=True)


def _json(data: object) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _refuse(message: str, folder: Path | None, environment: Mapping[str, str]) -> None:
    """Leaves the refusal where CI looks, so that reports of an earlier gate don't pass for this one's."""
    if folder is not None:
        for name in WRITTEN:
            (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "junit.xml", junit.render_refusal(message))
    github.append_summary(environment, markdown.render_refusal(message))
    if github.active(environment):
        print(github.annotation("error", "bench.gate", message))


def command() -> int:
    """Runs `main`, which Ctrl-C ends at once."""
    return ending_at_once(main)


if __name__ == "__main__":
    run_main(command)
