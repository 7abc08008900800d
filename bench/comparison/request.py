"""What is asked of `bench.compare`, and what the suite says about it: the cells, their limit and their cascade."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prunecert.bench.planning import select
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError, did_you_mean
from prunecert.models.checkpoint_folders import describe_places
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind

#: Verifiers that have a command line of their own.
TOOLS = ("neuralsat", "abcrown")
SIDES = ("run", "alone", "loop")


class SharedProtocol(NamedTuple):
    """What holds on all sides.

    Args:
        suite: The suite's own name.
        limit: Seconds an instance for the verifier.
        cascade: The suite's, with the verifier as its complete one.
        cells: Names of the cells.
    """

    suite: str
    limit: float
    cascade: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """What is compared.

    Args:
        suite: Name of a shipped suite, or a .yaml file.
        profile: Its profile, whose limits hold on all sides.
        verifier: One of `TOOLS`.
        cells: Shell patterns of cell names, comma-separated; None: all cells.
        images: The first so many; None: the profile's number.
        image_seed: Seed of the order in which images are drawn; None: the first ones.
        loop_sample: How many instances the loop sees, its time scaled up; None: all.
        seed: Of the sample.
        sides: Which of `SIDES` to run, in order, comma-separated.
        workers: Processes side by side on every side; None: one a core.
        out: Folder to write; None: one of the suite's and verifier's name.
        data_root: Folder that holds ``cifar-10-batches-py``; None: it is looked for.
        checkpoints: Folder of the trained cells.
        abcrown: A checkout of alpha-beta-CROWN.
        argv: The command's arguments, for the record.
    """

    suite: str
    profile: str = "default"
    verifier: str = "neuralsat"
    cells: str | None = None
    images: int | None = None
    image_seed: int | None = None
    loop_sample: int | None = None
    seed: int = 0
    sides: str = ",".join(SIDES)
    workers: int | None = None
    out: Path | None = None
    data_root: Path | None = None
    checkpoints: Path = select.CHECKPOINTS
    abcrown: Path | None = None
    argv: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.out or Path("results/comparisons") / f"{Path(self.suite).stem}-{self.verifier}"

    def options(self) -> dict[str, Any]:
        """Returns what was asked for, for the record."""
        return {key: value for key, value in asdict(self).items() if key != "argv"}

    def chosen_sides(self) -> tuple[str, ...]:
        """Returns the sides asked for.

        Raises:
            UserError: An option makes no sense.
        """
        if self.verifier not in TOOLS:
            raise UserError(f"--verifier: {did_you_mean('verifier with a command line', self.verifier, TOOLS)}")
        chosen = tuple(dict.fromkeys(word.strip() for word in self.sides.split(",") if word.strip()))
        for name in chosen:
            if name not in SIDES:
                raise UserError(f"--sides: {did_you_mean('side', name, SIDES)}")
        if len(chosen) < 2:
            raise UserError(f"--sides {self.sides!r} is refused; name at least two of {', '.join(SIDES)} to compare.")
        return chosen

    def protocol(self) -> SharedProtocol:
        """Returns what holds on all sides.

        Raises:
            UserError: The suite gives the verifier no limit, or several, or no cell has a checkpoint.
        """
        suite = load_suite(self.suite, self.profile)
        cells = select.choose(suite, self.cells, None, self.images)
        cells, _ = select.find_checkpoints(suite, cells, self.checkpoints)
        # Attack-only cells are no question for a complete verifier.
        cells = tuple(pair for pair in cells if any(VERIFIERS.get(n).kind is Kind.COMPLETE for n in pair[1].cascade))
        if not cells:
            raise UserError(
                f"None of the chosen cells of suite {suite.name!r} has a checkpoint in "
                f"{describe_places(self.checkpoints)} and is meant for complete verifiers; choose others with --cells."
            )
        limits = {protocol.timeouts.get(self.verifier) for _, protocol in cells}
        cascades = {tuple(protocol.cascade) for _, protocol in cells}
        limit = limits.pop()
        if limits or limit is None or len(cascades) > 1:
            raise UserError(
                f"The chosen cells give {self.verifier!r} no limit, or have different limits or cascades; choose cells "
                "that share them with --cells."
            )
        (names,) = cascades
        if self.verifier not in names:
            names = (*(name for name in names if VERIFIERS.get(name).kind is not Kind.COMPLETE), self.verifier)
        return SharedProtocol(suite.name, limit, names, tuple(cell.name for cell, _ in cells))
