"""Compact networks in the harness: suites, runs, exports, property files, entries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunecert.bench import export
from prunecert.bench.gating.compare import compare
from prunecert.bench.leaderboard.entry import make_entry, read_answers
from prunecert.bench.planning import select
from prunecert.bench.planning.exports import Export, compact_export, export_cell
from prunecert.bench.planning.plan import box
from prunecert.bench.report import shapes
from prunecert.bench.running.properties import on_original
from prunecert.bench.schema.gate import Budget, RuleSet
from prunecert.bench.schema.suite import load_suite, parse_compact
from prunecert.bench.schema.timing import Timing
from prunecert.compaction import Compaction, Mode
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models.data import Dataset
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verdict
from prunecert.verifiers.formats.counterexample import outputs, replay
from prunecert.verifiers.formats.support import check_instance, network_info
from tests.bench import gatekit as kit
from tests.bench.conftest import CELLS, SUITE, Zoo
from tests.bench.gatekit import pair, with_info
from tests.bench.rowkit import documents
from tests.bench.test_verify import BOX, HOLDS, log, spec
from tests.bench.verify_fakes import register
from tests.soundness.networks import Network

Run = Callable[..., int]
BLOCK = "verify:\n"


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register()


@pytest.fixture(scope="module")
def masked(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The tenfold pruned network of the zoo, some of whose units are made dead."""
    folder = tmp_path_factory.mktemp("masked")
    made = export_cell(zoo.checkpoints / f"{CELLS[1]}.safetensors", folder)
    model = onnx.load(made.path)
    for item in model.graph.initializer:
        if item.name in ("0_weight", "0_bias", "5_weight"):
            values = numpy_helper.to_array(item).copy()
            values[:3] = -1 if item.name == "0_bias" else 0
            item.CopyFrom(numpy_helper.from_array(values, item.name))
    onnx.save(model, made.path)
    return replace(made, sha256=sha256_file(made.path))


@pytest.mark.parametrize("mode", [Mode.PIXELS, Mode.ALL_INPUTS, Mode.EXACT])
def test_compact_exports_are_made_once_and_again_when_something_changed(
    masked: Export, tmp_path: Path, mode: Mode
) -> None:
    first = compact_export(masked, tmp_path, mode)
    assert first.path.parent == tmp_path
    assert first.sha256 == sha256_file(first.path) != masked.sha256
    assert (first.masked_path, first.masked_sha256) == (masked.path, masked.sha256)
    assert (first.sparsity, first.compression) == (masked.sparsity, masked.compression)
    stamp = first.path.stat().st_mtime_ns
    again = compact_export(masked, tmp_path, mode)
    assert first.path.stat().st_mtime_ns == stamp
    assert again.record == first.record
    assert first.compaction is not None
    assert first.compaction.layers[0].after == (13, 3, 4, 4)
    first.path.write_bytes(b"cut")
    assert compact_export(masked, tmp_path, mode).sha256 == first.sha256 == sha256_file(first.path)
    record = next(tmp_path.glob("*.json"))
    record.write_text(record.read_text()[:100])
    assert compact_export(masked, tmp_path, mode).sha256 == first.sha256
    points = np.random.default_rng(1).random((8, 3, 32, 32), dtype=np.float32)
    np.testing.assert_allclose(outputs(masked.path, points), outputs(first.path, points), atol=1e-5)


def test_a_network_that_loses_nothing_stays_the_masked_file(zoo: Zoo, tmp_path: Path) -> None:
    dense = export_cell(zoo.checkpoints / f"{CELLS[0]}.safetensors", tmp_path)
    found = compact_export(dense, tmp_path, Mode.ALL_INPUTS)
    assert (found.path, found.sha256) == (dense.path, dense.sha256)
    assert compact_export(dense, tmp_path, Mode.ALL_INPUTS).sha256 == dense.sha256
    assert compact_export(dense, tmp_path, Mode.OFF) is dense
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".onnx"]


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


def test_what_leaves_the_pixels_range_gets_networks_for_all_inputs(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    protocol = load_suite(str(path)).cells[0][1]
    assert select.compact_mode(replace(protocol, timing=Timing())) is Mode.OFF
    noisy = replace(protocol, certify=object())  # type: ignore[arg-type]
    assert select.compact_mode(noisy) is Mode.ALL_INPUTS
    assert select.compact_mode(replace(noisy, compact=Mode.OFF)) is Mode.OFF


def test_a_question_beyond_the_domain_is_not_answered(masked: Export, tmp_path: Path) -> None:
    small = compact_export(masked, tmp_path)
    assert network_info(small.path).domain == (0.0, 1.0)
    assert network_info(masked.path).domain is None

    def asked(found: Export, low: float, high: float) -> str | None:
        lower, upper = (np.full((3, 32, 32), value, dtype=np.float32) for value in (low, high))
        instance = Instance(found.path, found.sha256, lower, upper, OutputSpec.robustness(0, 10), 1.0)
        return check_instance(VERIFIERS.get("ibp"), instance)

    assert asked(small, 0, 1) is None
    assert asked(masked, -1, 2) is None
    assert asked(compact_export(masked, tmp_path, Mode.ALL_INPUTS), -1, 2) is None
    for low, high in ((-0.001, 1), (0, 1.001), (-np.inf, np.inf)):
        reason = asked(small, low, high)
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
        out, plans, asked, session = arguments
        answers = read_answers(out, plans)
        entries.extend(make_entry(plan, asked[plan.cell.name], session, answers, "") for plan in plans)
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
        found = replay(instance, point)[0]
        there = replace(instance, onnx=whole.path, onnx_sha256=whole.sha256)
        assert replay(there, point)[0].ok == found.ok
        broken += found.ok
    assert broken >= 5


def exported(zoo: Zoo, out: Path, *more: str) -> int:
    return export.main(
        [
            *("--suite", str(zoo.suite), "--checkpoints", str(zoo.checkpoints), "--data-root", str(zoo.data)),
            *("--out", str(out), "--images", "8", *more),
        ]
    )


@pytest.mark.slow
def test_export_names_compact_networks_and_keeps_the_masked_ones(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(zoo, tmp_path / "a") == 0
    printed = capsys.readouterr().out
    assert "removed before verification" in printed
    text = (tmp_path / "a" / "instances.csv").read_text()
    # The dense network loses nothing and stays what it was.
    assert {line.split(",")[0] for line in text.splitlines()} == {
        f"onnx/{CELLS[0]}.onnx",
        f"onnx/{CELLS[1]}.compact.onnx",
    }
    assert (tmp_path / "a" / "onnx" / f"{CELLS[1]}.onnx").is_file()
    assert Compaction.of(onnx.load(tmp_path / "a" / "onnx" / f"{CELLS[1]}.compact.onnx").metadata_props) is not None
    assert exported(zoo, tmp_path / "b", "--no-compact") == 0
    assert "compact" not in (tmp_path / "b" / "instances.csv").read_text()
    assert "removed before" not in capsys.readouterr().out


def test_export_shows_shapes_layer_by_layer(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(zoo, tmp_path, "--shapes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{CELLS[0]}: nothing to remove") for line in lines)
    assert any(line.startswith(f"{CELLS[1]}: 214,760 to") for line in lines)
    rows = [line.split("\t") for line in lines if "\t" in line]
    assert rows[0] == ["layer", "operator", "masked", "compact", "kept %"]
    assert [row[2] for row in rows[1:]] == ["16×3×4×4", "32×16×4×4", "100×2048", "10×100"]
    assert not (tmp_path / "instances.csv").exists()
    assert exported(zoo, tmp_path, "--shapes", "--no-compact") == 0
    assert f"{CELLS[1]}: not compacted" in capsys.readouterr().out


def test_export_compares_outputs(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The data set has 10,000 images.
    monkeypatch.setattr(select, "load_data", lambda *_: {"test": cut(load_some(zoo), 5)})
    assert exported(zoo, tmp_path, "--check", "9") == 0
    printed = capsys.readouterr().out
    assert f"{CELLS[0]}: nothing was removed" in printed
    assert f"{CELLS[1]}: 5 images and 4 random inputs: outputs of up to" in printed
    assert "0 predictions differ" in printed


def load_some(zoo: Zoo) -> Dataset:
    from prunecert.models.data import load

    return load("test", zoo.data)


def cut(data: Dataset, count: int) -> Dataset:
    return replace(data, images=data.images[:count], labels=data.labels[:count], indices=data.indices[:count])


def test_the_gate_knows_a_network_in_its_compact_form() -> None:
    base, run = pair([kit.PROVED], [kit.BROKEN])
    # Baselines of old have no such field: they are about masked networks.
    known = with_info(run, masked_sha256=base.cells[kit.NAME].info.onnx_sha256)
    lax = RuleSet(base={"verified": -1, "attacked": -1, "clean": -1, "broken": Budget(9)})
    result = compare(base, known, lax)
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


def half(name: str = "net") -> Network:
    """y = relu(x) + relu(x), by four hidden units of which two are dead, and a fifth that is constant."""
    net = Network(name, (2,))
    first = np.array([[1, 0], [0, 1], [-1, 0], [0, 0], [0, 0]])
    hidden = net.relu(net.gemm(0, first, np.array([0.0, 0.0, -1.0, -1.0, 0.1])))
    net.gemm(hidden, np.array([[1.0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]), np.full(2, -0.1))
    return net


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


def test_a_counterexample_of_the_compact_network_alone_settles_nothing(tmp_path: Path) -> None:
    path = half().save(tmp_path / "net.onnx")
    corner = np.array([0.5, 0.5], dtype=np.float32)
    instance = Instance(path, sha256_file(path), corner - 0.25, corner, OutputSpec.robustness(0, 2), 1.0, classes=2)
    equal = Verdict(Status.SAT, witness=corner, stage="attack")
    assert on_original(equal, instance).status is Status.SAT
    shifted = Verdict(Status.SAT, witness=np.array([0.5, 0.4], dtype=np.float32), stage="attack")
    found = on_original(shifted, instance)
    assert found.status is Status.UNKNOWN
    assert "none for the original" in found.detail
    assert found.witness is None
    proved = Verdict(Status.UNSAT)
    assert on_original(proved, instance) is proved
