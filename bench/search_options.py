"""The options of `bench.search`: from a command line to a request."""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecert.bench.options import EPOCHS, ETA, IMAGES, RUNGS, SECONDS, SEED, THREADS, TRIALS
from prunecert.bench.running.search_request import MEASURES, SearchCriterion, SearchRequest, Verification
from prunecert.bench.running.training import Deadline
from prunecert.bench.schema.search_space import read_space
from prunecert.bench.schema.suite import load_suite
from prunecert.page_help import PageHelp


def search_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert search", description=description, formatter_class=PageHelp)
    add = parser.add_argument
    add("--suite", required=True, help="a shipped suite's name, or a YAML file")
    add("--cells", required=True, help="shell pattern of cells, all of one network and objective")
    add("--space", required=True, help="YAML: recipe keys with lists, or {low, high, log}; or a shipped space's name")
    add("--out", required=True, type=Path, help="folder of the search")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trials", type=TRIALS, default=12, help="candidates, with the suite's recipe (default: 12)")
    which.add_argument(
        "--one-by-one",
        action="store_const",
        const=None,
        dest="trials",
        help="an ablation: the suite's recipe, and each value of the space by itself",
    )
    add("--epochs", type=EPOCHS, help="epochs of a cell on the last rung (default: the recipe's)")
    add("--rungs", type=RUNGS, default=1, help="rungs of successive halving (default: 1)")
    add("--eta", type=ETA, default=3.0, help="a rung has 1/eta of the trials (default: 3)")
    criteria = f"{', '.join(MEASURES)}, or a sum (default: verified with --verify on one rung, else crown_ibp)"
    add("--criterion", help=criteria)
    add("--seed", type=SEED, default=0, help="seed of the draws (default: 0)")
    add("--verify", type=IMAGES, help="verify so many validation images, too, on the last rung")
    cascade = "pgd,sparse-crown,sparse-bab"
    add("--verifiers", default=cascade, help="the cascade for --verify (default: %(default)s)")
    add("--timeout", type=SECONDS, default=20.0, help="seconds an instance for --verify (default: 20)")
    add("--budget", help="stop cleanly after so long, e.g. 25m")
    add("--subset", type=IMAGES, help="train and measure on so many images only, to try things out")
    add("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    add("--threads", type=THREADS, default=0, help="CPU threads (default: torch's)")
    add("--dry-run", action="store_true", help="only say what would be tried")
    return parser


def request_of(options: argparse.Namespace) -> SearchRequest:
    """Returns what the options ask for; a `UserError` if the suite, space, criterion or budget is refused."""
    # Networks trained for branch and bound rank otherwise by bounds than by what is proved in the end.
    default = "verified" if options.verify is not None and options.rungs == 1 else "crown_ibp"
    return SearchRequest(
        suite=load_suite(options.suite),
        named=options.suite,
        deadline=Deadline(options.budget),
        space=read_space(options.space),
        criterion=SearchCriterion.parse(options.criterion or default),
        verification=Verification.of(options.verify, options.verifiers, options.timeout),
        **{name: getattr(options, name) for name in ("cells", "out", "trials", "epochs", "rungs", "eta", "seed")},
        **{name: getattr(options, name) for name in ("subset", "data_root", "device", "threads")},
    )
