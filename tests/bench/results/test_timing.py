from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Stage
from prunecert.bench.planning.timing import Group, at_repeat
from prunecert.bench.report.timing_figures import slug
from prunecert.bench.report.timing_table import faster, markdown
from prunecert.bench.results.session_types import SessionCell
from prunecert.bench.results.timing import factors, summarise_times
from prunecert.bench.results.timing_observations import Observations, Taken, Units, cost, units
from prunecert.bench.running.timing_schedule import schedule
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.bench.schema.suite import load_suite
from prunecert.bench.schema.timing import Timing
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from prunecert.verifiers.base import Kind
from tests.bench import rowkit

SUITE = """\
name: clock
description: Times
cells:
  - networks: [cnn-small]
    objectives: [ibp]
    eps: [2/255]
    pruners: [lwm]
    compression: [1, 10]
    verify: {timing: {images: 3}}
verify:
  images: 40
  cascade: [fake-bound, fake-complete]
  timeouts: {fake-bound: 5, fake-complete: 5}
  timing:
    repeats: 2
    chunk: 4
    control: [fake-bound]
    by_verifier: {fake-complete: {repeats: 1, images: 2}, fake-bound: {batch: 2}}
profiles:
  more:
    timing: {repeats: 7, by_verifier: {fake-complete: {images: 9}}}
"""


def suite_file(tmp_path: Path, text: str = SUITE) -> str:
    path = tmp_path / "clock.yaml"
    path.write_text(text)
    return str(path)


def test_a_timing_section_is_merged_from_suite_profile_and_block(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path), "more")
    assert suite.timed
    for _, protocol in suite.cells:
        timing = protocol.timing
        assert timing is not None
        assert protocol.cross_check == protocol.cascade
        assert (timing.images, timing.repeats, timing.chunk, timing.variants) == (3, 7, 4, ("masked", "compact"))
        assert timing.dose("fake-complete").images == 9
        assert timing.dose("fake-complete").repeats == 1
        assert timing.dose("fake-bound").batch == 2
    assert load_suite("cifar10-timing").timed
    assert not load_suite("cifar10-4nets").timed
    assert "timing" not in load_suite("cifar10-4nets").cells[0][1].to_json()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("repeats: 2", "repeats: 0", r"line 15, verify\.timing\.repeats: 0 is refused; it must be within 1"),
        ("chunk: 4", "chunks: 4", r"Unknown key 'chunks'\. Did you mean 'chunk'"),
        ("control: [fake-bound]", "control: [fake-bond]", r"Did you mean 'fake-bound'"),
        ("fake-bound: {batch: 2}", "fake-bond: {batch: 2}", r"Did you mean 'fake-bound'"),
        ("fake-bound: {batch: 2}", "fake-bound: {bath: 2}", r"Did you mean 'batch'"),
        ("chunk: 4", "variants: [filled]", r"Unknown variant 'filled'"),
        ("chunk: 4", "seed: -1", r"-1 is refused"),
    ],
)
def test_slips_in_a_timing_section_are_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_suite(suite_file(tmp_path, SUITE.replace(before, after)))


def test_times_are_taken_of_all_cells_or_of_none(tmp_path: Path) -> None:
    text = SUITE[: SUITE.index("  timing:\n")] + SUITE[SUITE.index("profiles:") :].replace("more", "default", 1)
    text = text[: text.index("profiles:")]
    with pytest.raises(UserError, match="times are taken of all cells or of none"):
        load_suite(suite_file(tmp_path, text))


# --- the schedule ---


def stage(name: str, batch: int) -> Stage:
    return Stage(name, Kind.INCOMPLETE, "1", "", {}, 1.0, "cpu", True, batch, None, repeat=1)


def plan(compression: float, stages: Sequence[Stage], images: int) -> CellPlan:
    cell = Cell("cnn-small", "ibp", Fraction(2, 255), "lwm" if compression > 1 else "dense", compression, 0)
    data = Dataset(
        np.zeros((images, 3, 2, 2), np.float32),
        np.zeros(images, np.int64),
        np.arange(images) * 3,
        "test",
        "f",
        True,
        False,
        "",
    )
    export = Export(Path(f"{compression}.onnx"), f"{compression}" * 5, 0.0, 1.0, "c", {})
    return CellPlan(cell, Protocol(), export, tuple(stages), {}, data, images)


@dataclass(frozen=True)
class Made:
    timing: Timing
    plans: list[CellPlan]
    groups: list[Group]


@st.composite
def made(draw: st.DrawFn) -> Made:
    images = draw(st.integers(1, 13))
    doses = {
        name: {"images": draw(st.integers(1, 15)), "repeats": draw(st.integers(1, 3)), "batch": draw(st.integers(1, 5))}
        for name in ("a", "b")
    }
    timing = Timing(images=images, chunk=draw(st.integers(1, 6)), seed=draw(st.integers(0, 99)), by_verifier=doses)
    stages = [stage(name, doses[name]["batch"]) for name in doses]
    # The second network is not for verifier "a".
    plans = [plan(1, stages, images), plan(2, stages[1:], images), plan(10, stages, images)]
    return Made(timing, plans, [Group("g", timing, (0, 1, 2), images)])


@settings(deadline=None)
@given(made())
def test_every_image_ratio_and_repeat_is_asked_once_and_networks_take_turns(case: Made) -> None:
    visits = schedule(case.plans, case.groups)
    asked = Counter(
        (case.plans[v.cell].stages[v.stage].verifier, v.repeat, v.cell, place)
        for v in visits
        for batch in v.batches
        for place in batch
    )
    expected = {
        (step.verifier, repeat, cell, place)
        for cell, plan_ in enumerate(case.plans)
        for step in plan_.stages
        for repeat in range(1, case.timing.dose(step.verifier).repeats + 1)
        for place in range(min(case.timing.dose(step.verifier).images, case.groups[0].images))
    }
    assert set(asked) == expected
    assert set(asked.values()) == {1}
    assert [v.repeat for v in visits] == sorted(v.repeat for v in visits)
    # All networks meet a chunk of images before any of them meets the next chunk.
    turns: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for v in visits:
        step = case.plans[v.cell].stages[v.stage]
        turns.setdefault((step.verifier, v.repeat), []).append((v.batches[0][0], v.cell))
        assert all(len(batch) <= step.batch for batch in v.batches)
        assert all(place // step.batch == batch[0] // step.batch for batch in v.batches for place in batch)
    for order in turns.values():
        assert [start for start, _ in order] == sorted(start for start, _ in order)
        per_chunk = Counter(start for start, _ in order)
        assert len(set(per_chunk.values())) == 1
        assert len(set(order)) == len(order)
    assert schedule(case.plans, case.groups) == visits


def test_the_seed_decides_the_order_of_networks() -> None:
    plans = [plan(c, [stage("a", 1)], 9) for c in (1, 2, 10, 20, 100)]
    orders = set()
    for seed in range(4):
        timing = Timing(images=9, repeats=2, chunk=3, seed=seed)
        visits = schedule(plans, [Group("g", timing, (0, 1, 2, 3, 4), 9)])
        orders.add(tuple(v.cell for v in visits))
        # Within a run the order changes from chunk to chunk.
        chunks = [tuple(v.cell for v in visits[i : i + 5]) for i in range(0, len(visits), 5)]
        assert len(set(chunks)) > 1
    assert len(orders) == 4


def test_repeats_and_batches_have_ids_of_their_own() -> None:
    one = plan(2, [stage("a", 1)], 3)
    keys = {at_repeat(one, repeat).keys[0] for repeat in (1, 2, 3)}
    keys.add(plan(2, [stage("a", 2)], 3).keys[0])
    keys.add(replace(one, stages=(replace(one.stages[0], repeat=None),)).keys[0])
    assert len(keys) == 5


# --- the numbers ---


def taken(seconds: Sequence[float], statuses: str = "", repeats: int = 1) -> dict[tuple[int, int], Taken]:
    words = {"u": "unsat", "s": "sat", "t": "timeout"}
    return {
        (repeat, image): Taken(value, words[(statuses or "u" * len(seconds))[image]], 10 * (image + 1), 4)
        for repeat in range(1, repeats + 1)
        for image, value in enumerate(seconds)
    }


def test_units_are_images_or_questions_asked_together() -> None:
    places = {0: 0, 1: 1, 2: 2}
    single = {**taken([1.0, 2.0, 3.0]), (2, 0): Taken(3.0, "unsat", 10, 4), (3, 0): Taken(2.0, "timeout", 10, 4)}
    found = units(single, 1, places)
    assert found.seconds == {(0, 0): 2.0, (0, 1): 2.0, (0, 2): 3.0}
    assert found.decided == {(0, 0): False, (0, 1): True, (0, 2): True}
    assert found.unstable == 20.0
    assert found.domains == 4.0
    together = units(taken([1.0, 1.0, 5.0], repeats=2), 2, places)
    assert together.seconds == {(1, 0): 1.0, (1, 1): 5.0, (2, 0): 1.0, (2, 1): 5.0}


def test_par2_counts_the_undecided_twice_the_limit() -> None:
    assert cost(3.0, True, 10.0) == 3.0
    assert cost(3.0, False, 10.0) == 20.0
    assert cost(11.0, True, 10.0) == 20.0
    assert cost(11.0, False, None) == 11.0


def _units(seconds: Sequence[float], decided: Sequence[bool]) -> Units:
    numbers = range(len(seconds))
    return Units(
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
    found = factors(columns[0], written, limit, statistic)
    parts = [found[name]["ratio"] for name in ("search", "arithmetic", "shapes") if name in found]
    assert len(parts) == 1 + len(also)
    assert math.isclose(math.prod(parts), found["whole"]["ratio"], rel_tol=1e-9)
    for name in ("whole", "search", "arithmetic", "shapes"):
        if name in found:
            # Few images say nothing of how far a ratio may be off.
            assert (found[name]["low"] is None) == (len(rows) < 5)
            assert len(rows) < 5 or found[name]["low"] <= found[name]["high"]
    assert found["units"] == len(rows)


def test_factors_say_what_changed() -> None:
    dense = _units([8.0, 8.0, 16.0, 8.0, 32.0], [True] * 5)
    written = {
        "filled": _units([4.0, 4.0, 8.0, 4.0, 16.0], [True] * 5),
        "masked": _units([1.0, 1.0, 2.0, 1.0, 4.0], [True] * 5),
        "compact": _units([0.5, 0.5, 1.0, 0.5, 2.0], [True] * 5),
    }
    found = factors(dense, written, None, "median")
    assert [found[name]["ratio"] for name in ("search", "arithmetic", "shapes", "whole")] == [0.5, 0.25, 0.5, 1 / 16]
    # Every image changes alike, so that no resampling changes a ratio.
    assert found["whole"] == {"ratio": 1 / 16, "low": 1 / 16, "high": 1 / 16}
    assert faster(found["whole"]) == "16.00 (16.00–16.00)"
    del written["filled"]
    assert factors(dense, written, None, "median")["search"]["ratio"] == 1 / 8
    assert "arithmetic" not in factors(dense, written, None, "median")


def test_only_what_all_networks_have_is_compared() -> None:
    dense = _units([8.0, 100.0], [True] * 2)
    assert factors(dense, {"masked": _units([4.0], [True])}, None, "mean")["whole"]["ratio"] == 0.5
    assert factors(dense, {"masked": _units([], [])}, None, "mean") == {"units": 0}


def cell(name: str, pruner: str, compression: float, variant: str) -> SessionCell:
    return rowkit.cell(
        name=name,
        pruner=pruner,
        compression=compression,
        variant=variant,
        measured_sparsity=1 - 1 / compression,
        shapes={"neurons": 9, "weights": 90, "nonzero": 9, "macs": 900, "sparse_macs": 90},
        onnx_sha256=name,
        group="cnn-small, ibp, ε = 2/255",
        common=5,
        images=2,
        indices=[4, 7],
        timing={},
        batches={"slow": 1},
        keys={"slow": [name]},
        stages=[{"verifier": "slow", "timeout": 10.0}],
    )


def observations(load: float) -> Observations:
    machine = {"cores": 2, "cpu": "a processor", "memory_gib": 8.0}
    session = rowkit.typed({"type": "session", "machine": machine, "workers": 1, "threads": 2})
    cells = [
        cell("dense", "dense", 1, "masked"),
        cell("thin", "lwm", 10, "masked"),
        cell("small", "lwm", 10, "compact"),
    ]
    found = Observations(session, {c.name: c for c in cells}, load_averages=[0.5, load], finished=True)
    for name, seconds, statuses in (
        ("dense", (4.0, 12.0), "ut"),
        ("thin", (2.0, 2.0), "uu"),
        ("small", (1.0, 1.0), "us"),
    ):
        found.taken[name, "slow"] = {
            (1, image): Taken(s, {"u": "unsat", "t": "timeout", "s": "sat"}[w], 6, 2)
            for image, s, w in zip((4, 7), seconds, statuses, strict=True)
        }
    return found


def test_the_numbers_of_a_run() -> None:
    found = summarise_times(observations(1.9))
    (group,) = found["groups"]
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
    assert not found["load_average"]["busy"]
    text = markdown(found)
    assert "WARNING" not in text
    assert "| slow | lwm | 10 | 2 | 2 |" in text
    assert slug(group) == "cnn-small-ibp-eps-2-255"


def test_skipping_zeros_is_compared_with_the_same_method_on_dense_arithmetic() -> None:
    found = observations(1.0)
    for entry in found.cells.values():
        entry.keys["sparse-slow"] = [entry.name]
        entry.stages.append(structs.replace(entry.stages[0], verifier="sparse-slow", kind=Kind.INCOMPLETE))
    found.taken["thin", "sparse-slow"] = {(1, 4): Taken(0.5, "unsat", 6, None)}
    summary = summarise_times(found)
    (twin,) = summary["groups"][0]["twins"]
    assert (twin["verifier"], twin["over"], twin["network"], twin["images"]) == ("sparse-slow", "slow", "thin", 1)
    assert twin["median"]["ratio"] == twin["mean"]["ratio"] == 0.25
    assert "| sparse-slow | slow | lwm | 10 | masked | 1 | 4.00 | 4.00 |" in markdown(summary)


def test_a_busy_machine_is_warned_of() -> None:
    found = summarise_times(observations(3.1))
    assert found["load_average"]["busy"]
    assert "the load average reached 3.1 on 2 cores" in markdown(found)
