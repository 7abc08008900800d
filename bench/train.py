"""Train the cells of a suite: pre-train, prune, fine-tune with the same objective, save checkpoint and card.

Resumable: after an interruption the same command goes on at the epoch where it was. Cells that have a checkpoint
made by the same recipe are left alone; several processes may work on one folder.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import prepare
from prunecert.errors import EXIT_OK, UserError, run_main

if TYPE_CHECKING:
    from bench.suite import Suite
    from models.checkpoint import Card
    from models.pipeline import Job


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    from bench.suite import load_suite

    suite = load_suite(options.suite)
    jobs = plan(suite, options.cells, options.suite)
    if not jobs:
        raise UserError(
            f"No cell of suite {suite.name!r} matches {options.cells!r}; `python -m bench.train --suite "
            f"{options.suite} --dry-run` lists them."
        )
    todo = [job for job in jobs if options.force or not _done(options.out, job)]
    print(f"{len(jobs)} cells, {len(jobs) - len(todo)} trained already, {len(todo)} to train.")
    if options.dry_run:
        for job in todo:
            print(f"  {job.name}: {job.recipe.pretrain_epochs} + {job.epochs} epochs")
        return EXIT_OK
    if not todo:
        return EXIT_OK
    import torch

    from models.data import load
    from models.pipeline import Pipeline, check_device, exclusive

    # A benchmark says float32 and means it.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    check_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    train = load("train", options.data_root, allow_sample=False)
    val = load("val", options.data_root, allow_sample=False)
    progress = Progress(todo)
    work = options.out / ".work"
    pipeline = Pipeline(options.out, work, train, val, options.device, progress.epoch)
    for number, job in enumerate(todo, 1):
        with exclusive(work / f"{job.name}.lock", wait=False) as mine:
            if not mine:
                print(f"{job.name}: another process is training it; left to it.")
                continue
            if not options.force and _done(options.out, job):
                continue
            progress.begin(number, job)
            print(_line(pipeline.run(job)), flush=True)
    return EXIT_OK


def plan(suite: Suite, pattern: str, suite_argument: str) -> list[Job]:
    """Returns the jobs of the suite's cells whose name matches a shell pattern, in the suite's order.

    Raises:
        UserError: A recipe of the suite is refused.
    """
    from bench.suite import show_eps
    from models.pipeline import Job
    from models.recipe import Recipe

    jobs = []
    for cell, _ in suite.cells:
        if not fnmatch.fnmatch(cell.name, pattern):
            continue
        where = f"suite {suite.name!r}, recipe of {cell.network}/{cell.objective}"
        recipe = Recipe.from_dict(suite.recipe(cell.network, cell.objective), cell.objective, where=where)
        jobs.append(
            Job(
                name=cell.name,
                network=cell.network,
                objective=cell.objective,
                eps=float(cell.eps),
                eps_text=show_eps(cell.eps),
                pruner=cell.pruner,
                compression=cell.compression,
                seed=cell.seed,
                recipe=recipe,
                command=f"python -m bench.train --suite {suite_argument} --cells {cell.name}",
            )
        )
    return jobs


def _done(folder: Path, job: Job) -> bool:
    """Whether the cell has a checkpoint of this recipe; one of another recipe is refused, not overwritten."""
    from models.checkpoint import load_card

    file = folder / f"{job.name}.json"
    if not file.exists():
        return False
    card = load_card(file)
    if card.recipe != job.recipe.to_dict():
        changed = sorted(key for key, value in job.recipe.to_dict().items() if card.recipe.get(key) != value)
        raise UserError(
            f"{file} was trained with another recipe (different: {', '.join(changed) or 'keys'}); allowed are "
            "--force, which replaces it, or another --out."
        )
    return True


def _line(card: Card) -> str:
    parts = [f"{name} {value:.1%}" for name, value in card.accuracy.items() if name != "images"]
    return (
        f"{card.name}: kept {card.kept:,} of {card.weights:,} weights; validation: {', '.join(parts)}; "
        f"{card.train_seconds:,.0f} s"
    )


class Progress:
    """Says how far training is: a bar on a terminal, a line an epoch elsewhere; with an estimate of the rest.

    Args:
        jobs: All jobs to come.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs
        groups = {str(job.pretraining()): job.recipe.pretrain_epochs for job in jobs}
        self._left = sum(groups.values()) + sum(job.epochs for job in jobs)
        self._done = 0
        self._start = time.monotonic()
        self._label = ""

    def begin(self, number: int, job: Job) -> None:
        """Starts a cell; cells before it that were found done no longer count."""
        self._label = f"[{number}/{len(self._jobs)}] {job.name}"

    def epoch(self, stage: str, epoch: int, epochs: int, loss: float, rate: float) -> None:
        """Shows an epoch."""
        self._done += 1
        seconds = (time.monotonic() - self._start) / self._done * max(0, self._left - self._done)
        eta = f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"
        line = f"{self._label}  {stage} {epoch}/{epochs}  loss {loss:.4f}  {rate:,.0f} images/s  all done in {eta}"
        if sys.stderr.isatty():
            filled = 20 * epoch // epochs
            print(f"\r\033[K{'█' * filled}{'░' * (20 - filled)} {line}", end="", file=sys.stderr, flush=True)
            if epoch == epochs:
                print(file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("--suite", required=True, help="a shipped suite's name, or a YAML file")
    parser.add_argument("--cells", default="*", help="shell pattern of cell names (default: all)")
    parser.add_argument(
        "--out", type=Path, default=prepare.CHECKPOINTS, help="folder of checkpoints (default: the zoo)"
    )
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's)")
    parser.add_argument("--force", action="store_true", help="train again what has a checkpoint already")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be trained")
    return parser


if __name__ == "__main__":
    run_main(main)
