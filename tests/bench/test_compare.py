from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench import compare
from prunecert.bench.comparison import launch, loop, sides
from prunecert.bench.comparison.measure import Ended, Meter
from prunecert.bench.comparison.report import markdown, record
from prunecert.bench.comparison.sides import Found, Side
from prunecert.bench.results.row_types import VerdictRow
from prunecert.bench.results.store import Writer
from prunecert.bench.results.vnncomp import Task
from prunecert.errors import UserError
from prunecert.verifiers.base import Status
from tests.bench.rowkit import typed

CELL = "cnn-small_ibp_eps2_lwm_x10_s0"


def task(folder: Path, image: int, timeout: float = 5.0) -> Task:
    onnx, vnnlib = folder / f"{CELL}.compact.onnx", folder / f"test{image}_eps2.vnnlib"
    for path in (onnx, vnnlib):
        path.touch()
    return Task("cifar10-4nets", onnx, vnnlib, timeout, f"{CELL}_test{image}")


class Tool(loop.NeuralSat):
    """A verifier of our own make: a script that writes what the property's name asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = "1"
        (folder / "main.py").write_text(
            textwrap.dedent(
                """\
                import os, sys, time
                words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
                assert os.environ["OMP_NUM_THREADS"] == "1"
                image = int(os.path.basename(words["--spec"])[4])
                if image == 3:
                    time.sleep(60)
                if image != 4:
                    open(words["--result_file"], "w").write(["unsat,0.1", "sat", "safe"][image] + "\\n(witness)")
                """
            )
        )


@pytest.mark.slow
def test_the_loop_starts_the_verifier_once_an_instance_and_holds_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GRACE_S", 4.0)
    launcher = tmp_path / "launch.py"
    # Without torchvision, whose import takes seconds.
    launcher.write_text(
        "import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    monkeypatch.setattr(launch, "__file__", str(launcher))
    tasks = [task(tmp_path, image, timeout=1.0) for image in range(5)]
    told: list[int] = []
    with Meter() as meter:
        answers = loop.run_loop(
            Tool(tmp_path), tasks, tmp_path / "out", meter, workers=2, threads=1, told=lambda n, *_: told.append(n)
        )
    words = [answer.status for answer in answers]
    assert words == [Status.UNSAT, Status.SAT, Status.ERROR, Status.TIMEOUT, Status.ERROR]
    assert answers[2].detail == "its result file says 'safe', exit status 0"
    assert answers[4].detail == "it wrote no result file, exit status 0"
    assert 5.0 <= answers[3].seconds < 30
    assert sorted(told) == [0, 1, 2, 3, 4]
    assert meter.peak_mb > 1


@pytest.mark.parametrize("name", ["neuralsat", "abcrown"])
def test_command_lines_are_the_verifiers_own(name: str, tmp_path: Path) -> None:
    try:
        tool = loop.make_tool(name, tmp_path)
    except UserError as error:
        pytest.skip(str(error))
    command = tool.command(task(tmp_path, 0), tmp_path / "r.txt")
    assert (tool.folder / command[0]).is_file()
    assert command[command.index("--timeout") + 1] == "5"
    if name == "abcrown":
        assert "device: cpu" in (tmp_path / "abcrown.yaml").read_text()


def test_what_a_verifier_did_not_write_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    assert loop.read_result(path, Ended(-9, 1.0))[0] is Status.ERROR
    assert loop.read_result(path, Ended(None, 1.0))[0] is Status.TIMEOUT
    path.write_text("unsat\n")
    # A verifier that was killed at its limit has not answered in time.
    assert loop.read_result(path, Ended(None, 1.0))[0] is Status.TIMEOUT
    assert loop.read_result(path, Ended(0, 1.0)) == (Status.UNSAT, "")


def side(name: str, wall_s: float, **answers: str) -> Side:
    found = {(CELL, int(key[1:])): Found(Status(word), 2.0, name) for key, word in answers.items()}
    return Side(name, "words", ["command"], wall_s, 100.0, found)


def test_a_proof_beside_a_counterexample_is_named_and_a_time_out_is_no_contradiction() -> None:
    both = [
        side("run", 1.0, i1="unsat", i2="sat", i3="unsat", i4="timeout", i5="unknown"),
        side("loop", 9.0, i1="unsat", i2="unsat", i3="timeout", i4="sat", i5="timeout"),
    ]
    contradictions, differences = sides.disagreements(both)
    assert contradictions == [f"{CELL} image 2: run sat (run) after 2.0 s, loop unsat (loop) after 2.0 s"]
    assert [line.split(":")[0] for line in differences] == [f"{CELL} image 3", f"{CELL} image 4"]


def made(found: list[Side], instances: int) -> dict[str, Any]:
    return record(
        found, ["x"], [], options={"images": 3}, command=["c"], limit=20.0, workers=2, instances=instances, version="1"
    )


def test_ratios_are_of_wall_clock_times_and_a_sampled_loop_is_scaled() -> None:
    run, loop_ = side("run", 4.0, i1="unsat", i2="sat"), side("loop", 40.0, i1="unsat", i2="sat")
    full = made([run, loop_], 2)
    assert full["loop_over"] == {"run": {"value": 10.0, "low": 10.0, "high": 10.0}}
    text = markdown(full)
    assert "| run | words | 2 | 4 s | 10.0 | 100 | sat 1, unsat 1 |" in text
    found = dict(loop_.found)
    found[CELL, 2] = Found(Status.SAT, 6.0, "loop")
    part = Side("loop", "words", [], 40.0, 100.0, found)
    sampled = made([run, part], 20)
    ratio = sampled["loop_over"]["run"]
    # Times of 2 and 6 seconds: 20 instances at a mean of 4 s by two processes, beside 4 s.
    assert ratio["value"] == pytest.approx(10.0)
    assert ratio["low"] == pytest.approx(5.0)
    assert ratio["high"] == pytest.approx(15.0)
    assert "10.0 (5.0–15.0)" in markdown(sampled)
    assert "scaled from 2 instances in 40 s" in markdown(sampled)


def test_a_run_is_read_with_its_deciding_verifier_and_its_own_contradictions(tmp_path: Path) -> None:
    def verdict(image: int, verifier: str, status: str) -> VerdictRow:
        row = {"type": "verdict", "cell": CELL, "image": image, "question": f"q{image}", "verifier": verifier}
        made: VerdictRow = typed({**row, "status": status, "times": {"wall_s": 1.0, "start_s": 0.5}})
        return made

    with Writer(tmp_path) as writer:
        writer.append(typed({"type": "session", "cells": [{"name": CELL, "onnx_sha256": "a"}]}))
        writer.append(verdict(1, "ibp", "unknown"), verdict(1, "neuralsat", "unsat"))
        writer.append(verdict(2, "pgd", "sat"), verdict(2, "neuralsat", "unsat"), verdict(3, "neuralsat", "timeout"))
    found, wrong = sides.read_run(tmp_path, {CELL: "a"})
    assert found[CELL, 1] == Found(Status.UNSAT, 3.0, "neuralsat")
    assert found[CELL, 3] == Found(Status.TIMEOUT, 1.5)
    assert wrong == [f"{CELL} image 2: pgd sat, neuralsat unsat, in {tmp_path.name}"]
    with pytest.raises(UserError, match="is about another network"):
        sides.read_run(tmp_path, {CELL: "b"})


def test_names_of_exports_tell_cell_and_image(tmp_path: Path) -> None:
    assert sides.key_of(task(tmp_path, 17)) == (CELL, 17)
    strange = Task("c", tmp_path / "net.onnx", tmp_path / "prop_x.vnnlib", 1.0, "n")
    with pytest.raises(UserError, match="no property that bench"):
        sides.key_of(strange)


def test_samples_are_drawn_by_the_seed(tmp_path: Path) -> None:
    tasks = [task(tmp_path, image) for image in range(9)]
    assert compare._sample(tasks, None, 0) == tasks
    assert compare._sample(tasks, 4, 1) == compare._sample(tasks, 4, 1)
    assert len({tuple(t.name for t in compare._sample(tasks, 4, seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--verifier", "marabou"), r"Unknown verifier with a command line 'marabou'.*Available: abcrown, neuralsat"),
        (("--sides", "loop"), r"--sides 'loop' is refused; name at least two"),
        (("--sides", "loop,rum"), r"Unknown side 'rum'\. Did you mean 'run'"),
        (("--cells", "cnn-tiny*"), r"Unknown cell of suite"),
        (("--cells", "vgg16*"), r"None of the chosen cells of suite 'cifar10-4nets' has a checkpoint"),
        (("--abcrown", "/nowhere"), r"--abcrown /nowhere is refused"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare.main(["--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_the_result_is_written_and_a_contradiction_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = made([side("run", 4.0, i1="sat"), side("loop", 40.0, i1="unsat")], 1)
    assert compare._write(result, tmp_path) == 1
    assert "CONTRADICTION: x" in capsys.readouterr().out
    assert json.loads((tmp_path / "comparison.json").read_text())["kind"] == "comparison"
    assert (tmp_path / "instances.csv").read_text().splitlines()[1].startswith(f"{CELL},1,sat,2.0,run,unsat")
    assert compare._write({**result, "contradictions": []}, tmp_path) == 0
