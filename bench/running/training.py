"""What training takes beside the pipeline: jobs of a suite's cells, what is trained already, budgets, progress."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecert.errors import UserError
from prunecert.models.checkpoint_folders import locate

if TYPE_CHECKING:
    from prunecert.bench.schema.cell import Cell
    from prunecert.bench.schema.suite import Suite
    from prunecert.models.checkpoint import Card
    from prunecert.models.pipeline import Job
    from prunecert.models.recipe import Recipe

#: Compressions in the order in which a short budget should see them: the control, the headline, the extreme.
_BY_VALUE = (1, 10, 100, 2, 20)
_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_budget(text: str | None) -> float | None:
    """Returns a time like ``25m``, ``1.5h``, ``90s`` or ``90`` in seconds; None for None.

    Example:
        >>> parse_budget("1.5h")
        5400.0

    Raises:
        UserError: It is no such time, or not above 0.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh]?)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if seconds <= 0:
        raise UserError(f"--budget {text!r} is refused; write a time above 0 like 25m, 1.5h or 90s.")
    return seconds


class Deadline:
    """When to stop: so long after it was made, or never.

    Args:
        text: How long, as `parse_budget` reads it; None: for ever.

    Raises:
        UserError: It is no such time.
    """

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self._budget = parse_budget(text)
        self._start = time.monotonic()

    def late(self, seconds: float = 0.0) -> bool:
        """Whether it will have passed in so many seconds."""
        return self._budget is not None and time.monotonic() - self._start + seconds > self._budget


def prepare_torch(device: str, threads: int) -> None:
    """Makes torch compute as a benchmark must: float32 that is float32, and the same again after a resumption.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        threads: CPU threads; 0 for torch's number.

    Raises:
        UserError: There is no such device.
    """
    os.environ.setdefault("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "0")
    import torch

    from prunecert.models.pipeline import check_device

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    check_device(device)
    if threads:
        torch.set_num_threads(threads)


def by_value(jobs: list[Job]) -> list[Job]:
    """Returns the jobs with the most telling ones first, so that a budget which ends early was well spent.

    The networks keep the suite's order, since a later one may be far larger; of each come first the dense control, then
    10x, 100x and the others, of the first seed and then of the rest.
    """
    networks = list(dict.fromkeys(job.network for job in jobs))
    seeds = sorted({job.seed for job in jobs})

    def value(job: Job) -> tuple[int, int, int]:
        rank = _BY_VALUE.index(int(job.compression)) if job.compression in _BY_VALUE else len(_BY_VALUE)
        return networks.index(job.network), seeds.index(job.seed), rank

    return sorted(jobs, key=value)


def plan(suite: Suite, patterns: str | None, suite_argument: str) -> list[Job]:
    """Returns the jobs of the suite's cells whose names fit comma-separated shell patterns, in the suite's order.

    Raises:
        UserError: A pattern fits no cell, or a recipe of the suite is refused.
    """
    from prunecert.bench.schema.cell import fitting
    from prunecert.bench.schema.own import OwnCell
    from prunecert.models.recipe import Recipe

    # One's own networks are trained elsewhere; one that is verified at several radii is trained once.
    own = {cell.name for cell, _ in suite.cells if isinstance(cell, OwnCell)}
    cells = {cell.as_trained.name: cell.as_trained for cell, _ in suite.cells}
    chosen = set(cells if patterns is None else fitting(cells, patterns, f"suite {suite.name!r}")) - own
    jobs = []
    for cell in (cell for name, cell in cells.items() if name in chosen):
        where = f"suite {suite.name!r}, recipe of {cell.network}/{cell.objective}"
        written = suite.recipe(cell.network, cell.objective, cell.compression, cell.pruner)
        whole = Recipe.from_dict(written, cell.objective, where=where)
        command = f"python -m bench.train --suite {suite_argument} --cells {cell.name}"
        jobs.append(make_job(cell, whole, command, suite.data.card()))
    return jobs


def make_job(cell: Cell, recipe: Recipe, command: str, data: Mapping[str, Any] | None = None) -> Job:
    """Returns the job of a cell.

    Args:
        cell: The cell.
        recipe: That of its network and objective, for all pruners, compressions and seeds.
        command: What to write on the card.
        data: What the card says of the data set; nothing for CIFAR-10.
    """
    from prunecert.bench.schema.cell import show_eps
    from prunecert.models.pipeline import Job

    return Job(
        name=cell.name,
        network=cell.network,
        objective=cell.objective,
        eps=float(cell.eps),
        eps_text=show_eps(cell.eps),
        pruner=cell.pruner,
        compression=cell.compression,
        seed=cell.seed,
        recipe=recipe.of_pruner(cell.pruner).at_compression(cell.compression).of_seed(cell.seed),
        command=command,
        data=data or {},
    )


def parents_first(jobs: Sequence[Job]) -> list[Job]:
    """Returns the jobs in their order, but each behind the one that it begins with, if that is among them.

    Raises:
        UserError: Some begin with each other.
    """
    named = {job.name: job for job in jobs}
    ordered: dict[str, Job] = {}

    def add(job: Job, behind: tuple[str, ...]) -> None:
        if job.name in behind:
            circle = " -> ".join([*behind[behind.index(job.name) :], job.name])
            raise UserError(f"Parents that lead back to themselves are refused: {circle}; one must begin without any.")
        parent = named.get(job.recipe.parent)
        if parent is not None and parent.name not in ordered:
            add(parent, (*behind, job.name))
        ordered[job.name] = job

    for job in jobs:
        add(job, ())
    return list(ordered.values())


def refuse(job: Job, folder: Path, planned: Mapping[str, Job] | None = None) -> Path | None:
    """Refuses a job that training would refuse, before data is loaded or anything is foretold; returns its parent.

    Args:
        job: The job.
        folder: Where its checkpoint goes.
        planned: By name, what is trained before it; of a parent among them no file is asked for or returned.

    Raises:
        UserError: See `Job.refuse_unreachable` and `parent_file`.
    """
    from prunecert.models.parents import parent_file, refuse_as_parent

    job.refuse_unreachable()
    if planned and (parent := planned.get(job.recipe.parent)) is not None:
        refuse_as_parent(job, parent)
        return None
    return parent_file(job, folder) if job.recipe.parent else None


def is_done(folder: Path, job: Job, unfit: str = "") -> bool:
    """Whether the cell has a checkpoint of this recipe, parent and data; another one is refused, not overwritten."""
    from prunecert.models.checkpoint import load_card
    from prunecert.models.parents import other_parent

    file = locate(folder, job.name).with_suffix(".json")
    if not file.exists():
        return False
    card = load_card(file)
    _refuse_mixed_up(file, card, job)
    recipe, old_recipe = job.recipe.to_dict(), _as_written_now(card)
    keys = sorted(key for key in {*recipe, *old_recipe} if old_recipe.get(key) != recipe.get(key))
    parent = "" if keys else other_parent(card, job, folder)
    if keys or parent or card.unfit != unfit:
        if file.parent != folder:
            # A shipped one of another recipe: an own one goes beside it, and is looked for first.
            return False
        what = (
            f"with another recipe (different: {', '.join(keys)})"
            if keys
            else parent or f"on other data ({card.unfit or 'all images'})"
        )
        raise UserError(f"{file} was trained {what}; allowed are --force, which replaces it, or another --out.")
    return True


def _refuse_mixed_up(file: Path, card: Card, job: Job) -> None:
    """Refuses a card that is another cell's, by its name alone."""
    cell = {"network": job.network, "objective": job.objective, "eps": job.eps_text, "pruner": job.pruner}
    for key, value in {**cell, "compression": job.compression, "seed": job.seed}.items():
        if (said := getattr(card, key)) != value:
            raise UserError(
                f"{file} says {key} {said!r}, and the cell of its name has {value!r}: the files were mixed up; restore "
                "them, or train into another --out."
            )


def _as_written_now(card: Card) -> dict[str, Any]:
    """Returns a card's recipe as its pruner's is written today; one that is refused today is returned as it is."""
    from prunecert.models.recipe import Recipe

    try:
        return Recipe.from_dict(card.recipe, card.objective).of_pruner(card.pruner).to_dict()
    except UserError:
        return dict(card.recipe)


class Throughput:
    """Gathers images per second by network, objective and stage, from the cards of the cells trained."""

    def __init__(self) -> None:
        self._rates: dict[str, dict[str, list[float]]] = {}

    def add(self, card: Card) -> None:
        """Notes a card's."""
        stages = self._rates.setdefault(f"{card.network}, {card.objective}", {})
        for stage, rate in card.throughput.items():
            stages.setdefault(stage, []).append(rate)

    def lines(self) -> list[str]:
        """Returns a line a network and objective: the median over its cells."""
        return [
            f"Throughput, {name}: "
            + ", ".join(f"{stage} {statistics.median(rates):,.0f}" for stage, rates in stages.items())
            + " images/s"
            for name, stages in self._rates.items()
        ]
