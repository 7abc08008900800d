"""Answers of earlier runs, taken over instead of asked again: the same instance, or one that settles it.

Taken over are `unsat`, `sat` and `unknown` of the same network, image, radius, verifier, version, settings and limit;
`timeout` and failures depend on the machine and are asked again. Where there is no such answer, one of the same
verifier at another radius will do: a proof over a larger box holds in every smaller one, and a counterexample in a
smaller box lies in every larger one. Boxes are compared corner by corner, and a counterexample is replayed before it
counts, whatever the earlier run says.

A run takes over just what it would have asked, when it would have asked it: its counts do not depend on what else other
runs had to say. Its rows say where an answer comes from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from prunecert.bench.planning.plan import CellPlan, box, instance_id, question_id
from prunecert.bench.planning.stages import Stage
from prunecert.bench.results.decode import plain
from prunecert.bench.results.protocol_types import SessionStage
from prunecert.bench.results.row_types import ReusedFrom, VerdictRow
from prunecert.bench.results.session_types import SessionCell, SessionRow, VerifySessionRow
from prunecert.bench.results.store import Log, Writer, collector_off, run_session
from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, Status

_TAKEN = (Status.UNSAT, Status.SAT, Status.UNKNOWN)
#: Network, data, split, verifier, version, settings, image.
_Family = tuple[str, str, str, str, str, str, int]


@dataclass(frozen=True)
class _OldAnswer:
    """An earlier answer."""

    row: VerdictRow
    log: Log
    session: SessionRow
    eps: Fraction


@dataclass
class Earlier:
    """The answers of earlier runs.

    Args:
        exact: By stage key and image.
        families: By all but radius and limit.
    """

    exact: dict[tuple[str, int], _OldAnswer] = field(default_factory=dict)
    families: dict[_Family, list[_OldAnswer]] = field(default_factory=lambda: defaultdict(list))


def read_earlier(folders: Sequence[Path], machine: Mapping[str, Any], device: str) -> Earlier:
    """Reads earlier runs.

    Args:
        folders: Their directories.
        machine: What this run is made on; see `bench.machine.machine`.
        device: Device asked for.

    Raises:
        UserError: One is no run, is damaged, holds times, or was made on another machine or device.
    """
    earlier = Earlier()
    for folder in folders:
        log = Log(folder)
        stages: dict[str, tuple[SessionRow, SessionCell, SessionStage]] = {}
        with collector_off():
            for row in log.rows():
                if isinstance(row, SessionRow | VerifySessionRow):
                    session = run_session(folder, row)
                    _check(folder, session, machine, device)
                    stages |= {s.key: (session, cell, s) for cell in session.cells for s in cell.stages}
                elif isinstance(row, VerdictRow) and row.key in stages and row.status in _TAKEN:
                    session, cell, stage = stages[row.key]
                    old_answer = _OldAnswer(row, log, session, Fraction(cell.eps))
                    earlier.exact[row.key, row.image] = old_answer
                    if cell.norm == "l2":
                        continue
                    named = (cell.onnx_sha256, cell.data_fingerprint, cell.split)
                    how = (stage.verifier, stage.version, stage.settings_hash)
                    earlier.families[(*named, *how, row.image)].append(old_answer)
    return earlier


def _check(folder: Path, session: SessionRow, machine: Mapping[str, Any], device: str) -> None:
    if session.timed:
        raise UserError(f"--reuse {folder} is refused: it holds times of a timing suite, which are never taken over.")
    if plain(session.machine) != dict(machine) or session.device != device:
        raise UserError(
            f"--reuse {folder} is refused: it was made on another machine or device ({session.machine.cpu}, "
            f"{session.machine.cores} cores, {session.device}), and its times would stand beside those of this one."
        )


def take_over(
    plan: CellPlan, stage: int, positions: Sequence[int], earlier: Earlier, writer: Writer
) -> dict[int, Status]:
    """Writes rows for what earlier runs have answered.

    Args:
        plan: A cell.
        stage: Number of the verifier whose turn it is.
        positions: Places of the images that it is to be asked about.
        earlier: What there is to be taken over.
        writer: Where rows go.

    Returns:
        The answers taken over, by position.
    """
    rows = {p: row for p in positions if (row := _row(plan, p, stage, earlier, writer)) is not None}
    if rows:
        writer.append(*rows.values())
    return {p: row.status for p, row in rows.items()}


def _row(plan: CellPlan, position: int, number: int, earlier: Earlier, writer: Writer) -> VerdictRow | None:
    stage, image = plan.stages[number], int(plan.data.indices[position])
    instance = plan.instance(position, number)
    identity = instance_id(instance, stage)
    same = earlier.exact.get((plan.keys[number], image))
    for old_answer in [same] if same is not None else _implying(plan, stage, instance, position, earlier):
        row = replace(
            old_answer.row,
            id=identity,
            question=question_id(instance),
            key=plan.keys[number],
            cell=plan.name,
            timeout=stage.timeout,
            # The bounds of another box say nothing about this one.
            bounds=None if same is None else old_answer.row.bounds,
            witness="",
            witness_check=None,
            reused=ReusedFrom(
                run=old_answer.log.directory.name,
                started=old_answer.session.started,
                id=old_answer.row.id,
                eps=None if same is not None else str(old_answer.eps),
            ),
        )
        if row.status is not Status.SAT:
            return row
        replayed = _replayed(instance, old_answer)
        if replayed is not None:
            row.witness_check, point = replayed
            row.witness = writer.save_witness(identity, point)
            return row
    return None


def _implying(
    plan: CellPlan, stage: Stage, instance: Instance, position: int, earlier: Earlier
) -> Iterator[_OldAnswer]:
    """Yields answers at other radii that settle the instance; a counterexample is still to be replayed."""
    if plan.cell.ball:
        # The order of radii is one of boxes.
        return
    named = (plan.export.sha256, plan.data.fingerprint, plan.data.split)
    family = (*named, stage.verifier, stage.version, stage.settings_hash, int(plan.data.indices[position]))
    for old_answer in earlier.families.get(family, ()):
        lower, upper = box(plan.data.images[position], old_answer.eps)
        if old_answer.row.status is Status.UNSAT:
            if bool(np.all(lower <= instance.lower) and np.all(upper >= instance.upper)):
                yield old_answer
        elif old_answer.row.status is Status.SAT and old_answer.eps <= plan.cell.eps:
            yield old_answer


def _replayed(instance: Instance, old_answer: _OldAnswer) -> tuple[dict[str, Any], Any] | None:
    """Replays an earlier counterexample on this instance; None if it is gone or is none."""
    from prunecert.verifiers.formats import counterexample

    try:
        check, point = counterexample.replay(instance, old_answer.log.witness(old_answer.row))
    except UserError:
        return None
    return (check.to_json(), point) if check.ok else None
