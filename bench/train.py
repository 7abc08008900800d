"""Train the cells of a suite: pre-train, prune, fine-tune with the same objective, save checkpoint and card.

Resumable: after an interruption the same command goes on at the epoch where it was. Cells that have a checkpoint
made by the same recipe are left alone; several processes may work on one folder. With --budget the most telling cells
come first, and training stops before the epoch that would overrun it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.bench.options import IMAGES, THREADS
from prunecert.bench.planning import select
from prunecert.bench.running.training import (
    Deadline,
    Progress,
    Throughput,
    by_value,
    first_images,
    is_done,
    plan,
    prepare_torch,
)
from prunecert.errors import EXIT_OK, UserError, run_main

if TYPE_CHECKING:
    from prunecert.models.checkpoint import Card


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    from prunecert.bench.schema.suite import load_suite

    deadline = Deadline(options.budget)
    if options.subset is not None and options.out.resolve() == select.CHECKPOINTS.resolve():
        raise UserError("--subset is refused without --out: networks trained on a few images are not for the zoo.")
    unfit = f"trained on {options.subset:,} images only (--subset)" if options.subset is not None else ""

    suite = load_suite(options.suite)
    jobs = plan(suite, options.cells, options.suite)
    if options.budget is not None:
        jobs = by_value(jobs)
    todo = [job for job in jobs if options.force or not is_done(options.out, job, unfit)]
    print(f"{len(jobs)} cells, {len(jobs) - len(todo)} trained already, {len(todo)} to train.")
    if options.dry_run:
        for job in todo:
            print(f"  {job.name}: {job.recipe.pretrain_epochs} + {job.epochs} epochs")
        return EXIT_OK
    if not todo:
        return EXIT_OK
    from prunecert.models.pipeline import parent_file

    for job in todo:
        job.refuse_unreachable()
        if job.recipe.parent:
            parent_file(job, options.out)
    from prunecert.models.datasets.source import load_split
    from prunecert.models.faults import OutOfTimeError, memory_errors
    from prunecert.models.pipeline import Pipeline, exclusive

    prepare_torch(options.device, options.threads)
    train = first_images(load_split(suite.data, "train", options.data_root), options.subset)
    val = first_images(load_split(suite.data, "val", options.data_root), options.subset)
    progress = Progress(todo)
    work = options.out / ".work"
    throughput = Throughput()

    pipeline = Pipeline(options.out, work, train, val, options.device, progress.epoch, stop=deadline.late, unfit=unfit)
    for number, job in enumerate(todo, 1):
        with exclusive(work / f"{job.name}.lock", wait=False) as mine:
            if not mine:
                print(f"{job.name}: another process is training it; left to it.")
                continue
            if not options.force and is_done(options.out, job, unfit):
                continue
            progress.begin(number, job)
            try:
                if deadline.late():
                    raise OutOfTimeError
                with memory_errors(f"Training {job.name} on {options.device}"):
                    card = pipeline.run(job)
            except OutOfTimeError:
                print(
                    f"The budget of {options.budget} is spent: {number - 1} of {len(todo)} cells are trained; the same "
                    f"command goes on with {job.name}."
                )
                break
            throughput.add(card)
            print(_line(card), flush=True)
    for line in throughput.lines():
        print(line)
    return EXIT_OK


def _line(card: Card) -> str:
    parts = [f"{name} {value:.1%}" for name, value in card.accuracy.items() if name != "images"]
    return (
        f"{card.name}: kept {card.kept:,} of {card.weights:,} weights; validation: {', '.join(parts)}; "
        f"{card.train_seconds:,.0f} s"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prunecert train", description=__doc__)
    parser.add_argument("--suite", required=True, help="a shipped suite's name, or a YAML file")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument("--out", type=Path, default=select.CHECKPOINTS, help="folder of checkpoints (default: the zoo)")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=THREADS, default=0, help="CPU threads (default: torch's)")
    parser.add_argument("--budget", help="stop cleanly after so long, e.g. 25m; the most telling cells come first")
    parser.add_argument("--subset", type=IMAGES, help="train on the first so many images only, to try things out")
    parser.add_argument("--force", action="store_true", help="train again what has a checkpoint already")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be trained")
    return parser


if __name__ == "__main__":
    run_main(main)
