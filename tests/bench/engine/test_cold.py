"""Answers from a shell are timed from start to end, and failures are no times."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prunecert.bench.engine import cold as module
from prunecert.bench.engine.cold import ColdRequest, ColdRun, cold, installed, main, measure, table
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.capabilities import Availability

#: What a made-up verifier does: it writes an answer after a while, or ends otherwise.
SCRIPTS = {
    "prover": "WRITE('unsat')",
    "breaker": "WRITE('sat')",
    "sleeper": "import time; time.sleep(0.15); WRITE('unsat')",
    "worker": "import time\nwhile time.process_time() < 0.15: pass\nWRITE('unsat')",
    "late": "WRITE('timeout')",
    "silent": "",
    "fallen": "WRITE('unsat'); print('no such thing'); raise SystemExit(2)",
    "endless": "import time; time.sleep(60)",
    "python alone": "pass",
    "import of bench.verify": "pass",
}
WRITE = """
import pathlib, sys
def WRITE(word):
    out = pathlib.Path(sys.argv[1])
    out.mkdir()
    (out / "results.csv").write_text(f"c,a.onnx,p.vnnlib,0.1,{word},0.2\\n")
"""


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_: ColdRequest, name: str, out: Path) -> list[str]:
        return [sys.executable, "-S", "-c", WRITE + SCRIPTS[name], str(out)]

    monkeypatch.setattr(ColdRequest, "command", command)


def request(folder: Path, *verifiers: str, repeats: int = 1) -> ColdRequest:
    for name in ("a.onnx", "p.vnnlib"):
        (folder / name).touch()
    return ColdRequest(folder / "a.onnx", folder / "p.vnnlib", verifiers, repeats)


def test_wall_clock_and_processor_are_told_apart(tmp_path: Path) -> None:
    request_ = request(tmp_path)
    sleeper, worker = measure(request_, "sleeper"), measure(request_, "worker")
    assert sleeper.wall_s > 0.15
    assert worker.processor_s > 0.15 > 0
    assert sleeper.processor_s < sleeper.wall_s
    assert sleeper.answer == worker.answer == "unsat"


@pytest.mark.parametrize(
    ("name", "answer", "detail"),
    [
        ("silent", "error", "exit code 0: no output"),
        # Whatever it has written down.
        ("fallen", "error", "exit code 2: no such thing"),
        ("late", "timeout", ""),
        ("python alone", "", ""),
    ],
)
def test_what_ends_otherwise_is_no_answer(tmp_path: Path, name: str, answer: str, detail: str) -> None:
    run = measure(request(tmp_path), name)
    assert (run.answer, run.detail) == (answer, detail)
    assert run.counts == (answer == "")


def test_what_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE_S", -59.9)
    run = measure(request(tmp_path), "endless")
    assert run.answer == "error"
    assert run.wall_s < 30
    assert "exit code -9" in run.detail


def test_verifiers_take_turns_after_a_run_that_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def measured(_: ColdRequest, name: str) -> ColdRun:
        names.append(name)
        return ColdRun(name, "unsat", 1.0, 1.0)

    monkeypatch.setattr(module, "measure", measured)
    runs = cold(request(tmp_path, "prover", repeats=2))
    order = ["python alone", "import of bench.verify", "prover"]
    assert names == [*order, *order, *order[1:], order[0]]
    assert len(runs) == 6
    with pytest.raises(UserError, match="no such file"):
        cold(ColdRequest(tmp_path / "none.onnx", tmp_path / "p.vnnlib", ("prover",)))


def test_failures_are_counted_and_have_no_times() -> None:
    runs = [
        ColdRun("prover", "unsat", 1.0, 4.0),
        ColdRun("prover", "unsat", 2.0, 5.0),
        ColdRun("prover", "unsat", 4.0, 6.0),
        ColdRun("prover", "error", 900.0, 900.0, "exit code 2: it fell"),
        ColdRun("late", "timeout", 60.0, 60.0),
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(runs).markdown()[2:]]
    assert lines[-2:] == [
        ["prover", "unsat 3, error 1", "2.00 (1.00 to 4.00)", "5.00 (4.00 to 6.00)"],
        ["late", "timeout 1", "", ""],
    ]


def test_only_what_is_there_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Did you mean"):
        installed(["sparse-bba"])
    names, absent = installed(["sparse-bab", "vibecheck"])
    assert "sparse-bab" in names
    assert len(names) + len(absent) == 2
    everything, left = installed([])
    assert "sparse-bab" in everything
    assert "sparse-pair" not in everything
    assert not {"crown", "pgd"} & {*everything, *left}
    monkeypatch.setattr(VERIFIERS.get("vibecheck"), "availability", lambda: Availability(False, hint="get it"))
    with pytest.raises(UserError, match="None of these verifiers is installed") as error:
        installed(["vibecheck"])
    assert "vibecheck is left out: get it" in str(error.value.details)


def test_the_command_names_failures_and_contradictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request_ = request(tmp_path)
    words = ["--onnx", str(request_.onnx), "--vnnlib", str(request_.vnnlib), "--repeats", "1"]
    monkeypatch.setattr(module, "installed", lambda names: (tuple(names), ["other is left out: get it"]))
    assert main([*words, "--verifiers", "prover,fallen"]) == 0
    captured = capsys.readouterr()
    assert "fallen failed, exit code 2: no such thing" in captured.out
    assert captured.err == "other is left out: get it\n"
    assert main([*words, "--verifiers", "prover,breaker"]) == 1
    assert "CONTRADICTION: p.vnnlib: unsat by prover, sat by breaker" in capsys.readouterr().out


def test_a_verifier_is_started_as_from_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    request_ = ColdRequest(Path("a.onnx"), Path("p.vnnlib"), ("sparse-bab",), threads=2)
    assert request_.command("sparse-bab", tmp_path)[1:] == [
        *("-m", "prunecert.bench.verify", "--onnx", "a.onnx", "--vnnlib", "p.vnnlib", "--verifier", "sparse-bab"),
        *("--timeout", "60", "--threads", "2", "--out", str(tmp_path)),
    ]
    assert request_.command("python alone", tmp_path)[1:] == ["-c", "pass"]


def test_files_that_are_not_there_are_named_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.onnx does not exist"):
        main(["--onnx", str(tmp_path / "none.onnx"), "--vnnlib", str(tmp_path / "none.vnnlib")])
