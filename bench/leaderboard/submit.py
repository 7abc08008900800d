"""From a finished run to leaderboard entries: one file a cell, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunecert.bench.leaderboard.check import check_entry, check_tree, contradictions
from prunecert.bench.leaderboard.entry import dump, make_entry, read_answers
from prunecert.bench.leaderboard.imagesets import LEAST_IMAGES
from prunecert.bench.leaderboard.proofs import columns_of, copy_proofs
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.running.proof_checks import ProvedRun
from prunecert.bench.running.session import unfit
from prunecert.bench.schema.cell import Protocol
from prunecert.errors import UserError
from prunecert.files import write_text

LEADERBOARD = Path("results/leaderboard")
_SHOWN = 5


def submit(
    out: Path,
    plans: Sequence[CellPlan],
    protocols: Mapping[str, Protocol],
    session: Mapping[str, Any],
    *,
    by: str,
    folder: Path = LEADERBOARD,
) -> list[Path]:
    """Writes an entry for each cell of a run, or none at all.

    Args:
        out: The run directory.
        plans: Its cells.
        protocols: How the suite says that each is verified, by cell name.
        session: The session row of the run.
        by: Who submits.
        folder: Where entries go; an earlier one of the same name is replaced.

    Returns:
        The files written.

    Raises:
        UserError: An entry has problems: a sample, truncated or unfinished run, too few images, a contradiction; none
            is written.
    """
    refuse_few(plans, folder)
    answers = read_answers(out, plans)
    run, entries, networks = ProvedRun(out), {}, {}
    for plan in plans:
        entry = make_entry(plan, protocols[plan.cell.name], session, answers, by, columns_of(run, plan))
        entries[entry["name"]], networks[entry["name"]] = entry, plan.export.path
    if reasons := unfit(plans):
        raise UserError(f"--submit is refused, nothing was written to {folder}: {'; '.join(reasons[:_SHOWN])}.")
    problems = [problem for name, entry in entries.items() for problem in check_entry(entry, name)]
    if not problems:
        board = check_tree(folder)[0] if folder.is_dir() else {}
        problems = contradictions({**board, **entries})
    if problems:
        shown = "; ".join(map(str, problems[:_SHOWN]))
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(f"--submit is refused, nothing was written to {folder}: {shown}{more}.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, entry in entries.items():
        copy_proofs(entry, out, networks[name], folder)
    return [write_text(folder / f"{name}.json", dump(entry)) for name, entry in entries.items()]


def refuse_few(plans: Sequence[CellPlan], folder: Path) -> None:
    """Refuses a run on fewer images than the board takes.

    Raises:
        UserError: One of its cells has fewer.
    """
    few = [plan for plan in plans if plan.protocol.images < LEAST_IMAGES]
    if few:
        raise UserError(
            f"--submit is refused, nothing was written to {folder}: {few[0].cell.name} has {few[0].protocol.images} "
            f"images, and the board takes {LEAST_IMAGES} and more; run the profile default or paper."
        )
