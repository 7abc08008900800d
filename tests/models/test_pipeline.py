"""What a cell's files are recognised by, and what is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

from prunecert.bench.running.training import plan
from prunecert.bench.schema.suite import load_suite
from prunecert.hashing import digest

#: By suite and cell: the first letters of the keys of its pre-trained network and of its own states, for made-up data.
KEYS = Path(__file__).parent / "data" / "keys.json"


def test_cells_of_the_suites_are_recognised_by_the_keys_that_they_always_had() -> None:
    """A training that was interrupted under an older version goes on under this one, and nothing is trained twice.

    Where a suite's recipe was changed on purpose, its lines of the file are to be written anew.
    """
    expected = json.loads(KEYS.read_text(encoding="utf-8"))
    data = {"data": "0" * 64, "images": 45_000}
    actual = {}
    for name in sorted({key.partition("/")[0] for key in expected}):
        for job in plan(load_suite(name), None, name):
            own = digest({**job.pretraining(), **job.recipe.to_dict(), "cell": job.name, **data})
            actual[f"{name}/{job.name}"] = [digest({**job.pretraining(), **data})[:12], own[:12]]
    assert {key: actual.get(key) for key in expected} == expected
