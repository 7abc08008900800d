"""What is asked of a recipe search, and the trials that follow from it: which recipe, for how long, on which rung.

trials   0   1   2   3   4   5   6   7   8      the suite's own recipe, and eight draws from the space
rung 0   ├───┴───┴───┴───┴───┴───┴───┴───┤      1/9 of the epochs (eta 3)
rung 1       1           4           7          the best third, 1/3 of the epochs
rung 2                   4                      the best ninth, all epochs; the best of these wins
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecert.bench.running.training import Deadline, make_job, refuse
from prunecert.bench.schema.recipes import recipe_keys
from prunecert.bench.schema.search_space import Space, apply, draw, one_by_one, scale_epochs
from prunecert.errors import UserError, did_you_mean
from prunecert.numbers import read_number
from prunecert.verifiers import VERIFIERS

if TYPE_CHECKING:
    from prunecert.bench.schema.cell import Cell
    from prunecert.bench.schema.suite import Suite
    from prunecert.models.pipeline import Job

#: What a criterion may be made of; all but the last are on the cards.
MEASURES = ("clean", "pgd", "ibp", "crown_ibp", "noisy", "verified")
#: Measures of a cell, in [0, 1], by name.
Measures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SearchCriterion:
    """What is to be large: a weighted sum of measures.

    Args:
        text: As it was written.
        weights: By measure.
    """

    text: str
    weights: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> SearchCriterion:
        """Reads a criterion like ``crown_ibp`` or ``0.7*crown_ibp+0.3*clean``.

        Example:
            >>> SearchCriterion.parse("0.7*crown_ibp + 0.3*clean").weights
            {'crown_ibp': 0.7, 'clean': 0.3}

        Raises:
            UserError: It is not like that.
        """
        weights: dict[str, float] = {}
        for term in text.replace(" ", "").split("+"):
            factor, star, name = term.rpartition("*")
            if name not in MEASURES:
                raise UserError(f"--criterion {text!r}: " + did_you_mean("measure", name, MEASURES))
            weight = read_number(factor) if star else 1.0
            if weight is None:
                raise UserError(f"--criterion {text!r} is refused: {factor!r} is no number.")
            weights[name] = weights.get(name, 0.0) + weight
        return cls(text, weights)

    def score(self, cells: Sequence[Measures]) -> float:
        """Returns its mean over a trial's cells.

        Raises:
            UserError: A cell lacks a measure.
        """
        for measures in cells:
            for name in self.weights:
                if name not in measures:
                    raise UserError(
                        f"--criterion: these cells have no {name!r}; they have {', '.join(sorted(measures))}"
                        + ("; 'verified' needs --verify." if name == "verified" else ".")
                    )
        total = sum(weight * measures[name] for measures in cells for name, weight in self.weights.items())
        return total / len(cells)


@dataclass(frozen=True, slots=True)
class Verification:
    """How the trials of the last rung are verified.

    Args:
        images: How many validation images, from the first on.
        verifiers: The cascade.
        timeout: Seconds an instance, for each verifier.
    """

    images: int
    verifiers: tuple[str, ...]
    timeout: float

    @classmethod
    def of(cls, images: int | None, verifiers: str, timeout: float) -> Verification | None:
        """Reads names with commas; None where no images are to be verified."""
        names = tuple(name.strip() for name in verifiers.split(",") if name.strip())
        return None if images is None else cls(images, names, timeout)

    def check(self) -> None:
        """Refuses verifiers that there aren't, before anything is trained."""
        if not self.verifiers:
            raise UserError("--verifiers names none; give at least one, e.g. sparse-bab.")
        for name in self.verifiers:
            VERIFIERS.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """What is asked of a search.

    Args:
        suite: Whose recipe is to be bettered.
        named: How the suite was named by who asks, for the cards.
        cells: Shell pattern of cells, all of one network and objective.
        space: Which keys of the recipe may take which values.
        out: Folder of the search.
        criterion: What is to be large.
        trials: How many, the suite's own recipe included; None: an ablation, that is, the suite's own recipe and each
            value of the space by itself.
        epochs: Epochs of a cell on the last rung; None: the recipe's.
        rungs: Of successive halving, at least 1.
        eta: A rung has 1/eta of the trials of the one before, and eta times its epochs; above 1.
        seed: Of the draws.
        verification: How the last rung is verified; None: not at all.
        deadline: When to stop.
        subset: Train and measure on so many images only; None: on all.
        data_root: Folder that holds ``cifar-10-batches-py``; None: it is looked for.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        threads: CPU threads; 0: torch's number.
    """

    suite: Suite
    named: str
    cells: str
    space: Space
    out: Path
    criterion: SearchCriterion
    trials: int | None = 12
    epochs: int | None = None
    rungs: int = 1
    eta: float = 3.0
    seed: int = 0
    verification: Verification | None = None
    deadline: Deadline = field(default_factory=Deadline)
    subset: int | None = None
    data_root: Path | None = None
    device: str = "cpu"
    threads: int = 0

    def chosen_cells(self) -> list[Cell]:
        """Returns the cells on which recipes are tried.

        Raises:
            UserError: There are none, or they are of several networks or objectives.
        """
        cells = [cell for cell, _ in self.suite.cells if fnmatch.fnmatch(cell.name, self.cells)]
        kinds = sorted({f"{cell.network}/{cell.objective}" for cell in cells})
        if len(kinds) != 1:
            raise UserError(
                f"--cells {self.cells!r} fits {len(cells)} cells of {', '.join(kinds) or 'no network'}; a search is "
                "for one network and objective."
            )
        return cells


@dataclass(frozen=True, slots=True)
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

    def describe(self) -> str:
        """Returns what it changes, in words."""
        return show_changes(self.changes)


def show_changes(changes: Mapping[str, Any]) -> str:
    """Returns changes of a recipe as ``lr=0.01, init=ibp``."""
    return ", ".join(f"{key}={value}" for key, value in changes.items()) or "the suite's recipe"


def plan_trials(request: SearchRequest) -> list[list[Trial]]:
    """Returns all trials, each on every rung that it may reach; every recipe is checked, and the first trial's cells.

    Raises:
        UserError: The request makes no sense, or a trial's recipe is refused, or a cell can't be what it is to be.
    """
    if "verified" in request.criterion.weights and request.rungs > 1:
        raise UserError("--criterion: 'verified' is measured on the last rung only, so it goes with --rungs 1.")
    if "verified" in request.criterion.weights and request.verification is None:
        raise UserError("--criterion: 'verified' needs --verify N, the number of held-out images to verify.")
    if request.verification is not None:
        request.verification.check()
    if request.trials is None and request.rungs > 1:
        raise UserError("--one-by-one compares all values after equal epochs, so it goes with --rungs 1.")
    cells = request.chosen_cells()
    trials, space = request.trials, request.space
    _check_space(request, cells[0])
    draws = one_by_one(space) if trials is None else draw(space, trials, request.seed)
    plans = [
        [_trial(request, cells, number, rung, changes) for rung in range(request.rungs)]
        for number, changes in enumerate(draws)
    ]
    first = plans[0][0]
    for job in first.jobs:
        refuse(job, first.folder)
    return plans


def _check_space(request: SearchRequest, cell: Cell) -> None:
    """Refuses a space with a value that no recipe may have, whether or not it is drawn."""
    from prunecert.models.recipe import Recipe

    if "holdout" in request.space:
        raise UserError("The space's key 'holdout' is refused: trials are compared on held-out images; leave it out.")
    recipe = request.suite.recipe(cell.network, cell.objective, cell.compression, cell.pruner)
    for key, domain in request.space.items():
        for value in domain.ends:
            changes = {key: value}
            Recipe.check(apply(recipe, changes), cell.objective, where=f"the space ({show_changes(changes)})")


def _trial(request: SearchRequest, cells: Sequence[Cell], number: int, rung: int, changes: Mapping[str, Any]) -> Trial:
    from prunecert.models.recipe import Recipe

    objective = cells[0].objective
    where = f"trial {number} ({show_changes(changes)})"
    # Trials are compared on held-out images, also where the suite's last training is to have all.
    changed = {**apply(own_recipe(request.suite, cells), changes), "holdout": True}
    # The whole recipe, so that the lengths of its stages are known.
    recipe = Recipe.from_dict(changed, objective, where=where)
    total = recipe.pretrain_epochs + recipe.prune_epochs + recipe.finetune_epochs
    share = min(1.0, (request.epochs or total) / total) / request.eta ** (request.rungs - 1 - rung)
    recipe = Recipe.from_dict(scale_epochs(recipe.to_dict(), share), objective, where=where)
    command = f"python -m bench.search --suite {request.named} --cells '{request.cells}' (trial {number})"
    jobs = tuple(make_job(cell, recipe, command) for cell in cells)
    return Trial(number, rung, changes, jobs, request.out / f"trial{number:03d}-rung{rung}")


def own_recipe(suite: Suite, cells: Sequence[Cell] | Sequence[Job]) -> dict[str, Any]:
    """Returns the suite's recipe of cells of one network and objective; of their compression and pruner if shared."""
    return suite.recipe(cells[0].network, cells[0].objective, *_shared(cells))


def recipe_key(suite: Suite, cells: Sequence[Cell] | Sequence[Job]) -> str:
    """Returns the key of a suite's `recipes` where changes of that recipe must stand, lest others override them."""
    general = f"{cells[0].network}/{cells[0].objective}"
    keys = recipe_keys(cells[0].network, cells[0].objective, *_shared(cells))
    return next((key for key in reversed(keys) if key in suite.recipes and key.startswith(general)), general)


def _shared(cells: Sequence[Cell] | Sequence[Job]) -> tuple[float | None, str | None]:
    """Returns the compression and the pruner of all cells; None for what they don't share."""
    compressions, pruners = {cell.compression for cell in cells}, {cell.pruner for cell in cells}
    return (
        compressions.pop() if len(compressions) == 1 else None,
        pruners.pop() if len(pruners) == 1 else None,
    )


def survivors(scores: Mapping[int, float], count: int, rung: int, eta: float) -> list[int]:
    """Returns who goes on to a rung: the best 1/eta^rung of `count` trials, the better first, at least one.

    Example:
        >>> survivors({0: 0.3, 1: 0.5, 2: 0.9}, 3, rung=1, eta=3.0)
        [2]
    """
    best = sorted(scores, key=lambda number: (-scores[number], number))
    return best[: max(1, math.ceil(count / eta**rung - 1e-9))]
