from __future__ import annotations

from prunecert.bench.gating import series
from tests.bench import gatekit as kit
from tests.bench.gatekit import OTHER_NAME, result


def test_series_are_what_github_action_benchmark_reads() -> None:
    bigger, smaller = series.bigger_is_better(result()), series.smaller_is_better(result())
    for entries in (bigger, smaller):
        names = [entry["name"] for entry in entries]
        assert len(names) == len(set(names))
        for entry in entries:
            assert {"name", "unit", "value"} <= set(entry) <= {"name", "unit", "value", "range", "extra"}
            assert isinstance(entry["value"], int | float)
            assert all(isinstance(entry[key], str) for key in set(entry) - {"value"})
    assert bigger[0] == {
        "name": f"{kit.NAME} verified",
        "unit": "%",
        "value": 97.0,
        "range": "91.5–99.0",
        "extra": "97 of 100 images\nbaseline 97.0 %",
    }
    assert [(entry["name"], entry["value"]) for entry in smaller] == [
        (f"{kit.NAME} proved images lost", 3),
        (f"{kit.NAME} median time", 0.01),
        (f"{OTHER_NAME} proved images lost", 0),
    ]
