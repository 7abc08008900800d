"""What a suite is there for: verdicts, times, or certificates beside them. A class for each, chosen from the suite.

    Plain       every network, every verifier of its cascade, until the image is settled
    Timed       variants of each network, common images, every verifier on every image, taking turns
    Certified   one of these, and then certificates by randomized smoothing
    Compared    one of these, and then questions about pairs of the networks

How a run is concluded depends on what its directory holds, not on the mode; see `bench.report.conclude`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from prunecert.bench.machine import cores, machine
from prunecert.bench.planning.certificates import CertifyPlan, with_certificates
from prunecert.bench.planning.pairs import PairPlan, with_pairs
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Installed
from prunecert.bench.planning.timing import ComparedGroup, timed_plans
from prunecert.bench.running.asking import OpenRun, ask_all
from prunecert.bench.running.certificates import certify_all
from prunecert.bench.running.pair_questions import ask_pairs
from prunecert.bench.running.request import RunRequest
from prunecert.bench.running.resources import default_workers
from prunecert.bench.running.timing import refuse_other_machine, time_all
from prunecert.bench.running.warmstart import warm_plans
from prunecert.bench.schema.suite import Suite
from prunecert.errors import UserError


@dataclass(frozen=True, slots=True)
class Workload:
    """What there is to be done.

    Args:
        plans: The networks, and what is asked of each.
        groups: Which of them have their times compared.
        certified: What is to be certified.
        pairs: What is to be asked of two networks at once.
    """

    plans: tuple[CellPlan, ...]
    groups: tuple[ComparedGroup, ...] = ()
    certified: tuple[CertifyPlan, ...] = ()
    pairs: tuple[PairPlan, ...] = ()


@dataclass(frozen=True, slots=True)
class Workshop:
    """What plans are made with.

    Args:
        installed: Which verifiers there are.
        exports: Folder for ONNX files.
        tell: Takes a line about what is odd.
    """

    installed: Installed
    exports: Path
    tell: Callable[[str], None]


class RunMode(Protocol):
    """What a suite is there for."""

    def refuse(self, request: RunRequest) -> None:
        """Refuses what makes no sense in this mode.

        Raises:
            UserError: The request asks for such.
        """

    def plans(self, plans: Sequence[CellPlan], request: RunRequest, workshop: Workshop) -> Workload:
        """Returns what there is to be done.

        Args:
            plans: One plan a cell.
            request: What is asked for.
            workshop: What plans are made with.

        Raises:
            UserError: Nothing is left to be done, or the suite contradicts itself.
        """

    def begin(self, out: Path, workers: int | None, device: str) -> int:
        """Returns how many verifier processes work side by side.

        Args:
            out: The run directory.
            workers: How many are asked for.
            device: The first device asked for.

        Raises:
            UserError: What the directory holds must not be added to here.
        """

    def work(self, workload: Workload, run: OpenRun) -> None:
        """Does all that is not done yet; each answer is in the log when it is there."""


class Plain:
    """Verdicts."""

    def refuse(self, request: RunRequest) -> None:
        """Refuses what would tear chains of warm starts apart, and what no leaderboard entry may stand for."""
        if request.warm_start and (request.shard is not None or request.cluster is not None):
            raise UserError(
                "--warm-start is refused with shards and jobs: all ratios of an image must be in one process."
            )
        if request.warm_start and request.submit:
            raise UserError("--warm-start is refused with --submit: an entry must stand for itself.")
        if request.image_seed is not None and request.submit:
            raise UserError("--image-seed is refused with --submit: the leaderboard is about the first images.")
        if request.submit and any(cell.ball for cell, _ in request.suite.cells):
            raise UserError("--submit is refused with norm l2: the leaderboard is about boxes, radii in the sup norm.")
        if request.submit and any(cell.trained_eps is not None for cell, _ in request.suite.cells):
            raise UserError(
                "--submit is refused with trained_eps: an entry's network is verified at the radius that it was "
                "trained for; submit from a suite of these."
            )
        if request.submit and any(cell.rounded for cell, _ in request.suite.cells):
            raise UserError(
                "--submit is refused with bits: the board is about networks in float32; submit from a suite of these."
            )

    def plans(self, plans: Sequence[CellPlan], request: RunRequest, workshop: Workshop) -> Workload:
        """Returns the plans, with the networks before them in the ids of attacks that begin at their examples."""
        return Workload(warm_plans(plans) if request.warm_start else tuple(plans))

    def begin(self, out: Path, workers: int | None, device: str) -> int:
        """Returns what is asked for, or else what the machine has room for."""
        return workers or default_workers(device)

    def work(self, workload: Workload, run: OpenRun) -> None:
        """Asks the verifiers."""
        ask_all(workload.plans, run)


class Timed:
    """Times."""

    def refuse(self, request: RunRequest) -> None:
        """Refuses what would make times that cannot be compared."""
        for flag, is_set, why in (
            ("--device", "," in request.device, "one verifier process works at a time, on one device"),
            ("--workers", (request.workers or 1) != 1, "one verifier process works at a time, with all cores"),
            ("--shard", request.shard is not None, "times of different machines or loads are never compared"),
            ("--submit", request.submit, "only the images that all its networks classify correctly are looked at"),
            ("--warm-start", request.warm_start, "an attack's time must not depend on another network's"),
            ("--reuse", bool(request.reuse), "each of them is taken here and now"),
            ("--certificates", request.certificates, "writing them takes the time of the machine"),
            ("--card", bool(request.cards), "its networks are the suite's own, dense and pruned"),
        ):
            if is_set:
                raise UserError(f"{flag} is refused: suite {request.suite_name!r} takes times, and {why}.")
        if request.cluster is not None:
            raise UserError(f"--executor is refused: suite {request.suite_name!r} takes times, on one machine.")

    def plans(self, plans: Sequence[CellPlan], request: RunRequest, workshop: Workshop) -> Workload:
        """Returns a plan for each network and variant, with the images that all of a group get right."""
        variants, groups = timed_plans(plans, workshop.exports, workshop.tell)
        return Workload(variants, tuple(groups))

    def begin(self, out: Path, workers: int | None, device: str) -> int:
        """Returns 1: one works at a time. Times of another machine are not added to."""
        workers = workers or 1
        refuse_other_machine(out, machine(), max(1, cores() // workers))
        return workers

    def work(self, workload: Workload, run: OpenRun) -> None:
        """Takes the times."""
        time_all(workload.plans, workload.groups, run)


class Certified:
    """Certificates, after what else there is to be done.

    Args:
        first: What that is.
    """

    def __init__(self, first: Plain | Timed) -> None:
        self.first = first

    def refuse(self, request: RunRequest) -> None:
        """Refuses what the other mode does."""
        self.first.refuse(request)

    def plans(self, plans: Sequence[CellPlan], request: RunRequest, workshop: Workshop) -> Workload:
        """Returns the other mode's plans, those that are certified with a word on that, and the certificates' plans."""
        workload = self.first.plans(plans, request, workshop)
        networks, certified = with_certificates(workload.plans, workshop.installed, workshop.tell)
        return replace(workload, plans=networks, certified=certified)

    def begin(self, out: Path, workers: int | None, device: str) -> int:
        """Returns what the other mode does."""
        return self.first.begin(out, workers, device)

    def work(self, workload: Workload, run: OpenRun) -> None:
        """Does the other mode's work, and certifies."""
        self.first.work(workload, run)
        if workload.certified:
            certify_all(workload.certified, run)


class Compared:
    """Questions about pairs of networks, after what else there is to be done.

    Args:
        first: What that is.
    """

    def __init__(self, first: RunMode) -> None:
        self.first = first

    def refuse(self, request: RunRequest) -> None:
        """Refuses what the other mode does."""
        self.first.refuse(request)

    def plans(self, plans: Sequence[CellPlan], request: RunRequest, workshop: Workshop) -> Workload:
        """Returns the other mode's plans, those that are compared with a word on that, and the pairs' plans."""
        workload = self.first.plans(plans, request, workshop)
        networks, pairs = with_pairs(
            workload.plans, workshop.installed, request.checkpoints, workshop.exports, workshop.tell
        )
        # Where --verifiers has left nothing but pairs, a network that is only compared with has nothing to be asked.
        networks = tuple(
            plan for plan in networks if plan.protocol.cascade or plan.protocol.certify or "pairs" in plan.extra
        )
        return replace(workload, plans=networks, pairs=pairs)

    def begin(self, out: Path, workers: int | None, device: str) -> int:
        """Returns what the other mode does."""
        return self.first.begin(out, workers, device)

    def work(self, workload: Workload, run: OpenRun) -> None:
        """Does the other mode's work, and asks about pairs."""
        self.first.work(workload, run)
        if workload.pairs:
            ask_pairs(workload.pairs, run)


def mode_of(suite: Suite) -> RunMode:
    """Returns what a suite is there for."""
    protocols = (suite.base, *(protocol for _, protocol in suite.cells))
    first = Timed() if suite.timed else Plain()
    mode: RunMode = Certified(first) if any(protocol.certify is not None for protocol in protocols) else first
    return Compared(mode) if any(protocol.pair is not None for protocol in protocols) else mode
