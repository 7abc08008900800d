"""What makes a comparison impossible: found before the first image where the run is still to be made, else after it."""

from __future__ import annotations

from prunecert.bench.gating.protocol import differences
from prunecert.bench.gating.records import CellRecord, ImageRecord, Snapshot, cell_info, heading
from prunecert.bench.results.protocol_types import StageSettings
from prunecert.bench.results.session_types import SessionRow, narrowed
from prunecert.errors import UserError

_SHOWN = 8


def planned(session: SessionRow, base: Snapshot) -> Snapshot:
    """Returns a run that is about to begin as far as it is known: everything but the answers.

    Labels are those of the data, whose fingerprint is compared, so the baseline's stand for them.

    Args:
        session: What is about to be done.
        base: The baseline that it will be compared with.
    """
    cells: dict[str, CellRecord] = {}
    for cell in session.cells:
        if cell.certified_only:
            continue
        recorded = base.cells[cell.name].images if cell.name in base.cells else {}
        images = {
            number: ImageRecord(number, recorded[number].label if number in recorded else -1, correct=True)
            for number in cell.numbers
        }
        stages = tuple(narrowed(StageSettings, stage) for stage in cell.stages)
        cells[cell.name] = CellRecord(cell_info(cell), stages, images)
    return Snapshot(head=heading([session]), cells=cells)


def refuse_incomparable(
    base: Snapshot, run: Snapshot, names: list[str], *, skip_unavailable: bool, any_version: bool
) -> dict[str, str]:
    """Refuses what can't be compared; returns the verifiers that are left out of account, with what to install.

    Args:
        base: The baseline.
        run: The run, or what is `planned`.
        names: The baseline's cells that are compared.
        skip_unavailable: Whether the run may lack verifiers that were not installed.
        any_version: Whether verifiers may have other versions than in the baseline.

    Raises:
        UserError: Something is in the way; all of it is named.
    """
    _refuse_incomplete(base, run, names)
    verifiers = {verifier for name in names for verifier in base.cells[name].verifiers}
    have = {verifier for name in names for verifier in run.cells[name].verifiers}
    skipped = {name: hint for name, hint in run.skipped.items() if name in verifiers and name not in have}
    if skipped and not skip_unavailable:
        words = "; ".join(f"{name}: {hint}" for name, hint in skipped.items())
        raise UserError(
            f"The run was made without verifiers of the baseline ({words}), so it can't show that what they proved "
            "still holds. Install them, or accept that with --skip-unavailable."
        )
    refusals = []
    for name in names:
        for difference in differences(base.cells[name], run.cells[name], frozenset(skipped), any_version):
            refusals.append((name, difference))
    if refusals:
        raise UserError(_refusal(refusals, len(names)) + _other_data(base, run))
    return skipped


def _refuse_incomplete(base: Snapshot, run: Snapshot, names: list[str]) -> None:
    missing = [name for name in names if name not in run.cells]
    if missing:
        new = [name for name in run.cells if name not in base.cells]
        instead = (
            f" It has {listed(new)} instead: a network of one's own keeps its place from release to release by its "
            "name: in the suite."
            if new
            else ""
        )
        raise UserError(
            f"The run lacks {len(missing)} of the baseline's {len(names)} cells: {listed(missing)}. Verify them as "
            f"well, or gate only some with --cells.{instead}"
        )
    unfinished = [name for name in run.unfinished if name in names]
    if unfinished:
        raise UserError(
            f"The run is not complete: {listed(unfinished)} lacks answers, so nothing is told about it. Give the same "
            "command again (prunecert run); it goes on where it stopped."
        )
    untaken = [name for name in names if run.cells[name].untaken or base.cells[name].untaken]
    if untaken:
        raise UserError(
            f"No verifier takes {listed(untaken)}, so that nothing is told about it; ask others, or gate only some "
            "with --cells."
        )


def _refusal(refusals: list[tuple[str, str]], cells: int) -> str:
    by_difference: dict[str, list[str]] = {}
    for name, difference in refusals:
        by_difference.setdefault(difference, []).append(name)
    words = [
        f"{difference} ({'every cell' if len(names) == cells else listed(names)})"
        for difference, names in by_difference.items()
    ]
    hint = " Other verifier versions alone are accepted with --any-version." if "version of" in " ".join(words) else ""
    return (
        f"Run and baseline can't be compared; they differ in {listed(words, '; ')}. Run the suite as the baseline was "
        f"run, or make a new baseline on purpose.{hint}"
    )


def _other_data(base: Snapshot, run: Snapshot) -> str:
    """Returns which data each of the two has, where it isn't the same."""
    ours, theirs = (sorted({data.source for data in one.head.data}) for one in (base, run))
    if {data.fingerprint for data in base.head.data} == {data.fingerprint for data in run.head.data}:
        return ""
    return f" The baseline's images are of {' and '.join(ours)}, the run's of {' and '.join(theirs)}."


def listed(words: list[str], separator: str = ", ") -> str:
    """Returns words in a row: the first eight, and how many more there are."""
    more = f"{separator}and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return separator.join(words[:_SHOWN]) + more
