"""What another training does to networks, and to differences between methods; see `bench.results.impact.trainings`."""

from __future__ import annotations

from collections.abc import Sequence

from prunecert.bench.report.impact_tables import against_column, of_change, p_value, percent, reconstruction_note
from prunecert.bench.report.medium import Column, Table
from prunecert.bench.results.impact.trainings import COLLAPSED, TrainedBoard
from prunecert.models.pruners.taxonomy import marked

SPREAD_NOTE = (
    "deviation: of a network's accuracy between trainings, in points, with its 95 % interval: what seeds change when "
    "what they change in all methods alike and the images' chance are taken away, pooled over the methods as if all "
    "varied alike and independently; what methods of one pre-training have in common is counted with neither. varies "
    "most: what share of it is one method's; *: more than chance gives methods that vary alike (Cochran's test, 5 %), "
    "so that intervals of that method are too short. Methods with a network that gets no further than "
    f"{100 * COLLAPSED:g} % of the way from guessing to all images are left out: collapsed."
)
TRAINED_NOTE = (
    "Means over seeds, and each seed's; differences in points, paired by seed and image; 95 % intervals and p over "
    "other images and other trainings (Student's distribution, the pooled deviation), p corrected by Holm for the "
    "family. Between a method that is trained from scratch and one that prunes, another pre-training may move more."
)


def trained_tables(boards: Sequence[TrainedBoard]) -> list[tuple[str, Table, str]]:
    """Returns the tables of a family: heading, table, and what has to be said of it.

    Args:
        boards: One a compression; none gives no table.
    """
    if not boards:
        return []
    shown = [("Other trainings", spread_table(boards), SPREAD_NOTE)]
    for board in boards:
        reconstructed = reconstruction_note(line.pruner for line in board.lines)
        # What holds for all of them stands under the first.
        general = TRAINED_NOTE if board is boards[0] else ""
        notes = filter(None, [general, left_out_note(board), reconstructed])
        heading = f"Other trainings, {board.compression:g}×, {board.images} images"
        shown.append((heading, trained_table(board), "\n".join(notes)))
    return shown


def spread_table(boards: Sequence[TrainedBoard]) -> Table:
    """Returns, compression by compression, how far another training moves a network."""
    columns: list[Column] = [
        ("×", True),
        ("methods", True),
        ("seeds", True),
        ("accuracy", False),
        ("deviation (95 %)", True),
        ("varies most", False),
    ]
    rows = [
        [
            f"{board.compression:g}",
            str(len(board.lines)),
            ", ".join(map(str, board.seeds)),
            board.metric,
            f"{percent(board.spread.deviation)} ({percent(board.spread.low)} {percent(board.spread.high)})",
            f"{marked(board.most)} {100 * board.spread.share:.0f} %{'*' * board.spread.uneven}",
        ]
        for board in boards
    ]
    return Table(columns, rows)


def trained_table(board: TrainedBoard) -> Table:
    """Returns the methods at a compression, best first, against one of them."""
    columns: list[Column] = [
        ("pruner", False),
        (f"{board.metric} %", True),
        ("by seed", True),
        against_column(board.against),
        ("p", True),
    ]
    rows = [
        [
            marked(line.pruner),
            percent(line.accuracy),
            ", ".join(map(percent, line.by_seed)),
            of_change(line.change),
            "–" if line.change is None else p_value(line.change.p),
        ]
        for line in board.lines
    ]
    return Table(columns, rows)


def left_out_note(board: TrainedBoard) -> str:
    """Returns which methods are in no estimate, and why, or nothing."""
    parts = [
        f"{', '.join(map(marked, names))} ({reason})"
        for names, reason in (
            (board.collapsed, "collapsed"),
            (board.missing, f"no {board.metric} network of each seed"),
        )
        if names
    ]
    return f"{board.family} at {board.compression:g}×, left out: {'; '.join(parts)}." if parts else ""
