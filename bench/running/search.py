"""Searches for a recipe: trains trials rung by rung, measures them on validation images, keeps the best.

Resumable: what has a checkpoint is not trained again, so the same request goes on where it was, and one for more trials
adds to those there are. Test images are never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from prunecert.bench.report.medium import Table
from prunecert.bench.results.impact.images import BoolArray, outcomes_of_rows
from prunecert.bench.results.stats import paired_difference
from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import read
from prunecert.bench.running.request import RunRequest
from prunecert.bench.running.run import run_suite
from prunecert.bench.running.search_request import (
    MEASURES,
    SearchCriterion,
    SearchRequest,
    Trial,
    Verification,
    own_recipe,
    plan_trials,
    recipe_key,
    survivors,
)
from prunecert.bench.running.training import is_done, prepare_torch
from prunecert.bench.running.training_progress import TrainingProgress
from prunecert.bench.schema.search_space import apply
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.files import write_text
from prunecert.models.checkpoint import load_card
from prunecert.models.faults import OutOfTimeError, memory_errors
from prunecert.models.pipeline import Job, Pipeline, exclusive

#: By number and rung of a trial: what was measured of each of its cells.
Measured = dict[tuple[int, int], list[dict[str, float]]]
#: By number of a trial: which of the verified images, cell after cell, it has proved.
Proofs = dict[int, BoolArray]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What has come of a search.

    Args:
        plans: All trials, each on every rung.
        scores: By number: the criterion of those on the last rung; empty if time ran out before.
        best: Number of the best; None if time ran out before.
    """

    plans: list[list[Trial]]
    scores: Mapping[int, float]
    best: int | None


def run_search(request: SearchRequest) -> SearchResult:
    """Runs a search, or goes on with it; writes ``table.md`` and ``recipe.yaml`` when all rungs are done.

    Raises:
        UserError: Anything about the request; it is found out before the first trial is trained.
    """
    return _Search(request, plan_trials(request)).run()


class _Search:
    """A search under way: what has been trained and measured."""

    def __init__(self, request: SearchRequest, plans: list[list[Trial]]) -> None:
        import prunecert.models.data as data

        prepare_torch(request.device, request.threads)
        self.request, self.plans = request, plans
        self.train = data.first_images(data.load("train", request.data_root, allow_sample=False), request.subset)
        self.val = data.first_images(data.load("val", request.data_root, allow_sample=False), request.subset)
        self.unfit = "a trial of a recipe search" + (f" on {request.subset:,} images" if request.subset else "")
        self.measured: Measured = {}
        self.proofs: Proofs = {}

    def run(self) -> SearchResult:
        request = self.request
        alive = list(range(len(self.plans)))
        scores: dict[int, float] = {}
        for rung in range(request.rungs):
            trials = [self.plans[number][rung] for number in alive]
            try:
                self._train(trials)
            except OutOfTimeError:
                print(f"The budget of {request.deadline.text} is spent; the same command goes on from here.")
                return SearchResult(self.plans, {}, None)
            if request.verification is not None and rung == request.rungs - 1:
                for trial in trials:
                    self._verify(trial, request.verification)
            scores = {trial.number: request.criterion.score(self.measured[trial.number, rung]) for trial in trials}
            alive = survivors(scores, len(self.plans), rung + 1, request.eta)
        best = min(scores, key=lambda number: (-scores[number], number))
        self._write(scores, best)
        return SearchResult(self.plans, scores, best)

    def _train(self, trials: Sequence[Trial]) -> None:
        """Trains what is not trained yet; what another process is at is waited for in the end."""
        todo = [(t, job) for t in trials for job in t.jobs if not is_done(t.folder, job, self.unfit)]
        progress = TrainingProgress([job for _, job in todo])
        for wait in (False, True):
            for number, (trial, job) in enumerate(todo, 1):
                with exclusive(trial.folder / ".work" / f"{job.name}.lock", wait=wait) as mine:
                    if not mine or is_done(trial.folder, job, self.unfit):
                        continue
                    if self.request.deadline.late():
                        raise OutOfTimeError
                    progress.begin(number, replace(job, name=f"{trial.folder.name} {job.name}"))
                    with memory_errors(f"Training {job.name} on {self.request.device}"):
                        self._pipeline(trial, progress).run(job)
        for trial in trials:
            cards = [load_card(trial.folder / f"{job.name}.json") for job in trial.jobs]
            self.measured[trial.number, trial.rung] = [dict(card.accuracy) for card in cards]

    def _pipeline(self, trial: Trial, progress: TrainingProgress) -> Pipeline:
        return Pipeline(
            trial.folder,
            trial.folder / ".work",
            self.train,
            self.val,
            self.request.device,
            progress.epoch,
            hear_step=progress.step,
            stop=self.request.deadline.late,
            unfit=self.unfit,
            pretrained=self.request.out / ".pretrained",
        )

    def _verify(self, trial: Trial, verification: Verification) -> None:
        """Runs a cascade of verifiers on validation images, and notes which images are proved."""
        file, out = trial.folder / "search.yaml", trial.folder / "run"
        # A file, so that the run can be gone on with, and looked at, by hand.
        file.write_text(yaml.safe_dump(_suite_of(trial.jobs, verification), sort_keys=False))
        code = run_suite(_run_of(self.request, trial, file, out)).exit_code
        if code:
            raise UserError(f"Verifying trial {trial.number} failed (exit {code}); see {out}.")
        proofs = _proofs_of(out, [job.name for job in trial.jobs])
        for proved, measures in zip(proofs, self.measured[trial.number, trial.rung], strict=True):
            measures["verified"] = float(proved.mean())
        self.proofs[trial.number] = np.concatenate(proofs)

    def _write(self, scores: Mapping[int, float], best: int) -> None:
        """Writes ``table.md`` and ``recipe.yaml``, and shows both."""
        request, winner = self.request, self.plans[best][0]
        table = search_table(self.plans, self.measured, request.criterion, self.proofs)
        write_text(request.out / "table.md", table)
        print(table)
        own = f"; the suite's own recipe has {scores[0]:.4f}" if best and 0 in scores else ""
        words = (
            f"# Trial {best} of {len(self.plans)}: {request.criterion.text} = {scores[best]:.4f} on {len(self.val):,} "
            f"validation images, mean of {len(winner.jobs)} cells\n# ({request.cells}, seed {request.seed}){own}.\n"
        )
        recipe = own_recipe(request.suite, winner.jobs)
        better = apply(recipe, winner.changes)
        differing = {key: better[key] for key in better if better[key] != recipe.get(key)}
        text = yaml.safe_dump({"recipes": {recipe_key(request.suite, winner.jobs): differing}}, sort_keys=False)
        write_text(request.out / "recipe.yaml", words + text)
        print(f"Trial {best} is best. {request.out / 'recipe.yaml'}:\n{words}{text}", end="")


def _proofs_of(run: Path, names: Sequence[str]) -> list[BoolArray]:
    """Returns for each of a run's cells which images are proved; a `UserError` if one isn't finished."""
    proofs = {part.cell.name: part.verified for part in outcomes_of_rows(read(Log(run)))}
    for name in names:
        if name not in proofs:
            raise UserError(f"{name}: not all of its images are answered; see {run}, or run the same command again.")
    return [proofs[name] for name in names]


def _suite_of(jobs: Sequence[Job], verification: Verification) -> dict[str, Any]:
    """Returns a suite of the trained cells, as it is written."""
    return {
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
            for job in jobs
        ],
        "verify": {
            "split": "val",
            "images": verification.images,
            "cascade": list(verification.verifiers),
            "timeouts": dict.fromkeys(verification.verifiers, verification.timeout),
        },
    }


def _run_of(request: SearchRequest, trial: Trial, suite: Path, out: Path) -> RunRequest:
    exports, root = trial.folder / "onnx", request.data_root
    argv = ["--suite", str(suite), "--out", str(out), "--device", request.device]
    argv += ["--checkpoints", str(trial.folder), "--exports", str(exports)]
    argv += ["--data-root", str(root)] if root else []
    return RunRequest(
        suite=load_suite(str(suite)),
        named=str(suite),
        out=out,
        device=request.device,
        checkpoints=trial.folder,
        exports=exports,
        data_root=root,
        argv=tuple(argv),
    )


def search_table(
    plans: Sequence[Sequence[Trial]], measured: Measured, criterion: SearchCriterion, proofs: Proofs | None = None
) -> str:
    """Returns a Markdown table, the furthest and best first: means over the cells, in percent.

    Args:
        plans: All trials, each on every rung.
        measured: By number and rung of a trial: what was measured of each of its cells.
        criterion: What is to be large.
        proofs: By number of a trial: which images it has proved. Where the suite's own recipe, trial 0, is among them,
            the others stand beside it, in points, with the 95 % interval of differences on the same images.
    """
    proofs = proofs or {}
    names = [name for name in MEASURES if any(name in one for members in measured.values() for one in members)]
    beside = ["against trial 0"] if 0 in proofs and len(proofs) > 1 else []
    numbers = ("trial", "rung", "epochs", *(f"{name} %" for name in names), *beside, "criterion")
    rows = []
    for number, rung in sorted(measured, key=lambda key: (-key[1], -criterion.score(measured[key]), key[0])):
        members, trial = measured[number, rung], plans[number][rung]
        means = [
            f"{100 * sum(one[name] for one in members) / len(members):.2f}"
            if all(name in one for one in members)
            else ""
            for name in names
        ]
        # Verified is the last rung's.
        last = rung == max(rung for _, rung in measured)
        difference = [_beside(proofs[0], proofs[number]) if last and number in proofs else ""] if beside else []
        cells = [str(number), str(rung), str(trial.epochs), *means, *difference, f"{criterion.score(members):.4f}"]
        rows.append([*cells, trial.describe()])
    table = Table([*((heading, True) for heading in numbers), ("what changed", False)], rows)
    return "\n".join([*table.markdown(), ""])


def _beside(first: BoolArray, other: BoolArray) -> str:
    """Returns the difference of two verified accuracies, in points; nothing for the same trial."""
    if first is other:
        return ""
    lost, gained = int((first & ~other).sum()), int((other & ~first).sum())
    difference, low, high = (100 * share for share in paired_difference(lost, gained, len(first)))
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"
