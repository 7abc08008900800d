"""Closes in on the critical radii of the first images of a run's networks; each is written when it is known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import msgspec

from prunecert.bench.machine import cores
from prunecert.bench.planning.plan import CellPlan, is_correct, robustness_instance
from prunecert.bench.planning.stages import Stage
from prunecert.bench.results.critical_radii import (
    NAME,
    RadiusRow,
    contradictions_with,
    read_radii,
    shown_radius,
    summarise_radii,
)
from prunecert.bench.results.outcome import settle
from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import read
from prunecert.bench.running.bisection import bisect
from prunecert.bench.schema.cell import parse_eps
from prunecert.errors import UserError
from prunecert.files import write_bytes
from prunecert.hashing import digest
from prunecert.verifiers.base import Kind, Status, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.process.worker import Worker

#: Half of the range of a pixel: beyond it nothing is recognised, and an attack answers the first question at once.
HIGHEST, TOLERANCE = Fraction(1, 2), Fraction(1, 1020)


@dataclass(frozen=True)
class RadiusRequest:
    """What is asked about a run's networks.

    Args:
        out: The run's folder.
        images: How many of the first images.
        highest: The largest radius to ask about.
        tolerance: How far apart what is proved and what is broken may stay.
    """

    out: Path
    images: int
    highest: Fraction = HIGHEST
    tolerance: Fraction = TOLERANCE


class _Asker:
    """The verifiers of a network, warm, asked one after another until one decides."""

    def __init__(self, stages: Sequence[Stage], stack: contextlib.ExitStack) -> None:
        self.stages = stages
        self._workers = [
            stack.enter_context(
                Worker(s.verifier, s.settings, s.device, memory_limit_mb=s.memory_mb, log=None, threads=cores())
            )
            for s in stages
        ]
        self.seconds = 0.0

    def ask(self, plan: CellPlan, position: int, eps: Fraction) -> Verdict:
        """Returns the deciding verdict, or the last one."""
        verdict = Verdict(Status.UNKNOWN, "nobody was asked")
        for stage, worker in zip(self.stages, self._workers, strict=True):
            name = f"{plan.name} image {int(plan.data.indices[position])} at {shown_radius(eps)}"
            instance = robustness_instance(plan.export, plan.data, position, eps, stage.timeout, name)
            (verdict,) = worker.verify([instance])
            self.seconds += verdict.times.wall_s
            if verdict.status.decided:
                break
        return verdict


def find_radii(plans: Sequence[CellPlan], request: RadiusRequest, tell: Callable[[str], None]) -> list[str]:
    """Closes in on the critical radii of each network's first images, once for all radii that the run has.

    Args:
        plans: The run's networks.
        request: What is asked for.
        tell: Takes a line about each image, and about each network in the end.

    Returns:
        What contradicts the run's own verdicts, a line each; empty as it should be.

    Raises:
        UserError: A network has no verifier that both proves and is asked, or the file is damaged.
    """
    path = request.out / NAME
    rows = {(row.key, row.image): row for row in read_radii(path)}
    places: list[tuple[str, int]] = []
    keys: dict[str, str] = {}
    networks = {(plan.cell.network_label, plan.cell.pruner, plan.export.sha256): plan for plan in plans}
    for plan in networks.values():
        stages = _deciding(plan)
        key = keys[plan.export.sha256] = _key(plan, stages, request)
        positions = range(min(request.images, plan.images))
        positions_left = [p for p in positions if (key, int(plan.data.indices[p])) not in rows]
        places += [(key, int(plan.data.indices[p])) for p in positions]
        if not positions_left:
            continue
        with contextlib.ExitStack() as stack:
            asker = _Asker(stages, stack)
            for position in positions_left:
                row = _radius_of(plan, position, asker, key, request)
                rows[key, row.image] = row
                _append(path, row)
                tell(_line(row))
    radii = [rows[place] for place in places]
    for summary in summarise_radii(radii):
        tell(str(summary))
    return contradictions_with(radii, _statuses(request.out, keys))


def _deciding(plan: CellPlan) -> list[Stage]:
    """Returns who is asked: attacks, which break large radii at once, and then what can do both."""
    attacks = [stage for stage in plan.stages if stage.kind is Kind.ATTACK]
    complete = [stage for stage in plan.stages if stage.kind is Kind.COMPLETE]
    if not complete:
        names = ", ".join(stage.verifier for stage in plan.stages) or "no verifier"
        raise UserError(
            f"{plan.name}: a critical radius needs a complete verifier, which proves and breaks, such as sparse-bab; "
            f"{names} takes this network. Name one with --verifiers."
        )
    return [*attacks, *complete]


def _key(plan: CellPlan, stages: Sequence[Stage], request: RadiusRequest) -> str:
    return digest(
        {
            "onnx": plan.export.sha256,
            "data": plan.data.fingerprint,
            "split": plan.data.split,
            "stages": [stage.to_json() for stage in stages],
            "ends": [str(request.highest), str(request.tolerance)],
        }
    )[:16]


def _radius_of(plan: CellPlan, position: int, asker: _Asker, key: str, request: RadiusRequest) -> RadiusRow:
    label = int(plan.data.labels[position])
    logits = outputs(plan.export.path, plan.data.images[position : position + 1], plan.data.classes)[0]
    correct = is_correct(logits, label)
    asker.seconds = 0.0
    proved, broken, questions = Fraction(0), None, 0
    if correct:
        critical = bisect(lambda eps: asker.ask(plan, position, eps), request.highest, request.tolerance)
        proved, broken, questions = critical.proved, critical.broken, critical.questions
    return RadiusRow(
        key=key,
        network=plan.cell.network_label,
        pruner=plan.cell.pruner,
        image=int(plan.data.indices[position]),
        label=label,
        correct=correct,
        proved=str(proved),
        broken=None if broken is None else str(broken),
        highest=str(request.highest),
        questions=questions,
        seconds=round(asker.seconds, 3),
    )


def _append(path: Path, row: RadiusRow) -> None:
    line = msgspec.json.encode(row) + b"\n"
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        # A kill has cut the last line off.
        write_bytes(path, data[: data.rfind(b"\n") + 1] + line)
        return
    with path.open("ab") as stream:
        stream.write(line)


def _line(row: RadiusRow) -> str:
    where = f"critical radius: {row.network} ({row.pruner}) image {row.image}"
    if not row.correct:
        return f"{where}: misclassified"
    proved, broken = row.ends
    end = (
        f"not broken up to {shown_radius(Fraction(row.highest))}"
        if broken is None
        else f"broken at {shown_radius(broken)}"
    )
    return f"{where}: proved up to {shown_radius(proved)}, {end}; {row.questions} questions, {row.seconds:.1f} s"


def _statuses(out: Path, keys: Mapping[str, str]) -> dict[tuple[str, int], dict[Fraction, str]]:
    """Returns what the run has decided of some networks: by their key and the image, at each radius.

    Args:
        out: The run's folder.
        keys: By the hash of the network's file, which alone tells networks of one name and pruner apart.
    """
    rows = read(Log(out))
    statuses: dict[tuple[str, int], dict[Fraction, str]] = {}
    for cell in (cell for session in rows.sessions.values() for cell in session.cells):
        if cell.onnx_sha256 not in keys or cell.norm == "l2":
            continue
        answers = [rows.answers.get(stage.key, {}) for stage in cell.stages]
        for image, correct in rows.correct.get(cell.image_key, {}).items():
            if correct:
                status = settle(cell.stages, [one.get(image) for one in answers]).status
                statuses.setdefault((keys[cell.onnx_sha256], image), {})[parse_eps(cell.eps)] = status
    return statuses
