from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench import baseline, gate
from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.report import WRITTEN
from prunecert.bench.running.request import RunRequest, RunResult
from prunecert.bench.schema.gate import RuleSet
from prunecert.errors import UserError
from tests.bench import gatekit as kit
from tests.bench.conftest import CELLS, Zoo
from tests.bench.gating.test_junit import check_junit, outcome
from tests.bench.rowkit import documents

Run = Callable[..., int]
FILES = {"junit.xml", *WRITTEN}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """Returns a folder with a finished run of two cells on twelve images, and its baseline."""
    folder = tmp_path_factory.mktemp("gate")
    shutil.copytree(finished_run, folder / "run")
    options = ["--run", str(folder / "run"), "--out", str(folder / "b.json"), "--reason", "first"]
    assert baseline.main(options) == 0
    return folder


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    """Returns a copy of the run that a test may damage."""
    return Path(shutil.copytree(run_folder / "run", tmp_path / "run"))


def check(run_folder: Path, run: Path, *more: str, **environment: str) -> int:
    return gate.main(["--baseline", str(run_folder / "b.json"), "--run", str(run), *more], environment)


def edit(run: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Rewrites a run's rows; those for which `change` returns None are left out."""
    log = run / "instances.main.jsonl"
    rows = [change(json.loads(line)) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))


def first_proved(run: Path, verifier: str) -> dict[str, Any]:
    return next(r for r in documents(run, "verdict") if (r["status"], r["verifier"]) == ("unsat", verifier))


@pytest.mark.slow
def test_a_run_passes_against_its_own_baseline(
    run_folder: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(run_folder, copy) == 0
    printed = capsys.readouterr().out
    assert "PASSED: 2 cells, no regression; 0 proved images lost, 0 gained" in printed
    assert "::error" not in printed
    assert {path.name for path in (copy / "gate").iterdir()} == FILES
    root = check_junit((copy / "gate" / "junit.xml").read_text())
    assert [suite.attrib["name"] for suite in root] == ["run", *CELLS]
    data = json.loads((copy / "gate" / "gate.json").read_text())
    assert (data["outcome"], data["exit_code"], data["rules"]) == ("passed", 0, "the gate's defaults")
    assert all(cell["same_network"] for cell in data["cells"])


@pytest.mark.slow
def test_worse_weights_fail_and_the_images_are_named(
    run_folder: Path, zoo: Zoo, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from prunecert.models.checkpoint import load_model, save

    shutil.copytree(zoo.checkpoints, tmp_path / "zoo")
    model, masks, card = load_model(tmp_path / "zoo" / f"{CELLS[0]}.safetensors")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter))
    counted = ("sparsity", "weights", "kept", "sparsity_by_layer", "mask_sha256", "sha256", "schema_version")
    kept = {key: value for key, value in card.to_json().items() if key not in counted}
    save(tmp_path / "zoo", model, masks, **kept)
    run(tmp_path / "run", "--images", "12", "--checkpoints", str(tmp_path / "zoo"), "--exports", str(tmp_path / "onnx"))
    capsys.readouterr()
    summary = tmp_path / "summary.md"
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    assert check(run_folder, tmp_path / "run", "--report", str(tmp_path / "report"), **environment) == 1
    printed = capsys.readouterr().out
    before = baseline_file.read(run_folder / "b.json").cells[CELLS[0]].outcomes()
    wrong = {row["image"] for row in documents(tmp_path / "run", "image") if not row["correct"]}
    lost = [image for image in sorted(wrong) if before[image].status == "unsat"]
    assert lost
    for image in lost:
        assert f"  image {image}: was unsat by {before[image].by}, now misclassified" in printed
    assert f"::error title=bench.gate%3A {CELLS[0]}%2C images::{len(lost)} proved images lost" in printed
    assert "FAILED: a regression or a contradiction in 1 of 2 cells" in summary.read_text()
    assert {path.name for path in (tmp_path / "report").iterdir()} == FILES
    root = check_junit((tmp_path / "report" / "junit.xml").read_text())
    assert outcome(root, CELLS[0], "images") == "failure"
    assert outcome(root, CELLS[1], "images") == "system-out"
    assert check(run_folder, tmp_path / "run", "--cells", CELLS[1]) == 0


def test_a_killed_run_is_refused_and_no_old_report_is_left(
    run_folder: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(run_folder, copy)
    log = copy / "instances.main.jsonl"
    lines = [line for line in log.read_text().splitlines(keepends=True) if '"type":"end"' not in line]
    log.write_text("".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    summary = tmp_path / "summary.md"
    with pytest.raises(UserError, match=r"The run is not complete: cnn-small_\S+ lacks answers"):
        check(run_folder, copy, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert {path.name for path in (copy / "gate").iterdir()} == {"junit.xml"}
    assert outcome(check_junit((copy / "gate" / "junit.xml").read_text()), "run", "comparison") == "error"
    assert "BROKEN: nothing was compared" in summary.read_text()
    assert "::error title=bench.gate::The run is not complete" in capsys.readouterr().out


def test_a_crashed_verifier_is_an_error(run_folder: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proved = first_proved(copy, "fake-complete")
    edit(copy, lambda row: {**row, "status": "error", "detail": "segfault"} if row.get("id") == proved["id"] else row)
    assert check(run_folder, copy) == 2
    printed = capsys.readouterr().out
    assert f"ERROR: {proved['cell']}, verifier {proved['verifier']}: " in printed
    assert f"  image {proved['image']}: segfault" in printed
    assert "BROKEN: errors in 1 of 2 cells" in printed


def test_opposite_answers_to_one_question_fail(
    run_folder: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proved = first_proved(copy, "fake-bound")
    edit(copy, lambda row: {**row, "status": "sat"} if row.get("id") == proved["id"] else row)
    assert check(run_folder, copy) == 1
    words = f"  image {proved['image']}: unsat by {proved['verifier']} in the baseline, sat by {proved['verifier']} in"
    assert words in capsys.readouterr().out


@pytest.mark.slow
def test_other_images_and_limits_are_refused(run_folder: Path, run: Run, zoo: Zoo, tmp_path: Path) -> None:
    run(tmp_path / "run", "--images", "5")
    with pytest.raises(UserError, match=r"image set: 12 images in the baseline, 5 in the run \(every cell\)"):
        check(run_folder, tmp_path / "run")
    other = tmp_path / "other.yaml"
    other.write_text(zoo.suite.read_text().replace("fake-complete: 5", "fake-complete: 6").replace("2/255", "3/255"))
    with pytest.raises(UserError, match=r"The run lacks 2 of the baseline's 2 cells: cnn-small_ibp_eps2_dense"):
        check(run_folder, other_run(run, zoo, tmp_path, other))


def other_run(run: Run, zoo: Zoo, tmp_path: Path, suite: Path) -> Path:
    """Runs a suite of another radius, for which checkpoints of that name are needed."""
    shutil.copytree(zoo.checkpoints, tmp_path / "zoo", dirs_exist_ok=True)
    for name in CELLS:
        for path in (tmp_path / "zoo").glob(f"{name}.*"):
            path = path.rename(path.with_name(path.name.replace("eps2", "eps3")))
            if path.suffix == ".json":
                # Its card must be that of the cell whose name it has.
                path.write_text(path.read_text().replace('"2/255"', '"3/255"'))
    run(tmp_path / "other", "--images", "12", "--suite", str(suite), "--checkpoints", str(tmp_path / "zoo"))
    return tmp_path / "other"


@pytest.mark.slow
def test_the_one_line_form_runs_and_gates(
    run_folder: Path, zoo: Zoo, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("gate: {verified_min: 1%, cells: {'nothing*': {clean: 0pp}}}\n")
    arguments = zoo.arguments(tmp_path / "run", "--images", "12", "--rules", str(rules), "--skip-unavailable")
    assert gate.main(["--baseline", str(run_folder / "b.json"), *arguments, "--cells", CELLS[0]], {}) == 0
    printed = capsys.readouterr().out
    assert "PASSED: 1 cell, no regression" in printed
    assert "note: rules that fit no cell compared here: nothing*." in printed
    assert json.loads((tmp_path / "run" / "gate" / "gate.json").read_text())["rules"] == "rules.yaml"
    rules.write_text("gate: {verified_min: 100%}\n")
    assert gate.main(["--baseline", str(run_folder / "b.json"), *arguments, "--cells", CELLS[0]], {}) == 1


@pytest.mark.slow
def test_a_suites_own_rules_hold(run_folder: Path, zoo: Zoo, run: Run, tmp_path: Path) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(zoo.suite.read_text() + "gate: {verified_min: 100%}\n")
    arguments = zoo.arguments(tmp_path / "run", "--images", "12", "--suite", str(suite))
    assert gate.main(["--baseline", str(run_folder / "b.json"), *arguments], {}) == 1
    assert json.loads((tmp_path / "run" / "gate" / "gate.json").read_text())["rules"] == "tiny.yaml"


def test_the_run_directory_has_a_name_of_its_own(
    run_folder: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requests: list[RunRequest] = []

    def stop(request: RunRequest, **_: object) -> RunResult:
        requests.append(request)
        raise UserError("stopped")

    monkeypatch.setattr("prunecert.bench.running.run.run_suite", stop)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="stopped"):
        gate.main(["--baseline", str(run_folder / "b.json"), "--suite", str(zoo.suite), "--profile", "half"], {})
    (request,) = requests
    assert request.argv == ("--suite", str(zoo.suite), "--profile", "half", "--out", "results/runs/gate-tiny-half")
    assert (request.suite.profile, request.out) == ("half", Path("results/runs/gate-tiny-half"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--images", "11"), "image set: 12 images in the baseline, 11 in the run"),
        (("--image-seed", "3", "--images", "12"), "image set: number 1 is image"),
        (("--verifiers", "fake-bound", "--images", "12"), "verifiers: fake-bound, fake-complete in the baseline"),
        (("--profile", "other", "--images", "12"), "time limit of fake-complete: 5.0 in the baseline, 6.0 in the run"),
        (("--cells", "*_dense_*", "--images", "12", "--checkpoints", "{0}/none"), "No cell of suite 'tiny'"),
        (("--images", "12", "--data-root", "{0}/none"), "which holds no CIFAR-10"),
    ],
)
def test_what_forbids_a_comparison_is_found_before_the_first_image(
    run_folder: Path, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("an image was looked at")

    monkeypatch.setattr("prunecert.bench.running.modes.Plain.work", work)
    (tmp_path / "none").mkdir()
    suite = tmp_path / "tiny.yaml"
    profile = "  other: {timeouts: {fake-complete: 6}}\n"
    suite.write_text(zoo.suite.read_text() + profile)
    own = zoo.arguments(tmp_path / "run", "--workers", "1", *(word.format(tmp_path) for word in more))
    own[own.index("--suite") + 1] = str(suite)
    report = tmp_path / "report"
    with pytest.raises(UserError, match=re.escape(message)):
        gate.main(["--baseline", str(run_folder / "b.json"), "--report", str(report), *own], {})
    assert not (tmp_path / "run").exists()
    assert outcome(check_junit((report / "junit.xml").read_text()), "run", "comparison") == "error"


def test_a_sample_never_stands_in_for_the_data_of_the_baseline(
    run_folder: Path, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    monkeypatch.setattr("prunecert.models.data._download", lambda _: (None, "no network"))
    own = zoo.arguments(tmp_path / "run", "--images", "12")
    del own[own.index("--data-root") : own.index("--data-root") + 2]
    with pytest.raises(UserError, match=r"CIFAR-10 \(test split\) is needed and no copy was found"):
        gate.main(["--baseline", str(run_folder / "b.json"), *own], {})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ones_own_network_from_its_file_to_a_badge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a release engineer does it: in a folder of his own, with an ONNX file and arrays of images."""
    import numpy as np

    from prunecert.bench import add
    from prunecert.verifiers.formats.counterexample import outputs
    from tests.verifiers import onnxnets

    monkeypatch.chdir(tmp_path)
    onnxnets.linear(tmp_path / "net.onnx", (1, 4, 4))
    images = np.random.default_rng(0).random((12, 1, 4, 4), dtype=np.float32)
    labels = outputs(tmp_path / "net.onnx", images).argmax(1)
    np.savez(tmp_path / "images.npz", x_test=images, y_test=labels)
    words = ["net.onnx", "--name", "mine", "--data", "images.npz", "--eps", "1/255", "--images", "12", "--out", "first"]
    assert add.main([*words, "--verifiers", "fake-bound,fake-complete"]) == 0
    assert baseline.main(["--run", "first", "--out", "b.json", "--reason", "first release"]) == 0
    check = ["--baseline", "b.json", "--suite", "first/suite.yaml", "--report", "gate", "--workers", "1"]
    assert gate.main(check, {}) == 0
    assert json.loads(Path("gate/badge.json").read_text())["color"] == "brightgreen"
    # A worse one, by the same name; all its answers are others.
    onnxnets.linear(tmp_path / "net.onnx", (1, 4, 4), seed=9)
    capsys.readouterr()
    assert gate.main(check, {}) == 1
    shown = capsys.readouterr().out
    assert "FAIL: mine_own_eps1_own, images: " in shown
    assert "now misclassified" in shown
    assert json.loads(Path("gate/badge.json").read_text())["color"] == "red"
    assert "verified accuracy: " in Path("gate/badge.svg").read_text()
    # Another shape is no comparison, and no badge of an earlier one is left.
    onnxnets.linear(tmp_path / "net.onnx", (1, 4, 5))
    with pytest.raises(UserError, match=r"net\.onnx takes inputs of shape \[1, 4, 5\], and the data set 'images'"):
        gate.main(check, {})
    assert {path.name for path in Path("gate").iterdir()} == {"junit.xml"}
    Path("images.npz").unlink()
    with pytest.raises(UserError, match=r"There is no file 'images\.npz'"):
        gate.main(check, {})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--cells", "cnn-tiny*"), r"--cells: Unknown cell 'cnn-tiny\*' of the baseline\. Available: cnn-small"),
        (("--cells", ","), "--cells is empty"),
        (("--rules", "/nowhere.yaml"), r"/nowhere\.yaml cannot be read"),
        (("--report", "/dev/null"), r"--report /dev/null is refused: it is a file"),
    ],
)
def test_bad_options_are_refused(run_folder: Path, copy: Path, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(run_folder, copy, *more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "x", "--images", "3"], "unrecognized arguments: --images 3"),
        (["--run", "x", "--suite", "y"], "not allowed with argument"),
        ([], "one of the arguments --run --suite is required"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        gate.main(["--baseline", "b.json", *arguments], {})
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_run_leaves_nothing_behind(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        check(run_folder, tmp_path / "no" / "such" / "run")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="is no run"):
        check(run_folder, tmp_path / "none", "--report", str(tmp_path / "a" / "report"))
    assert outcome(check_junit((tmp_path / "a" / "report" / "junit.xml").read_text()), "run", "comparison") == "error"


def test_the_command_ends_as_the_contract_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gate", "--baseline", str(tmp_path / "b.json"), "--run", str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("error: Baseline ")
    assert "Traceback" not in process.stderr


def test_help_is_quick() -> None:
    for name in ("gate", "baseline"):
        code = (
            f"import sys, bench.{name} as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
            "sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_thirty_cells_of_a_thousand_images_take_seconds(tmp_path: Path) -> None:
    images = [kit.SEARCHED, kit.PROVED] * 500
    path = tmp_path / "b.json"
    baseline_file.write(path, kit.snapshot(*(kit.cell(*images, name=f"c{i}") for i in range(30))))
    assert path.stat().st_size < 4_000_000
    run = kit.snapshot(*(kit.cell(*images, name=f"c{i}", onnx=kit.OTHER) for i in range(30)))
    began = time.process_time()
    assert compare(baseline_file.read(path), run, RuleSet()).exit_code == 0
    assert time.process_time() - began < 20


def test_the_example_workflow_calls_what_there_is() -> None:
    import yaml

    from prunecert.bench.run import parser as run_parser
    from prunecert.bench.schema.suite import load_suite

    path = Path(__file__).parents[2] / ".github" / "workflows" / "prunecert.yml"
    steps = yaml.safe_load(path.read_text())["jobs"]["gate"]["steps"]
    (command,) = [step["run"] for step in steps if "bench.gate" in step.get("run", "")]
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "bench.gate"]
    options, rest = gate.parser().parse_known_args(words[3:])
    assert run_parser().parse_args(["--suite", options.suite, *rest]).out == Path("$OUT")
    # The baseline that it names is there, and every cell of it is one of the suite's.
    baseline = json.loads((path.parents[2] / options.baseline).read_text())
    names = {cell.name for cell, _ in load_suite(options.suite).cells}
    assert {cell["name"] for cell in baseline["cells"]} <= names
