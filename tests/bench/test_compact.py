"""Compact networks in the harness: suites, runs, exports, property files, entries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.gating.compare import compare
from prunecert.bench.leaderboard.entry import make_entry, read_answers
from prunecert.bench.planning import select
from prunecert.bench.planning.exports import Export, compact_export, export_cell
from prunecert.bench.planning.plan import box
from prunecert.bench.report import shapes
from prunecert.bench.schema.gate import Budget, RuleSet
from prunecert.bench.schema.protocol import parse_compact
from prunecert.bench.schema.suite import load_suite
from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec
from prunecert.verifiers.formats.counterexample import replay
from prunecert.verifiers.formats.support import check_instance, network_info
from tests.bench import gatekit as kit
from tests.bench.conftest import CELLS, SUITE
from tests.bench.gatekit import pair, with_info
from tests.bench.propertykit import BOX, HOLDS, half, log, spec
from tests.bench.rowkit import documents
from tests.bench.verify_fakes import register

Run = Callable[..., int]
BLOCK = "verify:\n"


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register()


@pytest.mark.parametrize(
    ("line", "mode"),
    [("", Mode.PIXELS), ("true", Mode.PIXELS), ("false", Mode.OFF), ("off", Mode.OFF), ("all-inputs", Mode.ALL_INPUTS)],
)
def test_suites_say_what_is_removed(tmp_path: Path, line: str, mode: Mode) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE.replace(BLOCK, f"{BLOCK}  compact: {line}\n") if line else SUITE)
    suite = load_suite(str(path))
    assert {protocol.compact for _, protocol in suite.cells} == {mode}
    assert suite.cells[0][1].to_json()["compact"] == str(mode)
    assert {select.compact_mode(protocol) for _, protocol in suite.cells} == {mode}


@pytest.mark.parametrize("value", ["maybe", "3", "[pixels]"])
def test_suites_with_another_word_are_refused_by_line(tmp_path: Path, value: str) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE.replace(BLOCK, f"{BLOCK}  compact: {value}\n"))
    with pytest.raises(
        UserError, match=r"line \d+, verify\.compact: .* is refused; allowed are true, false, off, pixels"
    ):
        load_suite(str(path))
    with pytest.raises(UserError, match="allowed are true, false"):
        parse_compact(None)


def test_a_question_beyond_the_domain_is_not_answered(masked: Export, tmp_path: Path) -> None:
    small = compact_export(masked, tmp_path)
    assert network_info(small.path).domain == (0.0, 1.0)
    assert network_info(masked.path).domain is None

    def refusal_of(export_: Export, low: float, high: float) -> str | None:
        lower, upper = (np.full((3, 32, 32), value, dtype=np.float32) for value in (low, high))
        instance = Instance(export_.path, export_.sha256, lower, upper, OutputSpec.robustness(0, 10), 1.0)
        return check_instance(VERIFIERS.get("ibp"), instance)

    assert refusal_of(small, 0, 1) is None
    assert refusal_of(masked, -1, 2) is None
    assert refusal_of(compact_export(masked, tmp_path, Mode.ALL_INPUTS), -1, 2) is None
    for low, high in ((-0.001, 1), (0, 1.001), (-np.inf, np.inf)):
        reason = refusal_of(small, low, high)
        assert reason is not None
        assert "compacted for inputs from 0 to 1" in reason


@pytest.mark.slow
def test_a_run_verifies_compact_networks_and_says_so(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert run(out, "--images", "6") == 0
    capsys.readouterr()
    cells = {cell["name"]: cell for cell in documents(out, "session")[0]["cells"]}
    pruned = cells[CELLS[1]]
    assert pruned["compaction"]["masked_sha256"] == pruned["masked_sha256"]
    assert pruned["compaction"]["domain"] == [0.0, 1.0]
    assert len(pruned["compaction"]["layers"]) == 4
    assert "kept" not in pruned["compaction"]
    # Sparsity and compression are the masked network's, whatever was removed.
    assert pruned["measured_compression"] == pytest.approx(10, rel=1e-3)
    table = shapes.of_summary(json.loads((out / "summary.json").read_text()))
    shrunk = [name for name, cell in cells.items() if cell["onnx_sha256"] != cell["masked_sha256"]]
    assert [row[0] for row in table] == shrunk == [CELLS[1]]
    assert f"| {CELLS[1]} | 10 |" in (out / "table.md").read_text()
    page = (out / "report.html").read_text()
    assert "What compaction removed" in page
    # The masked networks, on request: another network, so nothing is taken over.
    before = len(documents(out, "verdict"))
    entries: list[Any] = []

    def spying(*arguments: Any, **more: Any) -> list[Path]:
        out, plans, protocols, session = arguments
        answers = read_answers(out, plans)
        entries.extend(make_entry(plan, protocols[plan.cell.name], session, answers, "") for plan in plans)
        return []

    monkeypatch.setattr("prunecert.bench.run.submit", spying)
    assert run(out, "--images", "6", "--no-compact", "--cells", CELLS[1], "--submit") == 0
    rows = documents(out, "verdict")
    assert len(rows) > before
    assert {row["cell"] for row in rows[before:]} == {CELLS[1]}
    # Back to the compact ones, which are all answered.
    assert run(out, "--images", "6", "--cells", CELLS[1], "--submit") == 0
    assert documents(out, "verdict") == rows
    old, new = entries
    assert [layer["shape"][0] for layer in new["weights"]["layers"]] == [16, 32, 100, 10]
    assert new["weights"] == old["weights"]
    assert new["files"]["masked_sha256"] == old["files"]["masked_sha256"] == old["files"]["onnx_sha256"]
    assert new["files"]["onnx_sha256"] == pruned["onnx_sha256"]
    assert new["compaction"] == pruned["compaction"]
    assert old["compaction"] is None


@pytest.mark.slow
def test_a_witness_is_one_for_the_masked_network_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from prunecert.models.data import load
    from prunecert.verifiers.formats.onnx_torch import read_onnx

    checkpoint = select.CHECKPOINTS / "cnn-small_ibp_eps2_lwm_x100_s0.safetensors"
    whole = export_cell(checkpoint, tmp_path)
    small = compact_export(whole, tmp_path)
    assert small.path != whole.path
    broken = 0
    # Where there is no data at all, foolbox's images stand in, and those are wanted here.
    monkeypatch.setattr("prunecert.models.data._find", lambda root: None)
    data = load("test", download=False)
    network = read_onnx(small.path)
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        lower, upper = box(image, Fraction(16, 255))
        x = torch.from_numpy(image[None]).requires_grad_()
        torch.nn.functional.cross_entropy(network(x), torch.tensor([label])).backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        point = np.where(x.grad[0].numpy() > 0, upper, lower)
        instance = Instance(small.path, small.sha256, lower, upper, OutputSpec.robustness(label, 10), 1.0)
        check = replay(instance, point)[0]
        there = replace(instance, onnx=whole.path, onnx_sha256=whole.sha256)
        assert replay(there, point)[0].ok == check.ok
        broken += check.ok
    assert broken >= 5


def test_the_gate_knows_a_network_in_its_compact_form() -> None:
    base, run = pair([kit.PROVED], [kit.BROKEN])
    # Baselines of old have no such field: they are about masked networks.
    run_of_both = with_info(run, masked_sha256=base.cells[kit.NAME].info.onnx_sha256)
    lax = RuleSet(base={"verified": -1, "attacked": -1, "clean": -1, "broken": Budget(9)})
    result = compare(base, run_of_both, lax)
    assert result.cells[0].same_network
    assert result.exit_code == 1
    assert "image 0: unsat by ibp in the baseline, sat by pgd in the run" in str(result.all_cases)
    other = compare(base, run, lax)
    assert not other.cells[0].same_network
    assert other.exit_code == 0


def test_compaction_with_a_card_is_refused(run: Run, tmp_path: Path) -> None:
    for option in ("--compact", "--no-compact"):
        with pytest.raises(UserError, match="--compact goes without --card"):
            run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"), option)


def verified(tmp_path: Path, text: str, *more: str, verifier: str = "fake-breaker") -> tuple[int, Path]:
    from prunecert.bench.verify import main

    half().save(tmp_path / "net.onnx")
    (tmp_path / "prop.vnnlib").write_text(text)
    files = ["--onnx", str(tmp_path / "net.onnx"), "--vnnlib", str(tmp_path / "prop.vnnlib")]
    return main([*files, "--verifier", verifier, "--out", str(tmp_path / "out"), *more]), tmp_path / "out"


@pytest.mark.slow
def test_anybodys_network_is_compacted_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = verified(tmp_path, spec(*BOX, "(>= Y_0 0.4)"), "--compact")
    assert code == 0
    assert "net.onnx: 20 to 12 weights, 5 to 3 ReLUs" in capsys.readouterr().out
    row: dict[str, Any] = log(out)[-1]
    assert row["status"] == "sat"
    # The answer is about the file that was given, and so is the record of the counterexample.
    assert row["onnx_sha256"] == sha256_file(tmp_path / "net.onnx") == row["witness_check"]["onnx_sha256"]
    assert row["compaction"]["domain"] is None
    _, out = verified(tmp_path, HOLDS, "--compact", "pixels")
    assert log(out)[-1]["status"] == "unsat"
    assert "20 to 8 weights, 5 to 2 ReLUs" in capsys.readouterr().out
    # Without the option, it is asked anew.
    verified(tmp_path, HOLDS)
    assert "(kept)" not in capsys.readouterr().out
    assert "compaction" not in log(out)[-1]


def test_a_box_beyond_pixels_is_not_answered_on_a_network_compacted_for_pixels(tmp_path: Path) -> None:
    wide = spec("(>= X_0 -2)", "(<= X_0 0.5)", *BOX[2:], "(>= Y_0 0.75)")
    _, out = verified(tmp_path, wide, "--compact", "pixels")
    assert log(out)[-1]["status"] == "unsupported"
    assert "compacted for inputs from 0 to 1" in str(log(out)[-1]["detail"])
    # The unit that no pixel can switch on makes it unsafe there.
    _, out = verified(tmp_path, wide, "--compact")
    assert log(out)[-1]["status"] == "sat"
