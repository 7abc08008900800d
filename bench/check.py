"""Validate a tree of leaderboard entries, offline: every problem is named by file and field."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.leaderboard.check import check_tree, remarks
from prunecert.bench.leaderboard.entry import entry_files
from prunecert.bench.leaderboard.runs import larger_runs
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, run_main
from prunecert.printable import printable, shortened


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Returns:
        0 if all entries and the runs over more images are valid, 1 if one has a problem.

    Raises:
        UserError: There is no such folder, or no entry in it.
    """
    parser = argparse.ArgumentParser(prog="prunecert check", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the results folder")
    parser.add_argument("--data-root", type=Path, help="compare labels and pixels with this copy of CIFAR-10, too")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    data = None
    if options.data_root is not None:
        from prunecert.models.data import load

        data = load("test", options.data_root, download=False, allow_sample=False)
    files = entry_files(options.results)
    if not files:
        raise UserError(f"{shortened(options.results)} holds no leaderboard entry; bench.run --submit makes them.")
    good, problems = check_tree(options.results, data)
    _, faults = larger_runs(options.results, good)
    for problem in (*problems, *faults):
        print(problem)
    for stem, entry in good.items():
        for remark in remarks(entry):
            print(f"note: {shortened(stem)}.json: {printable(remark)}")
    print(f"{len(files)} entries: {len(good)} valid, {len(files) - len(good)} with problems ({len(problems)} in all)")
    if faults:
        print(f"runs over more images: {len(faults)} problems")
    return EXIT_REGRESSION if problems or faults else EXIT_OK


if __name__ == "__main__":
    run_main(main)
