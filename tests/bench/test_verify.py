from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunecert.bench.verify import main
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE, UserError
from prunecert.verifiers.checker import check
from prunecert.verifiers.formats.vnnlib import read_counterexample, write
from tests import house
from tests.bench.propertykit import BOX, BREAKS, HOLDS, identity, log, spec
from tests.bench.verify_fakes import register
from tests.verifiers import onnxnets


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register()


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A benchmark of four rows in VNN-COMP's layout, partly gzipped."""
    folder = tmp_path / "toy" / "1.0"
    (folder / "onnx").mkdir(parents=True)
    (folder / "vnnlib").mkdir()
    identity().save(folder / "onnx/net.onnx")
    identity("packed").save(folder / "onnx/packed.onnx")
    raw = (folder / "onnx/packed.onnx").read_bytes()
    (folder / "onnx/packed.onnx").unlink()
    (folder / "onnx/packed.onnx.gz").write_bytes(gzip.compress(raw))
    (folder / "vnnlib/holds.vnnlib").write_text(HOLDS)
    (folder / "vnnlib/breaks.vnnlib.gz").write_bytes(gzip.compress(BREAKS.encode()))
    rows = [f"onnx/{net}.onnx,vnnlib/{prop}.vnnlib,{5}" for net in ("net", "packed") for prop in ("holds", "breaks")]
    (folder / "instances.csv").write_text("\n".join(rows) + "\n")
    return folder


def results(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def one(tmp_path: Path, text: str, *more: str, verifier: str = "fake-breaker") -> tuple[int, Path]:
    """Runs one pair; returns the exit code and the folder of results."""
    identity().save(tmp_path / "net.onnx")
    (tmp_path / "prop.vnnlib").write_text(text)
    files = ["--onnx", str(tmp_path / "net.onnx"), "--vnnlib", str(tmp_path / "prop.vnnlib")]
    return main([*files, "--verifier", verifier, "--out", str(tmp_path / "out"), *more]), tmp_path / "out"


def test_a_benchmark_gives_results_in_vnncomps_form(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = main(["--instances", str(bench / "instances.csv"), "--verifier", "fake-breaker", "--out", str(out)])
    assert code == EXIT_OK
    rows = results(out / "results.csv")
    assert [len(row) for row in rows] == [6] * 4
    assert [row[0] for row in rows] == ["toy"] * 4
    assert [row[4] for row in rows] == ["unsat", "sat", "unsat", "sat"]
    assert rows[0][1:3] == [str(bench / "onnx/net.onnx"), str(bench / "vnnlib/holds.vnnlib")]
    assert all(float(row[3]) >= 0 and float(row[5]) > 0 for row in rows)
    for name in ("net_breaks", "packed_breaks"):
        x, y = read_counterexample(out / "toy" / f"{name}.counterexample.gz")
        assert x.tolist() == y.tolist() == [0.5, 1.0]
        record = json.loads((out / "toy" / f"{name}.counterexample.check.json").read_text())
        assert record["ok"] is True
        assert record["outputs"] == [0.5, 1.0]
        assert record["onnxruntime"]
    assert len(list((out / "toy").iterdir())) == 4
    printed = capsys.readouterr().out
    assert "[2/4] fake-breaker sat" in printed
    assert "fake-breaker: 4 properties: 2 unsat, 2 sat" in printed
    assert (out / "logs/fake-breaker.log").exists()


def test_a_second_start_keeps_what_is_done(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--instances",
        str(bench / "instances.csv"),
        "--verifier",
        "fake-breaker",
        "--out",
        str(tmp_path / "o"),
    ]
    main(arguments)
    first = results(tmp_path / "o/results.csv")
    capsys.readouterr()
    assert main(arguments) == EXIT_OK
    assert capsys.readouterr().out.count("(kept)") == 4
    assert results(tmp_path / "o/results.csv") == first
    # Other settings of the question are another question.
    main([*arguments, "--timeout", "6"])
    assert "(kept)" not in capsys.readouterr().out


def test_a_kept_counterexample_is_there_under_every_name(bench: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--instances", str(bench / "instances.csv"), "--out", str(out), "--verifier"]
    main([*arguments, "fake-breaker"])
    (bench / "vnnlib/breaks.vnnlib.gz").rename(bench / "vnnlib/broken.vnnlib.gz")
    (bench / "instances.csv").write_text("onnx/net.onnx,vnnlib/broken.vnnlib,5\n")
    main([*arguments, "fake-breaker,fake-robust"])
    file = out / "fake-breaker/toy/net_broken.counterexample.gz"
    assert file.read_bytes() == (out / "toy/net_breaks.counterexample.gz").read_bytes()
    assert file.with_name("net_broken.counterexample.check.json").is_file()
    assert len(log(out)) == 2 + 4 + 1
    # Where it is gone altogether, the question is asked again.
    file.unlink()
    (out / "toy/net_breaks.counterexample.gz").unlink()
    main([*arguments, "fake-breaker,fake-robust"])
    assert file.is_file()


@pytest.mark.slow
def test_a_killed_run_goes_on(bench: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.bench.verify_fakes", "--instances", str(bench / "instances.csv")]
    command += ["--out", str(out), "--verifier", "fake-breaker"]
    # The verifier kills itself each time it is asked: an error with a reason, and the run goes on all the same.
    killed = subprocess.run(
        [*command, "--settings", "die_at=packed_holds"], capture_output=True, text=True, check=False, timeout=120
    )
    assert killed.returncode == EXIT_USAGE, killed.stderr
    assert "1 ended in error" in killed.stdout
    assert [row[4] for row in results(out / "results.csv")] == ["unsat", "sat", "error", "sat"]
    # Now the command itself, in the middle.
    started = subprocess.Popen([*command, "--timeout", "7"], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline().startswith("[1/4]")
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    started.stdout.close()
    with (out / "instances.main.jsonl").open("a") as stream:
        stream.write('{"type":"property","id":"to')
    # The kernel gives the log's lock back when the last holder is gone.
    time.sleep(0.2)
    again = subprocess.run([*command, "--timeout", "7"], capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == EXIT_OK, again.stderr
    assert "[1/4] fake-breaker unsat" in again.stdout
    assert again.stdout.splitlines()[0].endswith("(kept)")
    assert [row[4] for row in results(out / "results.csv")] == ["unsat", "sat", "unsat", "sat"]


@pytest.mark.processes
@pytest.mark.slow
def test_an_error_is_a_broken_run_and_can_be_asked_again(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o"
    arguments = ["--instances", str(bench / "instances.csv"), "--verifier", "fake-breaker", "--out", str(out)]
    monkeypatch.setenv("PRUNECERT_TEST_DIE_AT", "packed_holds")
    assert main(arguments) == EXIT_USAGE
    assert "1 ended in error" in capsys.readouterr().out
    assert [row[4] for row in results(out / "results.csv")] == ["unsat", "sat", "error", "sat"]
    monkeypatch.delenv("PRUNECERT_TEST_DIE_AT")
    # An answer that is there is kept, an error as well, and the run stays broken.
    assert main(arguments) == EXIT_USAGE
    assert capsys.readouterr().out.count("(kept)") == 4
    assert main([*arguments, "--retry", "timeout,memout"]) == EXIT_USAGE
    assert capsys.readouterr().out.count("(kept)") == 4
    assert main([*arguments, "--retry", "error"]) == EXIT_OK
    printed = capsys.readouterr().out
    assert printed.count("(kept)") == 3
    assert "ended in error" not in printed
    assert [row[4] for row in results(out / "results.csv")] == ["unsat", "sat", "unsat", "sat"]
    # The later answer counts from then on.
    assert main(arguments) == EXIT_OK


@pytest.mark.processes
@pytest.mark.slow
def test_a_contradiction_counts_more_than_an_error(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRUNECERT_TEST_DIE_AT", "packed_holds")
    arguments = ["--instances", str(bench / "instances.csv"), "--out", str(tmp_path / "o")]
    assert main([*arguments, "--verifier", "fake-breaker,fake-prover"]) == EXIT_REGRESSION
    assert "1 ended in error" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["sat", "unsat", "error,", "failed"])
def test_what_cannot_be_asked_again_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--retry .* is refused; allowed are unknown, timeout"):
        one(tmp_path, HOLDS, "--retry", text)


def test_two_verifiers_that_contradict_each_other_exit_1(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--instances", str(bench / "instances.csv"), "--out", str(tmp_path / "o")]
    code = main([*arguments, "--verifier", "fake-breaker,fake-prover"])
    assert code == EXIT_REGRESSION
    printed = capsys.readouterr().out
    assert printed.count("CONTRADICTION") == 2
    assert "unsat by fake-prover 1.0; sat by fake-breaker 1.0" in printed
    for name, words in (("fake-breaker", ["unsat", "sat"]), ("fake-prover", ["unsat", "unsat"])):
        assert [row[4] for row in results(tmp_path / "o" / name / "results.csv")] == words * 2
    # One after the other into one folder is found out as well.
    assert main([*arguments, "--verifier", "fake-prover"]) == EXIT_REGRESSION


def test_a_property_that_is_no_box_is_unsupported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = one(tmp_path, spec(*BOX, "(<= X_0 Y_0)"))
    assert code == EXIT_USAGE
    assert results(out / "results.csv")[0][4] == "unknown"
    assert log(out)[-1]["status"] == "unsupported"
    assert "mixes inputs and outputs" in capsys.readouterr().out


def test_a_property_beyond_the_verifier_is_unsupported(tmp_path: Path) -> None:
    _, out = one(tmp_path, HOLDS, verifier="fake-robust")
    assert log(out)[-1]["status"] == "unsupported"
    assert "only robustness" in str(log(out)[-1]["detail"])
    _, out = one(tmp_path, spec(*BOX, "(>= Y_1 Y_0)"), verifier="fake-robust")
    assert log(out)[-1]["status"] == "unsat"


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [("0.1", "0.2", "unsat"), ("0.1", "0.6", "sat"), ("0.6", "0.1", "sat")],
)
def test_several_boxes_are_one_answer(tmp_path: Path, first: str, second: str, status: str) -> None:
    boxes = f"(or (and (>= X_0 0) (<= X_0 {first})) (and (>= X_0 -1) (<= X_0 {second})))"
    _, out = one(tmp_path, spec(boxes, *BOX[2:], "(>= Y_0 0.5)"))
    row = log(out)[-1]
    assert row["status"] == status
    assert row["domains"] == (1 if first == "0.6" else 2)
    if status == "sat":
        x, _ = read_counterexample(out / tmp_path.name / "net_prop.counterexample.gz")
        assert x[0] >= 0.5
        assert x[0] <= 0.6


def test_a_counterexample_must_lie_in_the_files_own_box(tmp_path: Path) -> None:
    """No float32 lies between the decimals, so the corner that breaks the float32 box proves nothing."""
    flat = spec("(>= X_0 0.1)", "(<= X_0 0.1)", *BOX[2:], "(>= Y_0 0.1)")
    _, out = one(tmp_path, flat)
    assert log(out)[-1]["status"] == "unknown"
    assert "sliver" in str(log(out)[-1]["detail"])
    assert log(out)[-1]["witness_check"]
    # One step inwards is as unsafe here, and is what gets written.
    _, out = one(tmp_path, spec("(>= X_0 0)", "(<= X_0 0.1)", *BOX[2:], "(>= Y_0 0.05)"))
    assert log(out)[-1]["status"] == "sat"
    x, _ = read_counterexample(out / tmp_path.name / "net_prop.counterexample.gz")
    assert 0.0999999 < x[0] <= 0.1


def test_the_limit_is_shared_by_the_boxes(tmp_path: Path) -> None:
    boxes = " ".join(f"(and (>= X_0 {i}) (<= X_0 {i + 0.25}))" for i in range(-40, 0))
    _, out = one(tmp_path, spec(f"(or {boxes})", *BOX[2:], "(>= Y_0 0.5)"), "--timeout", "0.002")
    row = log(out)[-1]
    assert row["status"] == "timeout"
    assert "before this box's turn" in str(row["detail"])


def refused(tmp_path: Path, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        main([*arguments, "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.csv"))
    return str(caught.value)


def test_bad_input_is_refused_before_the_work(tmp_path: Path) -> None:
    net = identity().save(tmp_path / "net.onnx")
    raw = net.read_bytes()
    (tmp_path / "cut.onnx.gz").write_bytes(gzip.compress(raw)[:-20])
    (tmp_path / "half.onnx").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "good.vnnlib").write_text(HOLDS)
    (tmp_path / "bad.vnnlib").write_text("(assert")
    (tmp_path / "cut.vnnlib.gz").write_bytes(gzip.compress(HOLDS.encode())[:-9])
    (tmp_path / "inputs.vnnlib").write_text(spec(*BOX, "(>= X_2 0)", "(<= X_2 0)", "(<= Y_0 0)", inputs=3))
    (tmp_path / "outputs.vnnlib").write_text(spec(*BOX, "(<= Y_2 0)", outputs=3))

    def pair(onnx: str, vnnlib: str, *more: str) -> str:
        files = ["--onnx", str(tmp_path / onnx), "--vnnlib", str(tmp_path / vnnlib)]
        return refused(tmp_path, *files, "--verifier", "fake-prover", *more)

    assert "does not exist" in pair("none.onnx", "good.vnnlib")
    assert "does not exist" in pair("net.onnx", "none.vnnlib")
    assert "cut-off gzip" in pair("cut.onnx.gz", "good.vnnlib")
    assert "no ONNX" in pair("half.onnx", "good.vnnlib")
    assert "no ONNX" in pair("text.onnx", "good.vnnlib")
    assert "not closed" in pair("net.onnx", "bad.vnnlib")
    assert "cut-off gzip" in pair("net.onnx", "cut.vnnlib.gz")
    assert "3 inputs but the network net.onnx has 2" in pair("net.onnx", "inputs.vnnlib")
    assert "3 outputs but the network" in pair("net.onnx", "outputs.vnnlib")
    assert "--abcrown" in pair("net.onnx", "good.vnnlib", "--abcrown", str(tmp_path / "nowhere"))
    assert "setting" in pair("net.onnx", "good.vnnlib", "--settings", "x=1")
    assert "Device 'cuda'" in pair("net.onnx", "good.vnnlib", "--device", "cuda")
    assert "Did you mean 'neuralsat'" in refused(tmp_path, "--verifier", "neuralsatt")
    assert "Nothing to verify" in refused(tmp_path, "--verifier", "fake-prover", "--onnx", str(net))
    both = ["--instances", "a.csv", "--onnx", str(net)]
    assert "one or the other" in refused(tmp_path, "--verifier", "fake-prover", *both)


def test_a_network_without_batch_axis_is_unsupported(tmp_path: Path) -> None:
    import onnx

    identity().save(tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    (tmp_path / "p.vnnlib").write_text(HOLDS)
    files = ["--onnx", str(tmp_path / "four.onnx"), "--vnnlib", str(tmp_path / "p.vnnlib")]
    assert main([*files, "--verifier", "fake-prover", "--out", str(tmp_path / "out")]) == EXIT_USAGE
    assert "batch axis" in str(log(tmp_path / "out")[-1]["detail"])


@pytest.mark.slow
def test_the_command_line_ends_without_traceback(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "bench.verify",
        "--verifier",
        "neuralsat",
        "--onnx",
        "a.onnx",
        "--vnnlib",
        "b.vnnlib",
    ]
    ended = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_USAGE
    assert ended.stderr.startswith("error: The ONNX file a.onnx does not exist")
    assert ended.stderr.count("\n") == 1


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, bench.verify as v\ntry:\n    v.main(['--help'])\nexcept SystemExit:\n    pass\n"
    code += "print(sorted({'torch', 'onnx', 'onnxruntime', 'torchvision', 'vnnlib'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_certificate_is_written_beside_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx, holds, proof = identity().save(tmp_path / "net.onnx"), tmp_path / "holds.vnnlib", tmp_path / "proof"
    holds.write_text(spec(*BOX, "(>= Y_0 0.75)"))
    pair = ["--onnx", str(onnx), "--vnnlib", str(holds), "--verifier", "sparse-crown", "--certificate", str(proof)]
    assert main([*pair, "--out", str(tmp_path / "out")]) == EXIT_OK
    assert "unsat, certified by intervals" in capsys.readouterr().out
    assert check(proof, onnx, holds).answer == "unsat"
    holds.write_text(spec(*BOX, "(not (< Y_0 0.75))"))
    assert main([*pair, "--out", str(tmp_path / "other")]) == EXIT_REGRESSION
    assert "uncertified: " in capsys.readouterr().out
    rows = tmp_path / "rows.csv"
    rows.write_text("net.onnx,holds.vnnlib,1\n")
    with pytest.raises(UserError, match="for one pair"):
        main(["--instances", str(rows), "--verifier", "sparse-crown", "--certificate", str(proof), "--timeout", "1"])


#: What a question from the shell has no use for: half a second to several seconds each, in a cold process.
NEEDLESS = ("torch", "scipy.optimize", "matplotlib", "pandas", "rich", "jinja2", "sklearn", "prunecert.models")
#: What only the process of the engine needs.
ENGINE = ("numba", "scipy", "prunecert.verifiers.sparse.crown", "prunecert.verifiers.checker")


def imported(text: str) -> set[str]:
    """Returns the modules that Python says it has imported, and the packages that they are in."""
    names = (line.rpartition("|")[2].strip() for line in text.splitlines() if line.startswith("import time:"))
    return {name[:end] for name in names for end in [*(i for i, c in enumerate(name) if c == "."), len(name)]}


@pytest.mark.slow
def test_a_cold_question_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    """Here and in the engine's process, which writes what it has imported into its log."""
    onnxnets.convolutional(tmp_path / "net.onnx")
    question = onnxnets.instance(tmp_path / "net.onnx", 1e-4)
    write(question, tmp_path / "prop.vnnlib")
    words = ["--onnx", "net.onnx", "--vnnlib", "prop.vnnlib", "--verifier", "sparse-bab", "--out", "out"]
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "prunecert.bench.verify", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(house.ROOT), "PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 unsat" in run.stdout
    here, there = imported(run.stderr), imported((tmp_path / "out" / "logs" / "sparse-bab.log").read_text())
    assert {"onnxruntime", "prunecert.verifiers.process.worker"} <= here
    assert {"numba", "scipy.sparse", "onnxruntime", "prunecert.verifiers.sparse.bab.search"} <= there
    assert sorted(here & {*NEEDLESS, *ENGINE}) == []
    assert sorted(there & {*NEEDLESS}) == []
