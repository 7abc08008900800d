"""Pack a training for a rented machine: code, suite, data, parents and a script, in one folder.

Bring the folder there and run run.sh: it trains the most telling cells first, within the budget, and writes each
finished cell as one file that can be fetched at once. What the budget cuts off is written, too, so that the next pack
goes on with it. `prunecert unpack` takes the files into the checkpoints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecert.bench.options import IMAGES, MEGABYTES
from prunecert.bench.planning import select
from prunecert.bench.running.packing import MEGABYTE, PackRequest, write_pack
from prunecert.bench.running.training import Deadline
from prunecert.bench.running.training_cells import TrainingRequest
from prunecert.errors import EXIT_OK, run_main
from prunecert.page_help import PageHelp


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    from prunecert.bench.schema.suite import load_suite

    training = TrainingRequest(
        suite=load_suite(options.suite),
        named=options.suite,
        cells=options.cells,
        out=options.checkpoints,
        data_root=options.data_root,
        device=options.device,
        deadline=Deadline(options.budget),
        subset=options.subset,
        force=options.force,
    )
    limit, piece = (None if size is None else int(size * MEGABYTE) for size in (options.limit, options.piece))
    request = PackRequest(training=training, folder=options.out, limit=limit, piece=piece, wheels=options.wheels)
    write_pack(request, lambda line: print(line, flush=True))
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prunecert pack", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("--suite", required=True, help="a shipped suite's name, or a YAML file")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the pack: a new folder")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=select.CHECKPOINTS,
        metavar="DIR",
        help="what is trained there is left out, what has begun there goes on (default: where train writes)",
    )
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds cifar-10-batches-py")
    parser.add_argument("--budget", default="1h", help="how long run.sh trains unless BUDGET is set (default: 1h)")
    parser.add_argument("--device", default="cuda", help="where it trains unless DEVICE is set (default: cuda)")
    parser.add_argument("--subset", type=IMAGES, help="the first so many images only, to try things out")
    parser.add_argument("--limit", type=MEGABYTES, metavar="MB", help="refuse to write a larger pack")
    parser.add_argument("--piece", type=MEGABYTES, metavar="MB", help="cut larger files up; run.sh joins the pieces")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="Python packages that it lacks, as .whl files")
    parser.add_argument("--force", action="store_true", help="pack what has a checkpoint already, too")
    return parser


if __name__ == "__main__":
    run_main(main)
