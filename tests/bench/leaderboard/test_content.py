from __future__ import annotations

import pytest

from prunecert.bench.leaderboard.content import is_own_command


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["python", "-m", "bench.run", "--suite", "x"], True),
        (["prunecert", "run"], True),
        (["prunecert", "run;id"], False),
        (["python", "-m", "run"], False),
        (["python", "-m"], False),
        (["python3", "-m", "bench.run"], False),
        (["python", "-m", "bench.run", "a\nb"], False),
        (["sudo", "python", "-m", "bench.run"], False),
    ],
)
def test_commands_of_ours(words: list[str], own: bool) -> None:
    assert is_own_command(words) is own
