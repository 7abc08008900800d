"""The default run: quick tests, on several cores, and how many slow ones are left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests import conftest

CASES = """
import pytest
def test_a(): pass
@pytest.mark.slow
@pytest.mark.parametrize("number", range(1200))
def test_b(number): pass
"""


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    shutil.copy(conftest.__file__, tmp_path / "tests" / "conftest.py")
    (tmp_path / "tests" / "test_x.py").write_text(CASES)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\nmarkers = slow\naddopts = -p no:cacheprovider -n auto -m 'not slow'\n"
    )
    return tmp_path


def said(project: Path, *arguments: str) -> str:
    """What pytest says, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-p", "xdist.plugin", *arguments]
    run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", [["tests"], ["-n", "0", "-k", "a"], ["-n", "1"]])
def test_it_says_how_many_tests_are_left_out(project: Path, how: list[str]) -> None:
    shown = said(project, *how)
    assert "1,200 slow tests left out: tox or -m '' runs them" in shown
    assert "1 passed" in shown
    assert ("1 worker" in shown) == ("1" in how)


def test_all_tests_leave_none_out(project: Path) -> None:
    assert "left out" not in said(project, "-n", "0", "-m", "", "--co", "-q")


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 2), (3, 3), (64, conftest.MOST_WORKERS)])
def test_all_tests_take_a_worker_a_core(
    cores: int, workers: int, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr(pytestconfig, "args_source", pytest.Config.ArgsSource.TESTPATHS)
    assert conftest.pytest_xdist_auto_num_workers(pytestconfig) == workers
    monkeypatch.setattr(pytestconfig, "args_source", pytest.Config.ArgsSource.ARGS)
    assert conftest.pytest_xdist_auto_num_workers(pytestconfig) == 0


@pytest.mark.parametrize(("marks", "examples"), [(conftest.QUICK, conftest.EXAMPLES), ("", 100)])
def test_a_plain_run_draws_fewer_examples(
    marks: str, examples: int, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings.get_current_profile_name()
    monkeypatch.setattr(pytestconfig.option, "markexpr", marks)
    monkeypatch.setattr(pytestconfig.option, "hypothesis_profile", None)
    try:
        conftest.pytest_configure(pytestconfig)
        assert (settings().max_examples, settings().deadline) == (examples, None)
    finally:
        settings.load_profile(before)
