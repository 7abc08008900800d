"""Make the leaderboard site from the entries in a results folder: static files, no server, no outside requests."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.leaderboard.check import check_tree
from prunecert.bench.leaderboard.entry import Entry, entry_files
from prunecert.bench.leaderboard.proofs import read_record
from prunecert.bench.leaderboard.runs import LargerRun, larger_runs
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.printable import say

_SHOWN = 10


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert publish", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the results folder")
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder of the site (default: site); replaced")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out entries that bench.check refuses")
    parser.add_argument(
        "--onnx", type=Path, metavar="FOLDER", help="offer the entries' ONNX files, found there by their hashes"
    )
    return parser


def read(results: Path, skip_invalid: bool) -> tuple[dict[str, Entry], dict[str, LargerRun], list[str]]:
    """Returns the valid entries by name, runs over more images by entry, and what is to be said of the others.

    Raises:
        UserError: There is no entry, no valid one, or an invalid one that is not to be skipped.
    """
    if not entry_files(results):
        raise UserError(f"{results} holds no leaderboard entry; make some with bench.run --submit.")
    good, problems = check_tree(results)
    runs, faults = larger_runs(results, good)
    wrong = [*map(str, problems), *map(str, faults)]
    if wrong and not skip_invalid:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise UserError(
            f"{results} holds entries with problems, so nothing is published; mend them, or leave them out with "
            "--skip-invalid:",
            [*wrong[:_SHOWN], *more],
        )
    if not good:
        raise UserError(f"{results} holds no valid leaderboard entry; see python -m bench.check {results}.")
    return good, runs, [f"left out: {problem}" for problem in wrong]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Returns:
        0.

    Raises:
        UserError: There is nothing valid to publish, or the target is not ours to replace.
    """
    from prunecert.bench.site.build import Content, check_target, find_onnx, publish
    from prunecert.bench.site.downloads import has_pyarrow

    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    began = time.monotonic()
    check_target(options.out)
    entries, larger, remarks = read(options.results, options.skip_invalid)
    onnx = find_onnx(options.onnx, entries)
    for remark in remarks:
        say(remark)
    parquet = has_pyarrow()
    if not parquet:
        print("no Parquet download: pyarrow is not installed; pip install 'prunecert[publish]' brings it.")
    records = {name: read_record(entry_files(options.results)[0].parent, entry) for name, entry in entries.items()}
    proofs = {name: record.words for name, record in records.items() if record is not None}
    publish(Content(entries, larger, onnx, parquet, proofs), options.out)
    print(f"{len(entries)} entries in {time.monotonic() - began:.1f} s; open {options.out / 'index.html'}")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
