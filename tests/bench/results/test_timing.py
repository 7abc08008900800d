from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from prunecert.bench.report.timing_figures import slug
from prunecert.bench.report.timing_table import faster, markdown
from prunecert.bench.results.timing import factors, summarise_times
from prunecert.bench.results.timing_observations import Observation, ResampledTimes
from prunecert.verifiers.base import Kind
from tests.bench.timekit import observations

# --- the schedule ---


# --- the numbers ---


def _units(seconds: Sequence[float], decided: Sequence[bool]) -> ResampledTimes:
    numbers = range(len(seconds))
    return ResampledTimes(
        {(0, i): seconds[i] for i in numbers},
        {(0, i): decided[i] for i in numbers},
        {i: (seconds[i], decided[i]) for i in numbers},
        None,
        None,
    )


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(*[st.tuples(st.floats(1e-4, 9.0), st.booleans()) for _ in range(4)]), min_size=1, max_size=12),
    st.sets(st.sampled_from(["filled", "compact"])),
    st.sampled_from(["median", "mean"]),
    st.sampled_from([None, 10.0]),
)
def test_factors_multiply_to_the_whole(
    rows: list[tuple[tuple[float, bool], ...]], also: set[str], statistic: str, limit: float | None
) -> None:
    columns = [_units([row[i][0] for row in rows], [row[i][1] for row in rows]) for i in range(4)]
    written = {"masked": columns[1]} | {name: columns[2 if name == "filled" else 3] for name in also}
    ratios = factors(columns[0], written, limit, statistic)
    parts = [ratios[name]["ratio"] for name in ("search", "arithmetic", "shapes") if name in ratios]
    assert len(parts) == 1 + len(also)
    assert math.isclose(math.prod(parts), ratios["whole"]["ratio"], rel_tol=1e-9)
    for name in ("whole", "search", "arithmetic", "shapes"):
        if name in ratios:
            # Few images say nothing of how far a ratio may be off.
            assert (ratios[name]["low"] is None) == (len(rows) < 5)
            assert len(rows) < 5 or ratios[name]["low"] <= ratios[name]["high"]
    assert ratios["units"] == len(rows)


def test_factors_say_what_changed() -> None:
    dense = _units([8.0, 8.0, 16.0, 8.0, 32.0], [True] * 5)
    written = {
        "filled": _units([4.0, 4.0, 8.0, 4.0, 16.0], [True] * 5),
        "masked": _units([1.0, 1.0, 2.0, 1.0, 4.0], [True] * 5),
        "compact": _units([0.5, 0.5, 1.0, 0.5, 2.0], [True] * 5),
    }
    ratios = factors(dense, written, None, "median")
    assert [ratios[name]["ratio"] for name in ("search", "arithmetic", "shapes", "whole")] == [0.5, 0.25, 0.5, 1 / 16]
    # Every image changes alike, so that no resampling changes a ratio.
    assert ratios["whole"] == {"ratio": 1 / 16, "low": 1 / 16, "high": 1 / 16}
    assert faster(ratios["whole"]) == "16.00 (16.00–16.00)"
    del written["filled"]
    assert factors(dense, written, None, "median")["search"]["ratio"] == 1 / 8
    assert "arithmetic" not in factors(dense, written, None, "median")


def test_only_what_all_networks_have_is_compared() -> None:
    dense = _units([8.0, 100.0], [True] * 2)
    assert factors(dense, {"masked": _units([4.0], [True])}, None, "mean")["whole"]["ratio"] == 0.5
    assert factors(dense, {"masked": _units([], [])}, None, "mean") == {"units": 0}


def test_the_numbers_of_a_run() -> None:
    times = summarise_times(observations(1.9))
    (group,) = times["groups"]
    (verifier,) = group["verifiers"]
    assert verifier["mean_is"] == "par2"
    rows = {row["network"]: row for row in verifier["networks"]}
    assert rows["dense"]["mean_s"] == (4 + 20) / 2
    assert rows["dense"]["decided"] == 1
    assert rows["dense"]["cactus_s"] == [4.0]
    (factor,) = verifier["factors"]
    assert factor["mean"]["whole"]["ratio"] == 1 / 12
    assert factor["mean"]["search"]["ratio"] == 2 / 12
    assert factor["median"]["shapes"]["ratio"] == 0.5
    assert factor["unstable"] == 1.0
    assert not times["load_average"]["busy"]
    text = markdown(times)
    assert "WARNING" not in text
    assert "| slow | lwm | 10 | 2 | 2 |" in text
    assert slug(group) == "cnn-small-ibp-eps-2-255"


def test_skipping_zeros_is_compared_with_the_same_method_on_dense_arithmetic() -> None:
    run = observations(1.0)
    for entry in run.cells.values():
        entry.keys["sparse-slow"] = [entry.name]
        entry.stages.append(structs.replace(entry.stages[0], verifier="sparse-slow", kind=Kind.INCOMPLETE))
    run.times["thin", "sparse-slow"] = {(1, 4): Observation(0.5, "unsat", 6, None)}
    summary = summarise_times(run)
    (twin,) = summary["groups"][0]["twins"]
    assert (twin["verifier"], twin["over"], twin["network"], twin["images"]) == ("sparse-slow", "slow", "thin", 1)
    assert twin["median"]["ratio"] == twin["mean"]["ratio"] == 0.25
    assert "| sparse-slow | slow | lwm | 10 | masked | 1 | 4.00 | 4.00 |" in markdown(summary)


def test_a_busy_machine_is_warned_of() -> None:
    times = summarise_times(observations(3.1))
    assert times["load_average"]["busy"]
    assert "the load average reached 3.1 on 2 cores" in markdown(times)
