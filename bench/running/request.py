"""What is asked of a run, and what comes of it: the two ends of `bench.running.run.run_suite`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prunecert.bench.planning import select
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.report.conclude import Conclusion
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.running.slurm import Resources
from prunecert.bench.schema.cell import Protocol
from prunecert.bench.schema.suite import Suite
from prunecert.errors import EXIT_OK
from prunecert.verifiers.base import Status


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the parts of a run are worked off, if not in this process.

    Args:
        executor: ``"submitit"`` or ``"submitit-local"``.
        resources: What each part gets.
    """

    executor: str
    resources: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is asked of a run; it travels as a pickle, too.

    Args:
        suite: The suite, its profile chosen.
        named: How the suite was named by who asks, for messages; by default its own name.
        cells: Shell patterns of cell names, comma-separated; None: all cells.
        verifiers: Verifier names, comma-separated, in order; None: the suite's cascade.
        images: How many images; None: the profile's number.
        image_seed: Seed of the order in which images are taken; None: the first ones.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or a list of the latter with commas.
        workers: Verifier processes side by side; None: by cores and memory.
        pinned: Whether each worker has processors of its own.
        out: The run directory; None: a folder of the suite's and profile's name under ``results/runs``.
        data_root: Folder that holds ``cifar-10-batches-py``; None: it is looked for.
        checkpoints: Folder of the trained cells.
        sample: Whether the built-in sample may stand in for CIFAR-10 where there is none.
        exports: Folder for ONNX files.
        abcrown: A checkout of alpha-beta-CROWN.
        shard: (i, n): only part i of n, from 1.
        skip_unavailable: Whether verifiers that are not installed are left out.
        reuse: Earlier runs whose answers are taken over.
        warm_start: Whether attacks begin at the neighbouring ratio's counterexamples.
        retry: Statuses whose instances are done again.
        cards: Cards of the networks to be verified instead of the suite's own.
        certificates: Whether answers get certificates.
        compact: What is removed from the networks first, as ``--compact`` takes it; None: what the suite says.
        submit: Whether leaderboard entries will be made of the run; what no entry may stand for is then refused.
        dry_run: Whether it is only said what would be done.
        cluster: Where the parts are worked off; None: all in this process.
        part: Whether this process does a part for one that concludes the run when all parts are done.
        argv: The command's arguments, for the session row.
    """

    suite: Suite
    named: str = ""
    cells: str | None = None
    verifiers: str | None = None
    images: int | None = None
    image_seed: int | None = None
    device: str = "cpu"
    workers: int | None = None
    pinned: bool = True
    out: Path | None = None
    data_root: Path | None = None
    sample: bool = True
    checkpoints: Path = select.CHECKPOINTS
    exports: Path = Path("onnx_exports")
    abcrown: Path | None = None
    shard: tuple[int, int] | None = None
    skip_unavailable: bool = False
    reuse: tuple[Path, ...] = ()
    warm_start: bool = False
    retry: frozenset[Status] = frozenset()
    cards: tuple[Path, ...] = ()
    certificates: bool = False
    compact: str | None = None
    submit: bool = False
    dry_run: bool = False
    cluster: Cluster | None = None
    part: bool = False
    argv: tuple[str, ...] = ()

    @property
    def suite_name(self) -> str:
        """How the suite is called in messages."""
        return self.named or self.suite.name


@dataclass(frozen=True, slots=True)
class RunResult:
    """What has come of a run.

    Args:
        out: The run directory.
        plans: The networks, and what was asked of each.
        protocols: How the suite says that each cell is verified, by name, whatever was narrowed for this run.
        session: The row that says what this process has done, and with what; None if it was a dry run or jobs did it.
        conclusion: Summary, files and faults; None if it was a dry run, or a part that another process concludes.
    """

    out: Path
    plans: tuple[CellPlan, ...] = field(repr=False)
    protocols: dict[str, Protocol] = field(repr=False)
    session: SessionRow | None = field(default=None, repr=False)
    conclusion: Conclusion | None = None

    @property
    def exit_code(self) -> int:
        """0; 1 if verifiers contradict each other; 2 if a verifier failed on everything it was asked."""
        return EXIT_OK if self.conclusion is None else self.conclusion.exit_code
