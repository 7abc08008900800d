"""What of a results folder may be shown: valid entries with the runs over more images and the proofs checked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunecert.bench.leaderboard.check import check_tree
from prunecert.bench.leaderboard.entry import Entry, entry_files
from prunecert.bench.leaderboard.proofs import read_record
from prunecert.bench.leaderboard.runs import LargerRun, larger_runs
from prunecert.errors import UserError

_SHOWN = 10


@dataclass(frozen=True)
class Publishable:
    """What may be shown.

    Args:
        entries: The valid entries, by name.
        larger: Runs over more images, by entry.
        proofs: What is to be said of the proofs that were checked here, by entry.
        remarks: What was left out, and why, a line each.
    """

    entries: dict[str, Entry]
    larger: dict[str, LargerRun]
    proofs: Mapping[str, str]
    remarks: tuple[str, ...]


def publishable(results: Path, *, skip_invalid: bool) -> Publishable:
    """Returns what may be shown of a results folder.

    Args:
        results: The folder.
        skip_invalid: Whether invalid entries are left out; else they stop everything.

    Raises:
        UserError: There is no entry, no valid one, or an invalid one that is not to be skipped.
    """
    if not entry_files(results):
        raise UserError(f"{results} holds no leaderboard entry; make some with prunecert run --submit.")
    good, problems = check_tree(results)
    runs, faults = larger_runs(results, good)
    wrong = [*map(str, problems), *map(str, faults)]
    if wrong and not skip_invalid:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise UserError(
            f"{results} holds entries with problems, so nothing is published; mend them, or leave them out with "
            "--skip-invalid:",
            [*wrong[:_SHOWN], *more],
        )
    if not good:
        raise UserError(f"{results} holds no valid leaderboard entry; see prunecert check {results}.")
    folder = entry_files(results)[0].parent
    records = {name: read_record(folder, entry) for name, entry in good.items()}
    proofs = {name: record.words for name, record in records.items() if record is not None}
    return Publishable(good, runs, proofs, tuple(f"left out: {problem}" for problem in wrong))
