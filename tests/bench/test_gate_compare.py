from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.gating import baseline_file
from bench.gating.compare import compare
from bench.gating.records import Snapshot
from bench.gating.result import Case, GateResult, State
from bench.gating.rules import Budget, Limits, RuleSet
from bench.stats import mcnemar_exact, paired_difference
from prunecert.errors import UserError
from tests.bench import gatekit as kit
from tests.bench.gatekit import BROKEN, ERROR, MISCLASSIFIED, PROVED, SEARCHED, SLOW, TIMEOUT, pair, snapshot

ANYTHING: dict[str, Any] = {"verified": -1, "attacked": -1, "clean": -1}
LAX = RuleSet(base={**ANYTHING, "broken": Budget(99), "undecided": Budget(99), "timeouts": Budget(99)})


def gate(
    base: Sequence[kit.Answers | None], run: Sequence[kit.Answers | None], same: bool = False, **rules: Any
) -> GateResult:
    return compare(*pair(base, run, same), RuleSet(base=rules))


def case(result: GateResult, name: str) -> Case:
    (found,) = [one for cell in result.cells for one in cell.cases if one.name == name]
    return found


def failing(result: GateResult) -> set[str]:
    return {one.name for one in result.all_cases if one.state is State.FAIL}


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
    read = baseline_file.read(path)
    assert read.head == run.head
    assert read.history == run.history
    assert compare(read, run, RuleSet()).exit_code == 0
    for one, other in zip(read.cells.values(), run.cells.values(), strict=True):
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
        **{name: st.sampled_from([Limits().verified, -1, 0, Limits().clean * 20]) for name in ANYTHING},
        "verified_min": st.sampled_from([None, Limits().verified * -100]),
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
    assert case(gate([PROVED], [now], **ANYTHING, broken=Budget(1)), "images").state is State.PASS


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
    found = {"cell": kit.NAME, "image": 0, "unsat_by": "ibp", "sat_by": "pgd", "question": "q"}
    result = compare(base, replace(run, contradictions=(found,)), LAX)
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
    result = gate(base, base, verified_min=Limits().clean * -51, attacked_min=Limits().clean * -50)
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
    assert case(result, "verifier bab").state is State.ERROR
    assert case(result, "verifier bab").lines == ["image 1: it crashed"]
    lost = gate([PROVED, SEARCHED], [PROVED, ERROR])
    assert lost.exit_code == 2
    assert [case(lost, name).state for name in ("images", "verified")] == [State.ERROR] * 2
    certain = gate([PROVED, SEARCHED], [BROKEN, ERROR])
    assert certain.exit_code == 1


def test_a_failure_that_the_baseline_has_as_well_is_known() -> None:
    assert gate([ERROR, PROVED], [ERROR, PROVED]).exit_code == 0
    assert gate([PROVED, ERROR], [ERROR, PROVED]).exit_code == 2


def test_losses_are_certain_only_where_no_verifier_failed() -> None:
    result = gate([PROVED] * 4, [ERROR, TIMEOUT, PROVED, PROVED], verified=Limits().clean * 30, undecided=Budget(1))
    assert case(result, "verified").state is State.ERROR
    result = gate([PROVED] * 4, [ERROR, TIMEOUT, PROVED, PROVED], verified=Limits().clean * 20, undecided=Budget(1))
    assert case(result, "verified").state is State.FAIL


def without(run: Snapshot, verifier: str, **head: Any) -> Snapshot:
    """Returns the run as it would be without a verifier."""
    cells = {
        name: replace(
            one,
            stages=tuple(s for s in one.stages if s["verifier"] != verifier),
            images={
                i: replace(image, answers={v: a for v, a in image.answers.items() if v != verifier})
                for i, image in one.images.items()
            },
        )
        for name, one in run.cells.items()
    }
    return replace(run, cells=cells, head={**run.head, **head})


def test_a_verifier_that_is_not_installed_is_refused_or_skipped() -> None:
    base, run = pair([PROVED, SEARCHED, TIMEOUT], [PROVED, SEARCHED, TIMEOUT])
    partial = without(run, "bab", skipped={"bab": "install bab."})
    with pytest.raises(
        UserError, match=r"made without verifiers of the baseline \(bab: install bab\.\).*--skip-unavail"
    ):
        compare(base, partial, RuleSet())
    result = compare(base, partial, RuleSet(), skip_unavailable=True)
    assert result.exit_code == 0
    assert case(result, "verifier bab").state is State.SKIP
    assert result.cells[0].metrics["verified"].base == 1
    assert "bab was left out of the run" in result.notes[0]
    broken = without(pair([], [BROKEN, SEARCHED, TIMEOUT])[1], "bab", skipped={"bab": "install bab."})
    assert compare(base, broken, RuleSet(), skip_unavailable=True).exit_code == 1
    with pytest.raises(UserError, match=r"verifiers: ibp, pgd, bab in the baseline, ibp, pgd in the run"):
        compare(base, without(run, "bab"), RuleSet(), skip_unavailable=True)


def test_a_network_that_a_verifier_no_longer_takes_loses_what_it_proved() -> None:
    base, run = pair([PROVED, SEARCHED], [PROVED, SEARCHED])
    refused = kit.with_info(without(run, "bab"), unsupported={"bab": "no Tanh."})
    result = compare(base, refused, RuleSet())
    assert failing(result) == {"images", "verified"}
    assert case(result, "verifier bab").message == "bab no longer takes the network: no Tanh."


# --- refusals ---


def fewer(run: Snapshot) -> Snapshot:
    cells = {n: replace(c, images={i: image for i, image in c.images.items() if i}) for n, c in run.cells.items()}
    return replace(run, cells=cells)


def renumbered(run: Snapshot) -> Snapshot:
    cells = {n: replace(c, images={i + (i == 2): image for i, image in c.images.items()}) for n, c in run.cells.items()}
    return replace(run, cells=cells)


def relabelled(run: Snapshot) -> Snapshot:
    cells = {
        n: replace(c, images={i: replace(image, label=7) for i, image in c.images.items()})
        for n, c in run.cells.items()
    }
    return replace(run, cells=cells)


def questioned(run: Snapshot) -> Snapshot:
    cells = {
        n: replace(c, images={i: replace(image, question="other") for i, image in c.images.items()})
        for n, c in run.cells.items()
    }
    return replace(run, cells=cells)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda run: kit.with_info(run, eps="8/255"),
            r"radius: 2/255 in the baseline, 8/255 in the run \(every cell\)",
        ),
        (lambda run: kit.with_info(run, split="val"), r"split: test in the baseline, val in the run"),
        (lambda run: kit.with_info(run, data_fingerprint="0" * 64), r"data fingerprint: ffffffffffff… in the baseline"),
        (fewer, r"image set: 3 images in the baseline, 2 in the run"),
        (renumbered, r"image set: number 3 is image 2 in the baseline, 3 in the run"),
        (relabelled, r"label of image 0: 0 in the baseline, 7 in the run"),
        (questioned, r"question about image 0: the boxes or properties have other digests"),
        (lambda run: kit.with_stage(run, "bab", timeout=5.0), r"time limit of bab: 20\.0 in the baseline, 5\.0"),
        (lambda run: kit.with_stage(run, "bab", memory_mb=512), r"memory limit of bab: None in the baseline, 512"),
        (lambda run: kit.with_stage(run, "bab", everyone=True), r"cross-check of bab: False in the baseline, True"),
        (lambda run: kit.with_stage(run, "pgd", version="2.0"), r"version of pgd: 1\.0 .*accepted with --any-version"),
        (lambda run: kit.with_stage(run, "pgd", source="x"), r"source of pgd: tests in the baseline, x in the run"),
        (lambda run: kit.with_stage(run, "pgd", settings={"steps": 9}), r"setting steps of pgd: 3 .*, 9 in the run"),
        (lambda run: kit.with_stage(run, "pgd", settings={}), r"setting steps of pgd: 3 .*, the default in the run"),
        (lambda run: without(run, "pgd"), r"verifiers: ibp, pgd, bab in the baseline, ibp, bab in the run"),
    ],
)
def test_other_questions_are_refused_and_the_difference_is_named(change: Any, words: str) -> None:
    base, run = pair([PROVED, SEARCHED, TIMEOUT], [PROVED, SEARCHED, TIMEOUT], same=True)
    assert compare(base, run, RuleSet()).exit_code == 0
    with pytest.raises(UserError, match=r"can't be compared; they differ in .*" + words):
        compare(base, change(run), RuleSet())


def test_every_difference_is_named_at_once() -> None:
    base, run = pair([PROVED], [PROVED])
    changed = kit.with_stage(kit.with_info(run, eps="8/255"), "bab", timeout=5.0)
    with pytest.raises(UserError, match=r"radius: .*; time limit of bab"):
        compare(base, changed, RuleSet())


def test_other_verifier_versions_are_taken_on_request() -> None:
    base, run = pair([PROVED], [PROVED])
    other = kit.with_stage(run, "pgd", version="2.0", source="x")
    assert compare(base, other, RuleSet(), any_version=True).exit_code == 0


def test_a_run_that_is_not_complete_is_refused() -> None:
    base, run = pair([PROVED], [PROVED])
    with pytest.raises(UserError, match=f"not complete: {kit.NAME} lacks answers"):
        compare(base, replace(run, unfinished=(kit.NAME,)), RuleSet())
    with pytest.raises(UserError, match=rf"lacks 1 of the baseline's 1 cells: {kit.NAME}"):
        compare(base, snapshot(kit.cell(PROVED, name="another")), RuleSet())


def test_cells_can_be_chosen_and_new_ones_are_named() -> None:
    base = snapshot(kit.cell(PROVED), kit.cell(PROVED, name="second"))
    run = snapshot(kit.cell(BROKEN, onnx=kit.OTHER), kit.cell(PROVED, name="second"), kit.cell(PROVED, name="third"))
    assert compare(base, run, RuleSet()).exit_code == 1
    result = compare(base, run, RuleSet(cells=(("fourth*", {}),)), cells=["second"])
    assert result.exit_code == 0
    assert result.notes == [
        "not gated, because the baseline has no such cell: third.",
        "rules that fit no cell compared here: fourth*.",
    ]
    assert compare(base, replace(run, unfinished=(kit.NAME,)), RuleSet(), cells=["second"]).exit_code == 0


# --- time ---


def slowed(factor: float, count: int = 30) -> tuple[Snapshot, Snapshot]:
    base = [{"ibp": ("unsat", 0.01 * (1 + i % 7))} for i in range(count)]
    run = [{"ibp": ("unsat", 0.01 * factor * (1 + i % 7))} for i in range(count)]
    return snapshot(kit.cell(*base)), snapshot(kit.cell(*run, onnx=kit.OTHER))


def test_a_slower_run_warns_and_fails_on_request() -> None:
    base, run = slowed(2.0)
    result = compare(base, run, RuleSet())
    assert result.exit_code == 0
    assert case(result, "time").state is State.WARN
    assert case(result, "time").message.startswith("×2.00 (95 % interval 2.00 to 2.00; median 0.04 → 0.08 s, 30")
    assert compare(base, run, RuleSet(), fail_on_time=True).exit_code == 1
    assert case(compare(base, run, RuleSet(base={"time": 2.5})), "time").state is State.PASS
    assert case(compare(*slowed(0.1), RuleSet(), fail_on_time=True), "time").state is State.PASS


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"machines": [{"cpu": "y", "cores": 2, "architecture": "x86_64"}]}, "another machine (cpu: x in the baseline"),
        ({"machines": [{"cpu": "x"}, {"cpu": "y"}]}, "the run was made on 2 machines"),
        ({"devices": ["cuda:0 (x)"]}, "other devices (cpu in the baseline, cuda:0 (x) in the run)"),
        ({"workers": 1}, "other workers (2 in the baseline, 1 in the run)"),
    ],
)
def test_time_is_compared_on_the_same_device_only(head: dict[str, Any], words: str) -> None:
    base, run = slowed(9.0)
    result = compare(base, replace(run, head={**run.head, **head}), RuleSet(), fail_on_time=True)
    assert result.exit_code == 0
    assert case(result, "time").state is State.SKIP
    assert words in case(result, "time").message


def test_few_images_make_no_ratio_of_times() -> None:
    result = compare(*slowed(9.0, count=4), RuleSet(), fail_on_time=True)
    assert case(result, "time").message == "not compared: only 4 images that both classify correctly"


def test_other_packages_are_noted() -> None:
    base, run = pair([PROVED], [PROVED])
    result = compare(base, replace(run, head={**run.head, "versions": {"torch": "3"}}), RuleSet())
    assert result.notes == [
        "other versions: python 3.11 in the baseline, missing in the run; torch 2 in the baseline, 3 in the run."
    ]
