from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from prunecert.bench import ls
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from tests.bench.results.test_store import fill


def test_everything_is_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert ls.main(["suites", "networks", "objectives", "pruners", "runs", "--runs-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in ("cifar10-4nets", "cnn-small", "wrn-28-4", "crown-ibp", "hydra", "lwm-global"):
        assert re.search(rf"^{name}(\t|$)", printed, re.MULTILINE)


def test_verifiers_are_listed_with_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    ls.main(["verifiers"])
    first, _ = capsys.readouterr().out.split("\n\n")
    lines = dict(line.split("\t", 1) for line in first.splitlines())
    assert lines["fake-missing"].split("\t")[:3] == ["complete", "no", "install fake-missing by hand."]
    assert lines["fake-bound"].split("\t")[:3] == ["incomplete", "yes", "1.0 (tests)"]
    assert lines["ibp"].startswith("incomplete\t")


@pytest.mark.parametrize("what", [["verifiers"], ["verifiers", "settings"], ["settings"]])
def test_every_setting_is_listed_with_default_range_and_meaning(
    capsys: pytest.CaptureFixture[str], what: list[str]
) -> None:
    ls.main(what)
    (*_, last) = printed = capsys.readouterr().out.split("\n\n")
    assert len(printed) == len(set(what) | {"settings"})
    lines = [tuple(line.split("\t")) for line in last.splitlines()]
    assert lines[0] == ("verifier", "setting", "default", "allowed", "meaning")
    assert ("alpha-crown", "iterations", "20", "1 or more", "steps of the optimiser") in lines
    assert ("fake-bound", "share", "0.5", "a number", "of the tests") in lines
    listed = {line[:2] for line in lines[1:]}
    assert listed == {(name, key) for name in VERIFIERS for key in VERIFIERS.get(name).known_settings}


def test_runs_are_listed_whole_or_killed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    whole = tmp_path / "b-whole"
    fill(whole, 1)
    fill(tmp_path / "a-killed", 0)
    (tmp_path / "a-killed" / "instances.main.jsonl").write_text('{"type":"sess')
    (tmp_path / "no-run").mkdir()
    ls.main(["runs", "--runs-dir", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].endswith("killed before it began")
    assert lines[1].split("\t")[1:] == [
        "tiny",
        "default",
        "2026-01-01T00:00:00Z",
        "0",
        "not ended; run the same command again",
    ]
    assert len(lines) == 2


def test_a_run_of_one_verifier_command_is_no_run_that_has_not_ended(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fill(tmp_path / "verified", 1)
    (tmp_path / "verified" / "sparse-bab").mkdir()
    (tmp_path / "verified" / "sparse-bab" / "results.csv").touch()
    ls.main(["runs", "--runs-dir", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[1].endswith("\tresults.csv")


def test_unknown_things_are_refused() -> None:
    with pytest.raises(UserError, match=r"Unknown thing to list 'suits'\. Did you mean 'suites'"):
        ls.main(["suits"])


@pytest.mark.slow
@pytest.mark.parametrize("module", ["bench.ls", "bench.run", "bench.merge"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "usage: prunecert" in process.stdout
