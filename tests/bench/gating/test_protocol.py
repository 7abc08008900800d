from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.records import Snapshot
from prunecert.bench.gating.result import CaseState
from prunecert.bench.schema.gate import RuleSet
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from tests import house
from tests.bench import gatekit as kit
from tests.bench.gatekit import BROKEN, PROVED, SEARCHED, TIMEOUT, pair, snapshot
from tests.bench.gating.test_compare import case


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
        (lambda run: kit.without(run, "pgd"), r"verifiers: ibp, pgd, bab in the baseline, ibp, bab in the run"),
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
    assert case(result, "time").state is CaseState.WARN
    assert case(result, "time").message.startswith("×2.00 (95 % interval 2.00 to 2.00; median 0.04 → 0.08 s, 30")
    assert compare(base, run, RuleSet(), fail_on_time=True).exit_code == 1
    assert case(compare(base, run, RuleSet(base={"time": 2.5})), "time").state is CaseState.PASS
    assert case(compare(*slowed(0.1), RuleSet(), fail_on_time=True), "time").state is CaseState.PASS


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
    result = compare(base, kit.with_head(run, **head), RuleSet(), fail_on_time=True)
    assert result.exit_code == 0
    assert case(result, "time").state is CaseState.SKIP
    assert words in case(result, "time").message


def test_few_images_make_no_ratio_of_times() -> None:
    result = compare(*slowed(9.0, count=4), RuleSet(), fail_on_time=True)
    assert case(result, "time").message == "not compared: only 4 images that both classify correctly"


def test_other_packages_are_noted() -> None:
    base, run = pair([PROVED], [PROVED])
    result = compare(base, kit.with_head(run, versions={"torch": "3"}), RuleSet())
    assert result.notes == [
        "other versions: python 3.11 in the baseline, missing in the run; torch 2 in the baseline, 3 in the run."
    ]


def test_what_is_installed_here_can_be_compared_with_the_shipped_baseline() -> None:
    """A verifier's source is a text by which runs are compared: but for versions, it stays what recorded runs have."""
    shipped = json.loads((house.ROOT / "results" / "baselines" / "cifar10-4nets.json").read_text())
    recorded = {(one["verifier"], one["source"]) for cell in shipped["cells"] for one in cell["stages"]}
    assert {name for name, _ in recorded} >= {"pgd", "neuralsat", "sparse-bab", "crown"}
    for name, source in recorded:
        here = VERIFIERS.get(name).availability()
        if here.installed:
            assert re.sub(r"[0-9.]+", "N", here.source) == re.sub(r"[0-9.]+", "N", source), name
