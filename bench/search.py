"""Search for a recipe on the validation split: train candidates, score them, write a table and the best as YAML.

The first trial is the suite's own recipe; the others are drawn from a space. With --rungs above 1 the search is
successive halving: all trials with few epochs, the best of them with more. Test images are never read. Resumable: the
same command goes on where it was, and more --trials add to those there are.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prunecert.bench.options import EPOCHS, ETA, IMAGES, RUNGS, SECONDS, SEED, THREADS, TRIALS
from prunecert.bench.schema.search_space import apply, draw, read_space, scale_epochs
from prunecert.bench.train import Progress, first_images, is_done, make_job, parse_budget
from prunecert.errors import EXIT_OK, UserError, did_you_mean, run_main, visible

if TYPE_CHECKING:
    from prunecert.bench.schema.cell import Cell
    from prunecert.bench.schema.suite import Suite
    from prunecert.models.checkpoint import Card
    from prunecert.models.pipeline import Job, Pipeline

#: What a criterion may be made of; all but the last are on the cards.
MEASURES = ("clean", "pgd", "ibp", "crown_ibp", "noisy", "verified")


@dataclass(frozen=True)
class Trial:
    """A candidate on a rung.

    Args:
        number: Of the candidate; 0 is the suite's recipe.
        rung: From 0.
        changes: What it changes in the suite's recipe.
        jobs: What to train.
        folder: Where its checkpoints go.
    """

    number: int
    rung: int
    changes: Mapping[str, Any]
    jobs: tuple[Job, ...]
    folder: Path

    @property
    def epochs(self) -> int:
        """Epochs of a cell, pre-training included."""
        return self.jobs[0].recipe.pretrain_epochs + self.jobs[0].epochs


def parse_criterion(text: str) -> dict[str, float]:
    """Reads a criterion like ``crown_ibp`` or ``0.7*crown_ibp+0.3*clean`` as weights by measure.

    Raises:
        UserError: It is not like that.
    """
    weights: dict[str, float] = {}
    for term in text.replace(" ", "").split("+"):
        factor, star, name = term.rpartition("*")
        if name not in MEASURES:
            raise UserError(f"--criterion {text!r}: " + did_you_mean("measure", name, MEASURES))
        try:
            weights[name] = weights.get(name, 0.0) + (float(factor) if star else 1.0)
        except ValueError:
            raise UserError(f"--criterion {text!r} is refused: {factor!r} is no number.") from None
    return weights


def score(weights: Mapping[str, float], found: list[Mapping[str, float]]) -> float:
    """Returns the criterion's mean over a trial's cells.

    Raises:
        UserError: A cell has no such measure.
    """
    for measures in found:
        for name in weights:
            if name not in measures:
                raise UserError(
                    f"--criterion: these cells have no {name!r}; they have {', '.join(sorted(measures))}"
                    + ("; 'verified' needs --verify." if name == "verified" else ".")
                )
    return sum(weights[name] * measures[name] for measures in found for name in weights) / len(found)


def survivors(scores: Mapping[int, float], count: int, rung: int, eta: float) -> list[int]:
    """Returns who goes on to a rung: the best 1/eta^rung of `count` trials, the better first, at least one."""
    best = sorted(scores, key=lambda number: (-scores[number], number))
    return best[: max(1, math.ceil(count / eta**rung - 1e-9))]


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    start = time.monotonic()
    options = _parser().parse_args(argv)
    weights = parse_criterion(options.criterion)
    if "verified" in weights and options.rungs > 1:
        raise UserError("--criterion: 'verified' is measured on the last rung only, so it goes with --rungs 1.")
    budget = parse_budget(options.budget)
    from prunecert.bench.schema.suite import load_suite

    suite = load_suite(options.suite)
    cells = [cell for cell, _ in suite.cells if fnmatch.fnmatch(cell.name, options.cells)]
    kinds = sorted({f"{cell.network}/{cell.objective}" for cell in cells})
    if len(kinds) != 1:
        raise UserError(
            f"--cells {options.cells!r} fits {len(cells)} cells of {', '.join(kinds) or 'no network'}; a search is for "
            "one network and objective."
        )
    changes = draw(read_space(options.space), options.trials, options.seed)
    # Every recipe is checked before the first is trained.
    plans = [
        [_trial(suite, cells, options, n, rung, c) for rung in range(options.rungs)] for n, c in enumerate(changes)
    ]
    print(f"{len(plans)} trials of {len(cells)} cells, {options.rungs} rungs; criterion: {options.criterion}.")
    if options.dry_run:
        for number, rungs in enumerate(plans):
            print(
                visible(
                    f"  {number}: {_show(changes[number])} ({' → '.join(str(trial.epochs) for trial in rungs)} epochs)"
                )
            )
        return EXIT_OK
    for job in plans[0][0].jobs:
        job.refuse_unreachable()
    search = _Search(options, suite, weights, lambda s: budget is not None and time.monotonic() - start + s > budget)
    return search.run(plans)


class _Search:
    """A search under way: what has been trained and measured."""

    def __init__(
        self,
        options: argparse.Namespace,
        suite: Suite,
        weights: Mapping[str, float],
        late: Callable[[float], bool],
    ) -> None:
        os.environ.setdefault("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "0")
        import torch

        from prunecert.models.data import load
        from prunecert.models.pipeline import check_device

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        check_device(options.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        self.options, self.suite, self.weights, self.late = options, suite, weights, late
        self.train = first_images(load("train", options.data_root, allow_sample=False), options.subset)
        self.val = first_images(load("val", options.data_root, allow_sample=False), options.subset)
        self.unfit = "a trial of a recipe search" + (f" on {options.subset:,} images" if options.subset else "")
        self.measured: dict[tuple[int, int], list[dict[str, float]]] = {}

    def run(self, plans: list[list[Trial]]) -> int:
        """Trains and measures rung by rung; returns the exit code."""
        from prunecert.models.faults import OutOfTimeError

        alive = list(range(len(plans)))
        scores: dict[int, float] = {}
        for rung in range(self.options.rungs):
            trials = [plans[number][rung] for number in alive]
            try:
                self._train(trials)
            except OutOfTimeError:
                print(f"The budget of {self.options.budget} is spent; the same command goes on from here.")
                return EXIT_OK
            if self.options.verify and rung == self.options.rungs - 1:
                for trial in trials:
                    self._verify(trial)
            scores = {t.number: score(self.weights, list(self.measured[t.number, rung])) for t in trials}
            alive = survivors(scores, len(plans), rung + 1, self.options.eta)
        best = min(scores, key=lambda number: (-scores[number], number))
        self._write(plans, scores, best)
        return EXIT_OK

    def _train(self, trials: list[Trial]) -> None:
        """Trains what is not trained yet; what another process is at is waited for in the end."""
        from prunecert.models.faults import OutOfTimeError, memory_errors
        from prunecert.models.pipeline import exclusive

        todo = [(t, job) for t in trials for job in t.jobs if not is_done(t.folder, job, self.unfit)]
        progress = Progress([job for _, job in todo])
        for wait in (False, True):
            for number, (trial, job) in enumerate(todo, 1):
                with exclusive(trial.folder / ".work" / f"{job.name}.lock", wait=wait) as mine:
                    if not mine or is_done(trial.folder, job, self.unfit):
                        continue
                    if self.late(0):
                        raise OutOfTimeError
                    progress.begin(number, replace(job, name=f"{trial.folder.name} {job.name}"))
                    with memory_errors(f"Training {job.name} on {self.options.device}"):
                        self._pipeline(trial, progress).run(job)
        for trial in trials:
            cards = [_card(trial.folder, job) for job in trial.jobs]
            self.measured[trial.number, trial.rung] = [dict(card.accuracy) for card in cards]

    def _pipeline(self, trial: Trial, progress: Progress) -> Pipeline:
        from prunecert.models.pipeline import Pipeline

        return Pipeline(
            trial.folder,
            trial.folder / ".work",
            self.train,
            self.val,
            self.options.device,
            progress.epoch,
            stop=self.late,
            unfit=self.unfit,
            pretrained=self.options.out / ".pretrained",
        )

    def _verify(self, trial: Trial) -> None:
        """Runs a cascade of verifiers on validation images, and notes the verified accuracies."""
        from prunecert.bench.results.summary import summarise
        from prunecert.bench.running.request import RunRequest
        from prunecert.bench.running.run import run_suite
        from prunecert.bench.schema.suite import load_suite

        verifiers = [name.strip() for name in self.options.verifiers.split(",") if name.strip()]
        suite = {
            "schema_version": 1,
            "name": "search",
            "description": "A trial of a recipe search, on validation images",
            "data": "cifar10",
            "cells": [
                {
                    "networks": [job.network],
                    "objectives": [job.objective],
                    "eps": [job.eps_text],
                    "pruners": [job.pruner],
                    "compression": [job.compression],
                    "seeds": [job.seed],
                }
                for job in trial.jobs
            ],
            "verify": {
                "split": "val",
                "images": self.options.verify,
                "cascade": verifiers,
                "timeouts": dict.fromkeys(verifiers, float(self.options.timeout)),
            },
        }
        file = trial.folder / "search.yaml"
        file.write_text(yaml.safe_dump(suite, sort_keys=False))
        out, exports, root = trial.folder / "run", trial.folder / "onnx", self.options.data_root
        argv = ["--suite", str(file), "--out", str(out), "--device", self.options.device]
        argv += ["--checkpoints", str(trial.folder), "--exports", str(exports)]
        argv += ["--data-root", str(root)] if root else []
        request = RunRequest(
            suite=load_suite(str(file)),
            named=str(file),
            out=out,
            device=self.options.device,
            checkpoints=trial.folder,
            exports=exports,
            data_root=root,
            argv=tuple(argv),
        )
        code = run_suite(request).exit_code
        if code:
            raise UserError(f"Verifying trial {trial.number} failed (exit {code}); see {out}.")
        found = {cell["name"]: cell["verified"]["value"] for cell in summarise(out)["cells"]}
        for job, measures in zip(trial.jobs, self.measured[trial.number, trial.rung], strict=True):
            measures["verified"] = found[job.name]

    def _write(self, plans: list[list[Trial]], scores: Mapping[int, float], best: int) -> None:
        """Writes ``table.md`` and ``recipe.yaml``, and shows the table."""
        options, winner = self.options, plans[best][0]
        table = _table(plans, self.measured, self.weights)
        (options.out / "table.md").write_text(table)
        print(table)
        own = f"; the suite's own recipe has {scores[0]:.4f}" if best and 0 in scores else ""
        words = (
            f"# Trial {best} of {len(plans)}: {options.criterion} = {scores[best]:.4f} on {len(self.val):,} validation "
            f"images, mean of {len(winner.jobs)} cells\n# ({options.cells}, seed {options.seed}){own}.\n"
        )
        kind = f"{winner.jobs[0].network}/{winner.jobs[0].objective}"
        merged = self.suite.recipe(*kind.split("/"))
        chosen = apply(merged, winner.changes)
        changed = {key: chosen[key] for key in chosen if chosen[key] != merged.get(key)}
        text = yaml.safe_dump({"recipes": {kind: changed}}, sort_keys=False)
        (options.out / "recipe.yaml").write_text(words + text)
        print(f"Trial {best} is best. {options.out / 'recipe.yaml'}:\n{words}{text}", end="")


def _trial(
    suite: Suite, cells: list[Cell], options: argparse.Namespace, number: int, rung: int, changes: Mapping[str, Any]
) -> Trial:
    from prunecert.models.recipe import Recipe

    network, objective = cells[0].network, cells[0].objective
    where = f"trial {number} ({_show(changes)})"
    # The whole recipe, so that the lengths of its stages are known.
    recipe = Recipe.from_dict(apply(suite.recipe(network, objective), changes), objective, where=where)
    total = recipe.pretrain_epochs + recipe.prune_epochs + recipe.finetune_epochs
    share = min(1.0, (options.epochs or total) / total) / options.eta ** (options.rungs - 1 - rung)
    recipe = Recipe.from_dict(scale_epochs(recipe.to_dict(), share), objective, where=where)
    command = f"python -m bench.search --suite {options.suite} --cells '{options.cells}' (trial {number})"
    jobs = tuple(make_job(cell, recipe, command) for cell in cells)
    return Trial(number, rung, changes, jobs, options.out / f"trial{number:03d}-rung{rung}")


def _card(folder: Path, job: Job) -> Card:
    from prunecert.models.checkpoint import load_card

    return load_card(folder / f"{job.name}.json")


def _show(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in changes.items()) or "the suite's recipe"


def _table(
    plans: list[list[Trial]], measured: Mapping[tuple[int, int], list[dict[str, float]]], weights: Mapping[str, float]
) -> str:
    """Returns a Markdown table, the furthest and best first: means over the cells, in percent."""
    names = [name for name in MEASURES if any(name in one for found in measured.values() for one in found)]
    lines = [
        "| trial | rung | epochs | " + " | ".join(f"{name} %" for name in names) + " | criterion | what changed |",
        "|---:|---:|---:|" + "---:|" * (len(names) + 1) + "---|",
    ]
    order = sorted(measured, key=lambda key: (-key[1], -score(weights, list(measured[key])), key[0]))
    for number, rung in order:
        found, trial = measured[number, rung], plans[number][rung]
        means = [
            f"{100 * sum(one[name] for one in found) / len(found):.2f}" if all(name in one for one in found) else ""
            for name in names
        ]
        cells = [str(number), str(rung), str(trial.epochs), *means, f"{score(weights, list(found)):.4f}"]
        lines.append("| " + " | ".join([*cells, _show(trial.changes)]) + " |")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--suite", required=True, help="a shipped suite's name, or a YAML file")
    parser.add_argument("--cells", required=True, help="shell pattern of cells, all of one network and objective")
    parser.add_argument("--space", required=True, type=Path, help="YAML: recipe keys with lists, or {low, high, log}")
    parser.add_argument("--out", required=True, type=Path, help="folder of the search")
    parser.add_argument(
        "--trials", type=TRIALS, default=12, help="candidates, the suite's recipe included (default: 12)"
    )
    parser.add_argument("--epochs", type=EPOCHS, help="epochs of a cell on the last rung (default: the recipe's)")
    parser.add_argument("--rungs", type=RUNGS, default=1, help="rungs of successive halving (default: 1)")
    parser.add_argument("--eta", type=ETA, default=3.0, help="a rung has 1/eta of the trials (default: 3)")
    parser.add_argument(
        "--criterion",
        default="crown_ibp",
        help=f"what is to be large: {', '.join(MEASURES)}, or a sum like 0.7*crown_ibp+0.3*clean (default: crown_ibp)",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the draws (default: 0)")
    parser.add_argument("--verify", type=IMAGES, help="verify so many validation images, too, on the last rung")
    parser.add_argument(
        "--verifiers",
        default="ibp,crown-ibp,pgd,crown,alpha-crown,neuralsat",
        help="the cascade for --verify (default: %(default)s)",
    )
    parser.add_argument("--timeout", type=SECONDS, default=20.0, help="seconds an instance for --verify (default: 20)")
    parser.add_argument("--budget", help="stop cleanly after so long, e.g. 25m")
    parser.add_argument("--subset", type=IMAGES, help="train and measure on so many images only, to try things out")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=THREADS, default=0, help="CPU threads (default: torch's)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be tried")
    return parser


if __name__ == "__main__":
    run_main(main)
