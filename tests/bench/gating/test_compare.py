from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.result import CaseState, GateCase, GateResult
from prunecert.bench.results.stats import mcnemar_exact, paired_difference
from prunecert.bench.schema.gate import Budget, CellLimits, RuleSet
from prunecert.errors import UserError
from tests.bench import gatekit as kit
from tests.bench.gatekit import BROKEN, ERROR, MISCLASSIFIED, PROVED, SEARCHED, SLOW, TIMEOUT, pair, snapshot

ANYTHING: dict[str, Any] = {"verified": -1, "attacked": -1, "clean": -1}
LAX = RuleSet(base={**ANYTHING, "broken": Budget(99), "undecided": Budget(99), "timeouts": Budget(99)})


def gate(
    base: Sequence[kit.Answers | None], run: Sequence[kit.Answers | None], same: bool = False, **rules: Any
) -> GateResult:
    return compare(*pair(base, run, same), RuleSet(base=rules))


def case(result: GateResult, name: str) -> GateCase:
    (match,) = [one for cell in result.cells for one in cell.cases if one.name == name]
    return match


def failing(result: GateResult) -> set[str]:
    return {one.name for one in result.all_cases if one.state is CaseState.FAIL}


# --- properties ---


@given(kit.images)
@settings(deadline=None)
def test_a_run_passes_against_its_own_baseline(images: list[kit.Answers | None]) -> None:
    run = snapshot(kit.cell(*images))
    result = compare(run, run, RuleSet(base={"verified": 0, "attacked": 0, "clean": 0, "timeouts": Budget(0)}))
    assert result.exit_code == 0, result.all_cases
    assert not any(cell.lost or cell.gained for cell in result.cells)


@given(kit.images)
@settings(deadline=None, max_examples=40)
def test_so_it_does_after_writing_and_reading(tmp_path_factory: pytest.TempPathFactory, images: list[Any]) -> None:
    run, path = snapshot(kit.cell(*images)), tmp_path_factory.mktemp("base") / "b.json"
    baseline_file.write(path, run)
    copy = baseline_file.read(path)
    assert copy.head == run.head
    assert copy.history == run.history
    assert compare(copy, run, RuleSet()).exit_code == 0
    for one, other in zip(copy.cells.values(), run.cells.values(), strict=True):
        assert {i: one.outcome(i)[:2] for i in one.images} == {i: other.outcome(i)[:2] for i in other.images}


RANKED: list[kit.Answers | None] = [MISCLASSIFIED, BROKEN, TIMEOUT, SEARCHED]
ranks = st.integers(0, 3)


@st.composite
def two_runs(draw: st.DrawFn) -> tuple[list[Any], list[Any], list[Any]]:
    """Draws a baseline, a run, and a run that is better on some images and worse on none."""
    base = draw(st.lists(st.sampled_from([*RANKED, SLOW]), min_size=1, max_size=20))
    worse = draw(st.lists(ranks, min_size=len(base), max_size=len(base)))
    better = [draw(st.integers(rank, 3)) for rank in worse]
    return base, [RANKED[rank] for rank in worse], [RANKED[rank] for rank in better]


limits = st.fixed_dictionaries(
    {
        **{name: st.sampled_from([CellLimits().verified, -1, 0, CellLimits().clean * 20]) for name in ANYTHING},
        "verified_min": st.sampled_from([None, CellLimits().verified * -100]),
        **{name: st.integers(0, 4).map(Budget) for name in ("broken", "undecided", "timeouts")},
    }
)


@given(two_runs(), limits)
@settings(deadline=None, max_examples=150)
def test_doing_better_on_an_image_never_makes_a_gate_fail(
    runs: tuple[list[Any], list[Any], list[Any]], rules: dict[str, Any]
) -> None:
    base, worse, better = runs
    if gate(base, worse, **rules).exit_code == 0:
        assert gate(base, better, **rules).exit_code == 0


@given(two_runs(), limits)
@settings(deadline=None, max_examples=100)
def test_looser_rules_never_make_a_gate_fail(
    runs: tuple[list[Any], list[Any], list[Any]], rules: dict[str, Any]
) -> None:
    base, run, _ = runs
    if gate(base, run, **rules).exit_code == 0:
        assert gate(base, run, **{**rules, **LAX.base, "verified_min": None}).exit_code == 0
    assert compare(*pair(base, run), LAX).exit_code == 0


@given(kit.images, kit.images)
@settings(deadline=None)
def test_lost_and_gained_are_the_difference(base: list[Any], run: list[Any]) -> None:
    n = min(len(base), len(run))
    result = gate(base[:n], run[:n])
    (cell,) = result.cells
    verified = cell.metrics["verified"]
    assert verified.base - len(cell.lost) + len(cell.gained) == verified.run
    assert (verified.lost, verified.gained) == (len(cell.lost), len(cell.gained))
    assert verified.p == mcnemar_exact(len(cell.lost), len(cell.gained))
    assert verified.interval == paired_difference(len(cell.lost), len(cell.gained), n)[1:]
    assert set(failing(result)) <= {"images", "verified", "attacked", "clean"}


# --- single images ---


@pytest.mark.parametrize("now", [BROKEN, MISCLASSIFIED])
def test_a_proved_image_that_breaks_fails_whatever_is_gained(now: kit.Answers | None) -> None:
    result = gate([PROVED, TIMEOUT, TIMEOUT], [now, PROVED, PROVED])
    assert result.exit_code == 1
    assert failing(result) == {"images", "attacked"} | ({"clean"} if now is MISCLASSIFIED else set())
    word = "sat by pgd" if now else "misclassified"
    assert case(result, "images").lines == [f"image 0: was unsat by ibp, now {word}"]
    assert case(gate([PROVED], [now], **ANYTHING, broken=Budget(1)), "images").state is CaseState.PASS


def test_opposite_answers_to_the_same_question_fail_whatever_the_rules_allow() -> None:
    for base, run, words in (
        (PROVED, BROKEN, "image 0: unsat by ibp in the baseline, sat by pgd in the run"),
        (BROKEN, PROVED, "image 0: sat by pgd in the baseline, unsat by ibp in the run"),
    ):
        result = compare(*pair([base], [run], same=True), LAX)
        assert result.exit_code == 1
        assert failing(result) == {"contradictions"}
        assert case(result, "contradictions").lines == [words]
    # Under other weights the second is progress.
    better = gate([BROKEN], [PROVED])
    assert better.exit_code == 0
    assert "better than the baseline; 0 proved images lost, 1 gained" in better.headline


def test_contradictions_within_the_run_fail() -> None:
    base, run = pair([PROVED], [PROVED])
    contradiction = {"cell": kit.NAME, "image": 0, "unsat_by": "ibp", "sat_by": "pgd", "question": "q"}
    result = compare(base, replace(run, contradictions=(contradiction,)), LAX)
    assert result.exit_code == 1
    assert result.cases[0].lines == [f"{kit.NAME} image 0: ibp proves it, pgd breaks it"]


def test_another_verifier_may_prove_it() -> None:
    result = gate([PROVED, SEARCHED], [SEARCHED, PROVED], same=True)
    assert result.exit_code == 0
    assert not result.cells[0].lost


def test_a_timeout_counts_against_the_budget_only_near_the_limit() -> None:
    many = [PROVED] * 99
    near = gate([SLOW, *many], [TIMEOUT, *many], same=True)
    assert near.exit_code == 0
    assert case(near, "images").lines == ["image 0: was unsat by bab (took 60 % of its limit), now timeout"]
    strict = gate([SEARCHED, *many], [TIMEOUT, *many], same=True)
    assert failing(strict) == {"images", "verified"}
    assert "1 now undecided, proved in good time before (0 allowed)" in case(strict, "images").message
    two = gate([SLOW, SLOW, *many], [TIMEOUT, TIMEOUT, *many], same=True)
    assert failing(two) == {"images"}
    assert "2 now undecided, proved near the limit before (1 allowed)" in case(two, "images").message
    assert gate([SEARCHED, *many], [TIMEOUT, *many], strict_below=0.1, timeouts=Budget(1)).exit_code == 0
    spare = gate([SLOW, SEARCHED, *many], [TIMEOUT, TIMEOUT, *many], broken=Budget(1), timeouts=Budget(1), **ANYTHING)
    assert spare.exit_code == 0
    assert "1 now undecided, proved in good time before (1 allowed)" in case(spare, "images").message


def test_what_the_budget_covers_is_not_held_against_the_threshold() -> None:
    result = gate([SLOW, PROVED], [TIMEOUT, PROVED], timeouts=Budget(1))
    assert result.exit_code == 0
    assert case(result, "verified").message.endswith("1 lost near the limit are left to their budget")
    assert result.cells[0].metrics["verified"].run == 1


@pytest.mark.parametrize(("lost", "code"), [(1, 0), (2, 1)])
def test_a_threshold_is_exact(lost: int, code: int) -> None:
    # 1 of 200 images is just 0.5 points, which -0.5pp allows.
    n = 200
    base, run = [PROVED] * n, [*[TIMEOUT] * lost, *[PROVED] * (n - lost)]
    assert gate(base, run, undecided=Budget(n)).exit_code == code


def test_floors_and_metrics() -> None:
    base = [PROVED, PROVED, BROKEN, MISCLASSIFIED]
    result = gate(base, base, verified_min=CellLimits().clean * -51, attacked_min=CellLimits().clean * -50)
    assert failing(result) == {"verified"}
    assert case(result, "verified").message.endswith("it must be at least 51 %")
    worse = gate([TIMEOUT] * 4, [TIMEOUT, TIMEOUT, BROKEN, MISCLASSIFIED])
    assert failing(worse) == {"attacked", "clean"}
    assert "100.0 → 50.0 % (-50.0 pp" in case(worse, "attacked").message
    assert "2 lost, 0 gained, McNemar p = 0.5" in case(worse, "attacked").message


def test_a_network_that_is_no_longer_sparse_fails() -> None:
    base, run = pair([PROVED], [PROVED])
    result = compare(base, kit.with_info(run, measured_sparsity=0.0), RuleSet())
    assert failing(result) == {"sparsity"}
    assert case(result, "sparsity").message == "90.00 → 0.00 %; it may fall by 0.5 pp"


# --- failures ---


def test_a_verifier_that_crashed_is_an_error_and_never_a_pass() -> None:
    result = gate([PROVED, TIMEOUT], [PROVED, ERROR])
    assert result.exit_code == 2
    assert result.outcome == "broken"
    assert case(result, "verifier bab").state is CaseState.ERROR
    assert case(result, "verifier bab").lines == ["image 1: it crashed"]
    lost = gate([PROVED, SEARCHED], [PROVED, ERROR])
    assert lost.exit_code == 2
    assert [case(lost, name).state for name in ("images", "verified")] == [CaseState.ERROR] * 2
    certain = gate([PROVED, SEARCHED], [BROKEN, ERROR])
    assert certain.exit_code == 1


def test_a_failure_that_the_baseline_has_as_well_is_known() -> None:
    assert gate([ERROR, PROVED], [ERROR, PROVED]).exit_code == 0
    assert gate([PROVED, ERROR], [ERROR, PROVED]).exit_code == 2


def test_losses_are_certain_only_where_no_verifier_failed() -> None:
    result = gate([PROVED] * 4, [ERROR, TIMEOUT, PROVED, PROVED], verified=CellLimits().clean * 30, undecided=Budget(1))
    assert case(result, "verified").state is CaseState.ERROR
    result = gate([PROVED] * 4, [ERROR, TIMEOUT, PROVED, PROVED], verified=CellLimits().clean * 20, undecided=Budget(1))
    assert case(result, "verified").state is CaseState.FAIL


def test_a_verifier_that_is_not_installed_is_refused_or_skipped() -> None:
    base, run = pair([PROVED, SEARCHED, TIMEOUT], [PROVED, SEARCHED, TIMEOUT])
    partial = kit.without(run, "bab", skipped={"bab": "install bab."})
    with pytest.raises(
        UserError, match=r"made without verifiers of the baseline \(bab: install bab\.\).*--skip-unavail"
    ):
        compare(base, partial, RuleSet())
    result = compare(base, partial, RuleSet(), skip_unavailable=True)
    assert result.exit_code == 0
    assert case(result, "verifier bab").state is CaseState.SKIP
    assert result.cells[0].metrics["verified"].base == 1
    assert "bab was left out of the run" in result.notes[0]
    broken = kit.without(pair([], [BROKEN, SEARCHED, TIMEOUT])[1], "bab", skipped={"bab": "install bab."})
    assert compare(base, broken, RuleSet(), skip_unavailable=True).exit_code == 1
    with pytest.raises(UserError, match=r"verifiers: ibp, pgd, bab in the baseline, ibp, pgd in the run"):
        compare(base, kit.without(run, "bab"), RuleSet(), skip_unavailable=True)


def test_a_network_that_a_verifier_no_longer_takes_loses_what_it_proved() -> None:
    base, run = pair([PROVED, SEARCHED], [PROVED, SEARCHED])
    refused = kit.with_info(kit.without(run, "bab"), unsupported={"bab": "no Tanh."})
    result = compare(base, refused, RuleSet())
    assert failing(result) == {"images", "verified"}
    assert case(result, "verifier bab").message == "bab no longer takes the network: no Tanh."
