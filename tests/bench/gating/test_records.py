from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.bench.gating.records import Details, Snapshot, of_rows
from prunecert.bench.results.summary import Rows, summary_of
from tests.bench import gatekit as kit
from tests.bench.rowkit import all_typed
from tests.bench.summarykit import cell, session

NAMES = ("ibp", "pgd", "bab")
STATUSES = ("unsat", "sat", "unknown", "timeout", "memout", "error")


def rows_of(images: list[dict[str, str] | None]) -> list[dict[str, Any]]:
    """Returns a run's rows; None is a misclassified image, else statuses by verifier."""
    rows: list[dict[str, Any]] = [session(cell(images=len(images)))]
    for index, answers in enumerate(images):
        shared = {"cell": "c", "image": index, "label": index % 10}
        rows.append({"type": "image", "key": "i-c", "correct": answers is not None, **shared})
        for name, status in (answers or {}).items():
            verdict = {
                "type": "verdict",
                "key": f"k-{name}-c",
                "question": f"q{index}",
                "verifier": name,
                "version": "1",
            }
            times = {"wall_s": 0.75, "load_s": 0.5}
            rows.append({**verdict, **shared, "status": status, "times": times, "detail": f"{name} says {status}"})
    return rows


def read(images: list[dict[str, str] | None]) -> tuple[Snapshot, dict[str, Any]]:
    rows, details = Rows(), Details()
    rows.add(details.watch(all_typed(rows_of(images))))
    return of_rows(rows, details), summary_of(rows)


full = st.fixed_dictionaries({name: st.sampled_from(STATUSES) for name in NAMES})
some = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(STATUSES))


@given(st.lists(st.none() | full, min_size=1, max_size=20))
@settings(deadline=None)
def test_outcomes_are_counted_as_the_summary_counts_them(images: list[dict[str, str] | None]) -> None:
    snapshot, summary = read(images)
    (counted_cell,) = summary["cells"]
    outcomes = Counter(outcome.status for outcome in snapshot.cells["c"].outcomes().values())
    n = len(images)
    assert outcomes["unsat"] == counted_cell["verified"]["k"]
    assert n - outcomes["misclassified"] == counted_cell["clean"]["k"]
    assert n - outcomes["misclassified"] - outcomes["sat"] == counted_cell["attacked"]["k"]
    for status in STATUSES[2:]:
        assert outcomes[status] == counted_cell["undecided"][status]
    spent = sum(outcome.seconds for outcome in snapshot.cells["c"].outcomes().values())
    assert abs(spent - counted_cell["time"]["total_s"]) < 1e-9
    assert list(snapshot.contradictions) == summary["contradictions"]
    assert not snapshot.unfinished


@given(st.lists(st.none() | some, min_size=1, max_size=20))
@settings(deadline=None)
def test_what_is_unfinished_is_what_the_summary_says(images: list[dict[str, str] | None]) -> None:
    snapshot, summary = read(images)
    assert bool(snapshot.unfinished) == (not summary["finished"])


def test_failures_are_known_with_their_reasons() -> None:
    snapshot, _ = read([{"ibp": "error", "pgd": "unknown", "bab": "unsat"}, None])
    record = snapshot.cells["c"]
    assert record.errors() == {(0, "ibp"): "ibp says error"}
    assert (record.images[0].question, record.images[1].question) == ("q0", None)
    assert [image.label for image in record.images.values()] == [0, 1]
    assert record.outcome(0)[:4] == ("unsat", "bab", 0.75, 0.25 / 9)
    assert record.outcome(0, frozenset({"bab"})).status == "unknown"


def test_what_shards_left_out_and_ran_on_is_told_of_all_of_them() -> None:
    rows, details = Rows(), Details()
    log = rows_of([{"ibp": "unsat", "pgd": "unknown"}])
    other = {
        **log[0],
        "writer": "two",
        "started": "2026-02-01T00:00:00Z",
        "machine": {"cpu": "y"},
        "skipped": {"x": "y"},
    }
    rows.add(details.watch(all_typed([*log, other])))
    snapshot = of_rows(rows, details)
    assert snapshot.skipped == {"x": "y"}
    assert [machine.cpu for machine in snapshot.head.machines] == ["x", "y"]
    assert snapshot.head.started == "2026-02-01T00:00:00Z"


def test_a_near_limit_share_is_that_of_the_verifier_that_decided() -> None:
    assert kit.cell(kit.SLOW).outcome(0)[1:4] == ("bab", 12.11, 0.6)
