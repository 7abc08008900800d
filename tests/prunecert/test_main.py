from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import prunecert
from prunecert.__main__ import GROUPS, VERBS, main, usage
from tests import house

NO_VERBS = {
    "machine",
    "options",
    "gate_options",
    "retention_options",
    "run_options",
    "search_options",
    "verify_options",
}


def test_every_command_of_bench_is_a_verb() -> None:
    files = {path.stem.replace("_", "-") for path in (house.ROOT / "bench").glob("[a-z]*.py")}
    assert files - {name.replace("_", "-") for name in NO_VERBS} == set(VERBS) - {"verifiers", "normalise"}


def test_every_verb_is_there_and_named_in_a_help_of_80_columns() -> None:
    sources = house.modules()
    for name, verb in VERBS.items():
        module, _, function = verb.target.partition(":")
        assert f"def {function}(" in sources[module].read_text(), name
        assert f"  {name}" in usage()
    assert not [line for line in usage().splitlines() if len(line) > 80]
    assert sum(map(len, GROUPS.values())) == len(VERBS)


def test_the_page_of_concepts_has_every_verb() -> None:
    lines = (house.ROOT / "docs" / "concepts.md").read_text().splitlines()
    first = " ".join(line.split("|")[1] for line in lines if line.startswith("| `prunecert "))
    words = set(first.replace("`", " ").replace(",", " ").split())
    assert set(VERBS) <= words


def test_the_console_script_is_this_command() -> None:
    project = tomllib.loads((house.ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"prunecert": "prunecert.__main__:command"}
    assert project["version"] == prunecert.__version__
    needed = " ".join(project["dependencies"])
    for foreign in ("neuralsat", "foolbox", "torchvision", "pandas", "pyarrow"):
        assert foreign not in needed
    everything = project["optional-dependencies"]["all"][0]
    assert {"neuralsat", "attacks", "site"} <= set(everything.partition("[")[2].rstrip("]").split(","))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, f"prunecert {prunecert.__version__}\n"),
        (["--help"], 0, usage()),
        ([], 2, usage()),
        (["ls", "suites"], 0, "cifar10-4nets"),
    ],
)
def test_what_it_says(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["prunecert", *arguments])
    assert main() == code
    assert said in capsys.readouterr().out


def test_an_unknown_verb_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verfy"]) == 2
    assert "Unknown verb 'verfy'. Did you mean 'verify'?" in capsys.readouterr().err


@pytest.mark.slow
def test_bad_input_of_a_verb_ends_with_2_and_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prunecert", "run", "--suite", "cifar10-5nets"]
    run = subprocess.run(command, cwd=house.ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: Unknown suite 'cifar10-5nets'. Did you mean 'cifar10-4nets'?")
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_plugin_is_imported_before_the_verb(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from prunecert.models import PRUNERS\nPRUNERS.register('mine', 'mine:prune')\n"
        "def prune(model, compression):\n    raise AssertionError\n"
    )
    command = [sys.executable, "-m", "prunecert", "--plugin", "mine", "ls", "pruners"]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(house.ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "mine" in run.stdout
    command[4] = "nobody"
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(house.ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: The plug-in 'nobody' can't be imported")
