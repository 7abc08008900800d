"""Bad input of distributed runs gives one clear sentence and exit code 2, in a process of its own as users have it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prunecert.errors import EXIT_USAGE, UserError
from tests.bench.conftest import Zoo

Run = Callable[..., int]


def refused(*command: str, **environment: str) -> str:
    """Runs a command that must be refused; returns what it says."""
    process = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert process.returncode == EXIT_USAGE, process.stderr
    assert "Traceback" not in process.stderr
    return process.stderr


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "1/0", "-1/2", "a/b"])
def test_a_shard_out_of_range(run: Run, tmp_path: Path, shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "run", f"--shard={shard}")
    assert caught.value.code == EXIT_USAGE
    assert f"argument --shard: '{shard}' is refused; write I/N with I from 1 to N, e.g. 2/8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_merge_of_shards_of_different_suites(run: Run, zoo: Zoo, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(zoo.suite.read_text().replace("name: tiny", "name: other"))
    options = ("--images", "2", "--cells", "*dense*", "--verifiers", "fake-bound")
    run(tmp_path / "one", *options, "--shard", "1/2")
    run(tmp_path / "two", *options, "--shard", "2/2", "--suite", str(other))
    said = refused("bench.merge", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "joined"))
    assert said.strip().splitlines() == [
        f"error: {tmp_path / 'two'} cannot be joined with {tmp_path / 'one'}: their suite differ ('other' and 'tiny'); "
        "only parts of the same run can be joined."
    ]
    assert not (tmp_path / "joined").exists()


@pytest.mark.slow
def test_a_worker_without_the_data(run: Run, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = tmp_path / "nowhere"
    arguments = zoo.arguments(tmp_path / "run", "--shard", "1/2", "--data-root", str(nowhere))
    said = refused("tests.bench.fake_run", *arguments)
    assert len(said.strip().splitlines()) == 1
    assert f"--data-root is '{nowhere}', which holds no CIFAR-10" in said
    # Where none is named and none can be had, the built-in sample must not stand in on one machine of several.
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    monkeypatch.setattr("prunecert.models.data._find", lambda root: None)
    monkeypatch.setattr("prunecert.models.data._download", lambda folder: (None, "no network"))
    with pytest.raises(UserError, match=r"CIFAR-10 \(test split\) is needed and no copy was found"):
        run(tmp_path / "run", "--shard", "1/2")
    assert not (tmp_path / "run").exists()
