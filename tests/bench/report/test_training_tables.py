from __future__ import annotations

from dataclasses import replace

from prunecert.bench.report.training_tables import (
    TRAINED_NOTE,
    left_out_note,
    spread_table,
    trained_table,
    trained_tables,
)
from prunecert.bench.results.impact.trainings import TrainedBoard, trained_boards
from tests.bench.results.impact.networks import network, proved


def board_of(against: str) -> TrainedBoard:
    counts = {"dense": (30, 32), "lwm": (28, 30), "hydra": (30, 23), "heracles": (24,)}
    parts = [
        network(proved(*range(count)), pruner=pruner, seed=seed)
        for pruner, own in counts.items()
        for seed, count in enumerate(own)
    ]
    ((board,),) = trained_boards(parts, against=against)
    return board


def test_the_spread_says_how_sure_it_is_and_who_varies_most() -> None:
    board = board_of("lwm")
    table = spread_table([board])
    (row,) = table.rows
    assert list(row[:4]) == ["10", "3", "0, 1", "verified"]
    spread = board.spread
    assert 0 < spread.low < spread.deviation < spread.high
    assert row[4] == f"{100 * spread.deviation:.1f} ({100 * spread.low:.1f} {100 * spread.high:.1f})"
    assert board.most == "hydra"
    assert row[5] == f"hydra {100 * spread.share:.0f} %"
    uneven = replace(board, spread=replace(spread, uneven=True))
    assert spread_table([uneven]).rows[0][5].endswith(" %*")
    # A terminal of 80 columns holds it.
    assert max(map(len, table.markdown())) <= 80


def test_methods_stand_by_what_they_keep_with_each_seed_s_accuracy() -> None:
    table = trained_table(board_of("lwm"))
    assert [heading for heading, _ in table.columns] == ["pruner", "verified %", "by seed", "to LWM (95 %)", "p"]
    assert [row[0] for row in table.rows] == ["dense", "lwm", "hydra"]
    assert list(table.rows[1][1:]) == ["72.5", "70.0, 75.0", "–", "–"]
    assert table.rows[2][3].startswith("-6.2 (")
    assert [heading for heading, _ in trained_table(board_of("hydra")).columns][3] == "to hydra (95 %)"


def test_what_holds_for_all_tables_is_said_once() -> None:
    first = board_of("lwm")
    second = replace(first, compression=100.0, missing=())
    shown = trained_tables([first, second])
    assert [heading for heading, _, _ in shown] == [
        "Other trainings",
        "Other trainings, 10×, 40 images",
        "Other trainings, 100×, 40 images",
    ]
    assert [TRAINED_NOTE in note for _, _, note in shown] == [False, True, False]
    assert [note for _, _, note in shown][2] == ""
    assert trained_tables([]) == []


def test_who_is_left_out_is_said() -> None:
    assert left_out_note(board_of("lwm")).endswith("at 10×, left out: heracles† (no verified network of each seed).")
