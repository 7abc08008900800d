"""`bench.verify` on lists, names, options and folders as people, and strangers, have them."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prunecert.bench.results.vnncomp import bounded_name, read_rows
from prunecert.bench.running import properties_run
from prunecert.bench.running.properties import Problem, solve
from prunecert.bench.verify import main
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE, UserError
from prunecert.verifiers.base import Verdict
from prunecert.verifiers.formats.vnnlib import read_counterexample
from prunecert.verifiers.process.worker import Worker
from tests.bench.propertykit import BOX, BREAKS, HOLDS, identity, log, spec
from tests.bench.test_verify import one, results
from tests.bench.verify_fakes import register


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a network, and three properties: one holds, one is broken, one is cut off."""
    identity().save(tmp_path / "net.onnx")
    (tmp_path / "v").mkdir()
    (tmp_path / "v/holds.vnnlib").write_text(HOLDS)
    (tmp_path / "v/breaks.vnnlib").write_text(BREAKS)
    (tmp_path / "v/cut.vnnlib").write_text(HOLDS[:-1])
    return tmp_path


def answered(folder: Path, content: str | bytes, *more: str, verifier: str = "fake-breaker") -> tuple[int, list[str]]:
    """Runs a list; returns the exit code and the words of results.csv."""
    raw = content.encode() if isinstance(content, str) else content
    (folder / "instances.csv").write_bytes(raw)
    out = folder / "out"
    code = main(["--instances", str(folder / "instances.csv"), "--verifier", verifier, "--out", str(out), *more])
    return code, [row[4] for row in results(out / "results.csv")]


ROWS = "net.onnx,v/holds.vnnlib,5\nnet.onnx,v/breaks.vnnlib,5\n"


def tasks(folder: Path, content: str | bytes) -> list[tuple[Path, Path, float, str]]:
    """Returns what a list asks for, row by row."""
    file = folder / "instances.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(task.onnx.resolve(), task.vnnlib.resolve(), task.timeout, task.refusal) for task in read_rows(file)]


def test_a_list_with_a_header_is_answered(folder: Path) -> None:
    assert answered(folder, "onnx,vnnlib,timeout\n" + ROWS) == (EXIT_OK, ["unsat", "sat"])


@pytest.mark.parametrize(
    "content",
    [
        "onnx,vnnlib,timeout\n" + ROWS,
        "# our instances\n\n  # of today\n" + ROWS.replace("\n", "\n\n"),
        "\ufeff" + ROWS,
        ROWS.replace("\n", "\r\n"),
        ROWS.replace("\n", "\r"),
        ROWS.replace(",5", ",5,unsat,more"),
        ROWS.replace(",5", ",5,"),
        ROWS.replace("v/", "v\\"),
        "".join(f'"{a}", "{b}" , {c}\n' for a, b, c in (row.split(",") for row in ROWS.split())),
        ROWS.replace("net.onnx", "./v/../net.onnx"),
        gzip.compress(ROWS.encode(), mtime=0),
    ],
)
def test_lists_as_people_write_them(folder: Path, content: str | bytes) -> None:
    home = folder.resolve()
    rows = [(home / "net.onnx", home / f"v/{name}.vnnlib", 5.0, "") for name in ("holds", "breaks")]
    assert tasks(folder, content) == rows


def test_equal_rows_are_answered_once_and_listed_as_often_as_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROWS + ROWS + ROWS.replace("v/", "./v/")
    assert answered(folder, rows) == (EXIT_OK, ["unsat", "sat"] * 3)
    assert capsys.readouterr().out.count("(kept)") == 4
    assert len(log(folder / "out")) == 1 + 2
    # The same pair with another limit is another question, with a counterexample file of its own.
    assert answered(folder, ROWS + ROWS.replace(",5", ",6"))[1] == ["unsat", "sat"] * 2
    assert len({task.name for task in read_rows(folder / "instances.csv")}) == 4


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("net.onnx,v/cut.vnnlib,5", "not closed"),
        ("net.onnx,v/none.vnnlib,5", "does not exist"),
        ("none.onnx,v/holds.vnnlib,5", "does not exist"),
        ("v/holds.vnnlib,v/holds.vnnlib,5", "no ONNX"),
        ("net.onnx,net.onnx,5", "not text"),
        ("net.onnx,v,5", "is no file"),
        ("net.onnx,v/holds.vnnlib", "has 2 fields"),
        ("net.onnx,v/holds.vnnlib,soon", "timeout 'soon'"),
        ("net.onnx,v/holds.vnnlib,nan", "timeout 'nan'"),
        ("net.onnx,v/holds.vnnlib,-1", "timeout '-1'"),
        ('"net.onnx,v/holds.vnnlib,5', "has 1 fields"),
        (f"net.onnx,{'p' * 5_000},5", "can't be reached"),
        (f"net.onnx,{'p' * 131_073},5", "is not understood"),
        ("net.onnx,v/\x1b[31mred.vnnlib,5", "\\x1b[31mred"),
        ("net.onnx,v/\0.vnnlib,5", "\\x00"),
    ],
)
def test_a_bad_row_answers_for_itself_alone(
    folder: Path, bad: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ROWS.split()
    assert answered(folder, f"{first}\n{bad}\n{second}\n") == (EXIT_USAGE, ["unsat", "error", "sat"])
    printed = capsys.readouterr().out
    assert why in printed
    assert "\x1b" not in printed
    assert "1 ended in error" in printed
    assert max(map(len, printed.splitlines())) < 1_000
    # Mended, it is asked; the others are kept.
    (folder / "v/none.vnnlib").write_text(HOLDS)
    if "none.vnnlib" in bad:
        assert answered(folder, f"{first}\n{bad}\n{second}\n") == (EXIT_OK, ["unsat", "unsat", "sat"])


def test_what_nobody_foresaw_in_one_row_costs_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(problem: Problem, worker: Worker) -> Verdict:
        if "holds" in problem.task.name:
            raise RuntimeError("nobody\nforesaw \x1b[31m this")
        return solve(problem, worker)

    monkeypatch.setattr(properties_run, "solve", failing)
    assert answered(folder, ROWS) == (EXIT_USAGE, ["error", "sat"])
    assert log(folder / "out")[1]["detail"] == "RuntimeError: nobody"


def test_networks_of_one_stem_are_told_apart(folder: Path) -> None:
    rows = ""
    for i, part in enumerate(["onnx", "onnx/b", "onnx/c/b", "a_b", "a"]):
        (folder / part).mkdir(parents=True, exist_ok=True)
        identity().save(folder / part / ("b_net.onnx" if part == "a" else "net.onnx"))
        rows += f"{part}/{'b_net' if part == 'a' else 'net'}.onnx,v/{'breaks' if i else 'holds'}.vnnlib,5\n"
    assert answered(folder, rows) == (EXIT_OK, ["unsat"] + ["sat"] * 4)
    names = [task.name for task in read_rows(folder / "instances.csv")]
    assert len(set(names)) == 5
    for name in names[1:]:
        read_counterexample(folder / "out" / folder.name / f"{name}.counterexample.gz")


def test_names_that_are_too_long_together_lose_no_answer(folder: Path) -> None:
    long = "n" * 130 + ".onnx", "é" * 70 + "p" * 60 + ".vnnlib"
    (folder / "net.onnx").rename(folder / long[0])
    (folder / "v/breaks.vnnlib").rename(folder / long[1])
    files = ["--onnx", str(folder / long[0]), "--vnnlib", str(folder / long[1]), "--out", str(folder / "out")]
    assert main([*files, "--verifier", "fake-breaker"]) == EXIT_OK
    row = log(folder / "out")[-1]
    assert row["status"] == "sat"
    assert len(os.fsencode(Path(str(row["counterexample"])).name)) <= 255
    read_counterexample(folder / "out" / str(row["counterexample"]))
    # Kept, with its counterexample.
    assert main([*files, "--verifier", "fake-breaker"]) == EXIT_OK
    assert len(log(folder / "out")) == 3


def test_shortened_names_differ_where_long_ones_do() -> None:
    names = {bounded_name("é" * 150 + str(i)) for i in range(50)}
    assert len(names) == 50
    assert all(len(os.fsencode(name)) <= 200 for name in names)
    assert bounded_name("net_p") == "net_p"


@pytest.mark.parametrize("category", ["../../elsewhere", "..", ".", "", "a/b", "a\\b", "x" * 300, "a\nb", " a"])
def test_no_category_leads_out_of_the_folder(tmp_path: Path, category: str) -> None:
    with pytest.raises(UserError, match="--category") as caught:
        one(tmp_path, BREAKS, "--category", category)
    assert str(caught.value).isprintable()
    with pytest.raises(UserError, match="--category"):
        one(tmp_path, BREAKS, "--category", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [
        "--settings 'die_at=!!bool maybe'", "--settings seed=*a", f"--settings die_at={'[' * 2_000}",
        "--settings 'die_at={a: 1}'", "--settings die_at=.nan",
        f"--settings die_at={'9' * 400}", "--settings 'die_at=&a [*a]'", "--settings die_at=\x1b[31m'{'",
    ],
)  # fmt: skip
def test_settings_that_are_no_plain_values_are_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match="is refused") as caught:
        one(tmp_path, HOLDS, *shlex.split(option))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [
        "--threads 0", "--threads -5", "--threads 100000", "--memory-limit -1", "--memory-limit 0", "--timeout 0",
        "--timeout nan", "--timeout inf", "--timeout -1", "--timeout 1e300",
    ],
)  # fmt: skip
def test_numbers_that_no_verifier_can_keep_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        one(tmp_path, HOLDS, *shlex.split(option))
    assert caught.value.code == EXIT_USAGE
    last = capsys.readouterr().err.splitlines()[-1]
    name, value = option.split()
    assert f"argument {name}: '{value}' is refused; it must be" in last
    assert len(last) < 400
    assert not (tmp_path / "out").exists()


def test_a_folder_of_results_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none"), tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="can't be used"):
            one(tmp_path, HOLDS, "--out", str(out))
    assert (tmp_path / "file").read_text() == ""
    # What stands in the way inside of it, and a file system that turns read-only.
    (tmp_path / "out").mkdir()
    (tmp_path / "out/logs").write_text("")
    with pytest.raises(UserError, match="logs can't be used"):
        one(tmp_path, HOLDS)

    def refused(**_: object) -> None:
        raise OSError(30, "Read-only file system", str(tmp_path / "out"))

    monkeypatch.setattr("prunecert.bench.running.outdir.tempfile.TemporaryFile", refused)
    with pytest.raises(UserError, match=r"out can't be used \(read-only file system"):
        one(tmp_path, HOLDS)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_property_in_a_folder_that_may_not_be_entered(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    is_file = Path.is_file

    def refused(self: Path) -> bool:
        if self.parent.name == "closed":
            raise error
        return is_file(self)

    monkeypatch.setattr(Path, "is_file", refused)
    arguments = ["--onnx", str(folder / "net.onnx"), "--vnnlib", str(folder / "closed/p.vnnlib")]
    with pytest.raises(UserError, match=f"closed/p.vnnlib can't be reached .{error.strerror}"):
        main([*arguments, "--verifier", "fake-prover", "--out", str(folder / "out")])
    assert answered(folder, ROWS + "net.onnx,closed/p.vnnlib,5\n") == (EXIT_USAGE, ["unsat", "sat", "error"])


def test_a_folder_that_was_made_for_bad_input_goes_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not closed"):
        one(tmp_path, "(assert")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_reader_that_goes_loses_no_answer(folder: Path) -> None:
    (folder / "instances.csv").write_text(ROWS * 3)
    command = f"{shlex.quote(sys.executable)} -m tests.bench.verify_fakes --instances {folder / 'instances.csv'}"
    command += f" --verifier fake-breaker,fake-prover --out {folder / 'out'}"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], capture_output=True, text=True, check=False, timeout=120
    )
    # A contradiction, as without the pipe.
    assert ended.returncode == EXIT_REGRESSION, ended.stderr
    assert ended.stderr == ""
    assert [row[4] for row in results(folder / "out/fake-breaker/results.csv")] == ["unsat", "sat"] * 3


def test_a_property_that_every_verifier_refuses_is_no_success(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "v/mixed.vnnlib").write_text(spec(*BOX, "(<= X_0 Y_0)"))
    assert answered(folder, ROWS + "net.onnx,v/mixed.vnnlib,5\n") == (EXIT_USAGE, ["unsat", "sat", "unknown"])
    assert "1 unsupported by every verifier" in capsys.readouterr().out
    # One verifier that takes it is enough.
    out = str(folder / "two")
    arguments = ["--onnx", str(folder / "net.onnx"), "--vnnlib", str(folder / "v/holds.vnnlib"), "--out", out]
    assert main([*arguments, "--verifier", "fake-robust,fake-breaker"]) == EXIT_OK
    assert main([*arguments, "--verifier", "fake-robust"]) == EXIT_USAGE


def test_an_empty_input_set_holds_with_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "v/empty.vnnlib").write_text(spec(*BOX, "(>= X_0 2)", "(>= Y_0 0.5)"))
    assert answered(folder, ROWS + "net.onnx,v/empty.vnnlib,5\n") == (EXIT_OK, ["unsat", "sat", "unsat"])
    assert "warning: its input set is empty: X_0" in capsys.readouterr().out
    wrong = spec(*BOX, "(>= X_0 2)", "(>= Y_0 0.5)", outputs=3)
    with pytest.raises(UserError, match="has 3 outputs but the network"):
        one(folder, wrong)


def test_a_property_without_output_constraint_is_broken_by_any_point(folder: Path) -> None:
    for text in (spec(*BOX), spec("(> X_0 0)", "(< X_0 0.5)", *BOX[2:])):
        (folder / "v/free.vnnlib").write_text(text)
        assert answered(folder, "net.onnx,v/free.vnnlib,5\n", verifier="fake-prover") == (EXIT_OK, ["sat"])
        x, y = read_counterexample(folder / f"out/{folder.name}/net_free.counterexample.gz")
        assert x.tolist() == y.tolist() == [0.25, 0.625]


def test_a_point_on_the_border_of_a_strict_inequality_breaks_nothing(tmp_path: Path) -> None:
    # The largest Y_0 is 0.5; the careless one takes that for a counterexample.
    for assertions, status in (
        ([*BOX, "(> Y_0 0.5)"], "unknown"),
        ([*BOX, "(not (<= Y_0 0.5))"], "unknown"),
        ([*BOX, "(> Y_0 0.4)"], "sat"),
        (["(>= X_0 0)", "(< X_0 0.5)", *BOX[2:], "(>= Y_0 0.5)"], "unknown"),
        ([*BOX, "(> Y_0 0.75)"], "unsat"),
    ):
        _, out = one(tmp_path, spec(*assertions), verifier="fake-careless")
        assert log(out)[-1]["status"] == status, assertions
    assert json.dumps(log(out)).count("a strict inequality of the property holds with equality") == 2


def test_a_list_is_not_written_anew_for_each_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(properties_run, "write_results", lambda path, rows: written.append(len(list(rows))))
    lines = []
    for i in range(60):
        (folder / f"v/{i}.vnnlib").write_text(HOLDS.replace("0.75", f"0.75{i}"))
        lines.append(f"net.onnx,v/{i}.vnnlib,5\n")
    (folder / "instances.csv").write_text("".join(lines))
    monkeypatch.setattr(properties_run, "_SHARE", 1e-9)
    arguments = ["--instances", str(folder / "instances.csv"), "--verifier", "fake-prover"]
    assert main([*arguments, "--out", str(folder / "out")]) == EXIT_OK
    assert written[0] == 0
    assert written[-1] == 60
    assert len(written) <= 4


def test_a_float64_network_ends_without_traceback(tmp_path: Path) -> None:
    import onnx

    identity().save(tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(model, tmp_path / "double.onnx")
    (tmp_path / "p.vnnlib").write_text(HOLDS)
    (tmp_path / "instances.csv").write_text("net.onnx,p.vnnlib,5\ndouble.onnx,p.vnnlib,5\n")
    arguments = ["--instances", str(tmp_path / "instances.csv"), "--verifier", "fake-prover"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) in (EXIT_OK, EXIT_USAGE)
    assert results(tmp_path / "out/results.csv")[0][4] == "unsat"
