from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prunecert.bench.leaderboard import entry_types
from prunecert.bench.leaderboard.entry_types import FIELDS, OPTIONAL, Columns
from prunecert.bench.schema.pairs import PairProtocol
from tests.bench import boards

PUBLISHED = sorted((Path(__file__).parents[3] / "results" / "leaderboard").glob("*.json"))


def converted(entry: dict[str, Any]) -> None:
    """Takes each field of an entry for what its type says."""
    for name, kind in FIELDS.items():
        if name in entry or name not in OPTIONAL:
            msgspec.convert(entry[name], kind)
    for columns in entry["verdicts"].values():
        msgspec.convert(columns, Columns)


@pytest.mark.parametrize("path", PUBLISHED[:: max(1, len(PUBLISHED) // 10)], ids=lambda path: path.stem)
def test_published_entries_are_of_these_types_and_nothing_else(path: Path) -> None:
    entry = json.loads(path.read_text())
    converted(entry)
    assert entry.keys() - OPTIONAL <= FIELDS.keys()


def test_published_entries_are_of_one_submitter_whose_seeds_the_site_counts_together() -> None:
    assert {json.loads(path.read_text())["by"] for path in PUBLISHED} == {"PruneCert"}


@pytest.mark.parametrize("section", ["method", "cell", "weights", "files", "data", "protocol", "result"])
def test_no_section_takes_a_field_that_it_does_not_know(section: str) -> None:
    entry = copy.deepcopy(boards.make())
    converted(entry)
    entry[section]["surprise"] = 1
    with pytest.raises(msgspec.ValidationError, match="unknown field `surprise`"):
        converted(entry)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (entry_types.Count, (0, 2**53), (-1, 2**53 + 1, True, 1.5, "1")),
        (entry_types.Share, (0.0, 1.0), (-0.1, 1.1, float("nan"), float("inf"))),
        (entry_types.Amount, (0.0, 1e12), (-1.0, 1e13, float("nan"))),
        (entry_types.Image, (0, 9_999), (-1, 10_000)),
    ],
)
def test_numbers_have_bounds(kind: Any, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    for value in good:
        assert msgspec.convert(value, kind) == value
    for value in bad:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, kind)


def test_a_suite_that_asks_about_pairs_may_submit_its_networks() -> None:
    entry = copy.deepcopy(boards.make())
    entry["protocol"]["asked"]["pair"] = PairProtocol(steps=True).to_json()
    converted(entry)
