"""Search for a recipe on the validation split: train candidates, score them, write a table and the best as YAML.

The first trial is the suite's own recipe, the others are drawn from a space; with --rungs, all of them get few epochs
and the best more. With --one-by-one, an ablation, each value of the space is tried by itself. Test images are never
read. The same command goes on where it was.
"""

from __future__ import annotations

from prunecert.bench.running.search_request import plan_trials
from prunecert.bench.search_options import request_of, search_parser
from prunecert.errors import EXIT_OK, run_main
from prunecert.printable import say


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = search_parser(__doc__).parse_args(argv)
    request = request_of(options)
    plans = plan_trials(request)
    trials = f"{len(plans)} trials of {len(plans[0][0].jobs)} cells"
    print(f"{trials}, {request.rungs} rungs; criterion: {request.criterion.text}.")
    if options.dry_run:
        for number, rungs in enumerate(plans):
            say(f"  {number}: {rungs[0].describe()} ({' → '.join(str(trial.epochs) for trial in rungs)} epochs)")
        return EXIT_OK
    from prunecert.bench.running.search import run_search

    run_search(request)
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
