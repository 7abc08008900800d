"""Train the cells of a suite: pre-train, prune, fine-tune with the same objective, save checkpoint and card.

Resumable: after an interruption the same command goes on at the epoch where it was. Cells that have a checkpoint
made by the same recipe are left alone; several processes may work on one folder. With --budget the most telling cells
come first, and training stops before the epoch that would overrun it. Beside each checkpoint lie its history, an epoch
a line with accuracies on held-out images now and then, and a figure of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecert.bench.options import IMAGES, THREADS
from prunecert.bench.planning import select
from prunecert.bench.running.training import Deadline
from prunecert.bench.running.training_cells import TrainingRequest, train_cells
from prunecert.bench.running.training_logs import TRACKERS, check_trackers
from prunecert.errors import EXIT_OK, run_main
from prunecert.page_help import PageHelp


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(argv)
    from prunecert.bench.schema.suite import load_suite

    request = TrainingRequest(
        suite=load_suite(options.suite),
        named=options.suite,
        cells=options.cells,
        out=options.out,
        data_root=options.data_root,
        device=options.device,
        threads=options.threads,
        deadline=Deadline(options.budget),
        subset=options.subset,
        force=options.force,
        dry_run=options.dry_run,
        trackers=check_trackers(options.log),
        archives=options.archives,
    )
    train_cells(request, lambda line: print(line, flush=True))
    return EXIT_OK


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    parser = argparse.ArgumentParser(prog="prunecert train", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("--suite", required=True, help="a shipped suite's name, or a YAML file")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument(
        "--out",
        type=Path,
        default=select.CHECKPOINTS,
        help="folder of checkpoints (default: ./checkpoints; in a checkout the zoo)",
    )
    parser.add_argument("--data-root", type=Path, help="folder of cifar-10-batches-py, or a file of prunecert pack")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=THREADS, default=0, help="CPU threads (default: torch's)")
    parser.add_argument("--budget", help="stop cleanly after so long, e.g. 25m; the most telling cells come first")
    parser.add_argument("--subset", type=IMAGES, help="train on the first so many images only, to try things out")
    parser.add_argument("--force", action="store_true", help="train again what has a checkpoint already")
    parser.add_argument("--log", metavar="NAME,…", help=f"tell trackers as well: {', '.join(TRACKERS)}")
    parser.add_argument("--archives", type=Path, metavar="DIR", help="write each finished cell there as one file, too")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be trained, and how long it takes")
    return parser


if __name__ == "__main__":
    run_main(main)
