from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from prunecert.bench.comparison import launch, loop
from prunecert.bench.comparison.measure import Ended, Meter
from prunecert.errors import UserError
from prunecert.verifiers.base import Status
from tests.bench.comparison.sidekit import task


class Tool(loop.NeuralSatCommand):
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
    order: list[int] = []
    with Meter() as meter:
        answers = loop.run_loop(
            Tool(tmp_path),
            tasks,
            tmp_path / "out",
            meter,
            workers=2,
            threads=1,
            on_answer=lambda n, *_: order.append(n),
        )
    words = [answer.status for answer in answers]
    assert words == [Status.UNSAT, Status.SAT, Status.ERROR, Status.TIMEOUT, Status.ERROR]
    assert answers[2].detail == "its result file says 'safe', exit status 0"
    assert answers[4].detail == "it wrote no result file, exit status 0"
    assert 5.0 <= answers[3].seconds < 30
    assert sorted(order) == [0, 1, 2, 3, 4]
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
