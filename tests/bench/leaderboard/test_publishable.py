from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.leaderboard.proofs import Record, write_records
from prunecert.bench.leaderboard.publishable import publishable
from prunecert.errors import UserError
from tests.bench import boards


def test_invalid_entries_stop_everything_or_are_named(tmp_path: Path) -> None:
    root = boards.write(tmp_path, *boards.small_board()[:2])
    valid = publishable(root, skip_invalid=False)
    assert len(valid.entries) == 2
    assert (valid.larger, valid.proofs, valid.remarks) == ({}, {}, ())
    for number in range(12):
        (root / "leaderboard" / f"wrong{number:02}.json").write_text("{}")
    with pytest.raises(UserError, match="nothing is published") as caught:
        publishable(root, skip_invalid=False)
    assert caught.value.details[-1].startswith("and ")
    board = publishable(root, skip_invalid=True)
    assert board.entries == valid.entries
    assert board.remarks[0].startswith("left out: wrong00.json: kind")


def test_where_nothing_is_valid_nothing_is_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no leaderboard entry"):
        publishable(tmp_path, skip_invalid=True)
    root = boards.write(tmp_path, boards.make())
    (next((root / "leaderboard").iterdir())).write_text("{}")
    with pytest.raises(UserError, match="holds no valid leaderboard entry"):
        publishable(root, skip_invalid=True)


def test_proofs_that_were_checked_here_are_told_in_words(tmp_path: Path) -> None:
    entry = boards.with_proofs()
    root = boards.write(tmp_path, entry, boards.make("hydra"))
    record = Record(digest=entry["digest"], checked=1, proofs=1, answers=11, seed=0, version="1")
    write_records(root / "leaderboard", {entry["name"]: record})
    assert publishable(root, skip_invalid=False).proofs == {entry["name"]: record.words}
