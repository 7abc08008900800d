"""Validate a tree of leaderboard entries, offline: every problem is named by file and field.

Certificates that came with an entry are checked, all of them or a sample, whose seed nobody knows beforehand; --record
writes down how many hold, which the board then shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prunecert.bench.leaderboard.check import EntryProblem, check_tree, remarks
from prunecert.bench.leaderboard.entry import entry_files
from prunecert.bench.leaderboard.proofs import check_proofs, write_records
from prunecert.bench.leaderboard.runs import larger_runs
from prunecert.bench.options import IMAGES, SEED, WORKERS
from prunecert.bench.running.proof_checks import EXPORTS, fresh_seed
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, run_main
from prunecert.models.data import load
from prunecert.page_help import PageHelp
from prunecert.printable import printable, shortened


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Returns:
        0 if all entries and the runs over more images are valid, 1 if one has a problem.

    Raises:
        UserError: There is no such folder, or no entry in it.
    """
    parser = argparse.ArgumentParser(prog="prunecert check", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the results folder")
    parser.add_argument("--data-root", type=Path, help="compare labels and pixels with this copy of CIFAR-10, too")
    parser.add_argument("--no-proofs", action="store_true", help="leave the entries' certificates unchecked")
    parser.add_argument("--sample", type=IMAGES, metavar="N", help="check N of each entry's certificates, not all")
    parser.add_argument("--seed", type=SEED, help="of --sample (default: drawn anew, and said)")
    parser.add_argument("--exports", type=Path, default=EXPORTS, help="where networks are that came with no entry")
    parser.add_argument("--workers", type=WORKERS, default=1, help="processes side by side that check certificates")
    parser.add_argument("--record", action="store_true", help="write down what was checked, for the board")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    options.seed = fresh_seed(options.seed)
    images = partial(load, "test", options.data_root, download=False, allow_sample=False)
    data = None if options.data_root is None else images()
    files = entry_files(options.results)
    if not files:
        raise UserError(f"{shortened(options.results)} holds no leaderboard entry; prunecert run --submit makes them.")
    good, problems = check_tree(options.results, data)
    _, run_problems = larger_runs(options.results, good)
    for problem in (*problems, *run_problems):
        print(problem)
    if not options.no_proofs:
        how = {name: getattr(options, name) for name in ("sample", "seed", "workers")}
        records, refusals = check_proofs(files[0].parent, good, images, exports=[options.exports], **how)
        for refusal in refusals:
            problem = EntryProblem(f"{refusal.name}.json", refusal.field, refusal.what)
            problems.append(problem)
            print(problem)
            good.pop(refusal.name, None)
        for name, record in records.items():
            print(f"{shortened(name)}.json: proofs: {record.words}")
        if options.record:
            kept = write_records(files[0].parent, records, refusals)
            for name in kept:
                print(f"{shortened(name)}.json: its record stays: what was checked before couldn't be checked again")
    for stem, entry in good.items():
        for remark in remarks(entry):
            print(f"note: {shortened(stem)}.json: {printable(remark)}")
    print(f"{len(files)} entries: {len(good)} valid, {len(files) - len(good)} with problems ({len(problems)} in all)")
    if run_problems:
        print(f"runs over more images: {len(run_problems)} problems")
    return EXIT_REGRESSION if problems or run_problems else EXIT_OK


if __name__ == "__main__":
    run_main(main)
