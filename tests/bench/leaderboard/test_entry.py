from __future__ import annotations

from pathlib import Path

from prunecert.bench.leaderboard.entry import load_entry
from tests.bench import boards


def test_an_entry_survives_being_written_and_read(tmp_path: Path) -> None:
    entry = boards.make()
    root = boards.write(tmp_path, entry)
    assert load_entry(root / "leaderboard" / f"{entry['name']}.json") == entry
