from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunecert.errors import UserError
from tests.bench.conftest import CELLS, Zoo
from tests.bench.rowkit import documents

Run = Callable[..., int]


def verdicts(out: Path) -> dict[str, str]:
    return {row["id"]: row["status"] for row in documents(out, "verdict")}


def summary(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return loaded


@pytest.mark.draws
@pytest.mark.processes
def test_a_run_leaves_table_figures_and_page(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run(out, "--images", "12", "--workers", "2") == 0
    printed = capsys.readouterr().out
    assert "prunecert train --suite" in printed
    assert "--cells cnn-small_ibp_eps2_lwm_x20_s0" in printed
    assert "verified %" in printed
    for name in ("report.html", "summary.json", "table.md", "figures/time.png", "figures/verified-accuracy.svg"):
        assert (out / name).is_file()
        assert f"wrote {out / name}" in printed
    written_summary = summary(out)
    assert [cell["name"] for cell in written_summary["cells"]] == list(CELLS)
    dense = written_summary["cells"][0]
    assert dense["clean"]["k"] == dense["images"] == 12
    assert dense["attacked"]["k"] == 12
    by = dense["by_verifier"]
    assert by["fake-bound"]["asked"] == 12
    assert by["fake-complete"]["asked"] == 12 - by["fake-bound"]["unsat"]
    assert dense["verified"]["k"] == by["fake-bound"]["unsat"] + by["fake-complete"]["unsat"]
    assert dense["undecided"]["total"] == dense["undecided"]["timeout"] == by["fake-complete"]["timeout"]
    assert written_summary["finished"]
    # A copy with other checksums may be published, with its fingerprint.
    assert written_summary["publishable"]
    assert not written_summary["data"][0]["official"]
    assert "unofficial copy of CIFAR-10 (its files' checksums are not the published ones); fingerprint" in printed
    assert written_summary["data"][0]["fingerprint"] in printed


@pytest.mark.slow
def test_going_on_does_nothing_twice_and_more_images_extend(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out, "--images", "6")
    before = documents(out, "verdict")
    run(out, "--images", "6")
    assert documents(out, "verdict") == before
    run(out, "--images", "9")
    after = documents(out, "verdict")
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert len({row["id"] for row in after}) == len(after)
    run(out, "--images", "6")
    assert summary(out)["cells"][0]["images"] == 6


@pytest.mark.processes
@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(run: Run, tmp_path: Path) -> None:
    for workers in ("1", "3"):
        assert run(tmp_path / workers, "--images", "14", "--workers", workers) == 0
    assert verdicts(tmp_path / "1") == verdicts(tmp_path / "3")


@pytest.mark.slow
def test_shards_cover_everything_once(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "whole", "--images", "15")
    for number in (1, 2, 3):
        run(tmp_path / "shards", "--images", "15", "--shard", f"{number}/3")
    assert verdicts(tmp_path / "whole") == verdicts(tmp_path / "shards")
    assert summary(tmp_path / "shards")["finished"]
    rows = [row["id"] for row in documents(tmp_path / "shards", "verdict")]
    assert len(rows) == len(set(rows))


def test_a_claimed_counterexample_that_is_none_is_an_error_and_a_verifier_that_never_works_is_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(out, "--images", "3", "--verifiers", "fake-liar", "--cells", "*dense*") == 2
    assert "BROKEN: fake-liar" in capsys.readouterr().out
    cell = summary(out)["cells"][0]
    assert cell["verified"]["k"] == 0
    assert cell["attacked"]["k"] == 3
    assert cell["undecided"]["error"] == 3
    assert "fake-liar error 3" in (out / "table.md").read_text()


@pytest.mark.slow
def test_retry_does_failed_instances_again(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--images", "2", "--verifiers", "fake-liar", "--cells", "*dense*")
    run(out, *options)
    run(out, *options, "--retry", "error")
    rows = documents(out, "verdict")
    assert len(rows) == 4
    assert summary(out)["cells"][0]["by_verifier"]["fake-liar"]["asked"] == 2
    with pytest.raises(UserError, match=r"--retry 'unsat' is refused; allowed are .*error"):
        run(out, "--retry", "unsat")


@pytest.mark.slow
def test_a_contradiction_fails_the_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run(out, "--images", "4") == 0
    log = out / "instances.main.jsonl"
    lines = log.read_text().splitlines()
    proved = next(json.loads(line) for line in lines if '"unsat"' in line)
    broken = {**proved, "id": "f" * 32, "verifier": "other", "status": "sat", "timeout": 99.0}
    log.write_text("\n".join([*lines, json.dumps(broken)]) + "\n")
    assert run(out, "--images", "4") == 1
    assert f"image {proved['image']}: fake-bound proves it, other breaks it" in capsys.readouterr().out
    assert len(summary(out)["contradictions"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--profile", "paperr"), r"Unknown profile 'paperr' of suite 'tiny'"),
        (("--cells", "cnn-tiny*"), r"Unknown cell 'cnn-tiny\*' of suite 'tiny'"),
        (("--verifiers", "fake-bond"), r"Unknown verifier 'fake-bond'\. Did you mean 'fake-bound'"),
        (("--verifiers", "fake-missing"), r"install fake-missing by hand"),
        (("--verifiers", "neuralsat"), r"no time limit for 'neuralsat'"),
        (("--device", "cuda"), r"Device 'cuda' is refused"),
        (("--abcrown", "/nowhere"), r"--abcrown /nowhere is refused"),
        (("--cells", "*x20*"), r"No cell of suite 'tiny' has a checkpoint"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    run: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_missing_verifiers_are_left_out_on_request_and_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--images", "2", "--verifiers", "fake-bound,fake-missing")
    assert run(tmp_path / "run", *options, "--skip-unavailable") == 0
    assert "left out: fake-missing (install fake-missing by hand.)" in capsys.readouterr().out
    assert summary(tmp_path / "run")["skipped"] == {"fake-missing": "install fake-missing by hand."}


def test_a_directory_of_another_suite_is_refused(run: Run, zoo: Zoo, tmp_path: Path) -> None:
    run(tmp_path / "run", "--images", "1")
    other = tmp_path / "other.yaml"
    other.write_text(zoo.suite.read_text().replace("name: tiny", "name: other"))
    with pytest.raises(UserError, match="holds results of suite 'tiny', not 'other'"):
        run(tmp_path / "run", "--suite", str(other))


def test_a_truncated_checkpoint_is_refused(run: Run, zoo: Zoo, tmp_path: Path) -> None:
    shutil.copytree(zoo.checkpoints, tmp_path / "zoo")
    path = tmp_path / "zoo" / f"{CELLS[1]}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated"):
        run(tmp_path / "run", "--checkpoints", str(tmp_path / "zoo"))
    path.unlink()
    with pytest.raises(UserError, match="is missing, though its card is there"):
        run(tmp_path / "run", "--checkpoints", str(tmp_path / "zoo"))


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunecert.bench.results.store import Writer

    real, left = Writer.append, 6

    def full(self: Writer, *rows: dict[str, Any]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        real(self, *rows)

    monkeypatch.setattr(Writer, "append", full)
    with pytest.raises(OSError, match="No space left") as caught:
        run(tmp_path / "run", "--images", "12")
    assert caught.value.errno == errno.ENOSPC
    kept = verdicts(tmp_path / "run")
    assert kept
    monkeypatch.undo()
    assert run(tmp_path / "run", "--images", "12") == 0
    assert kept.items() <= verdicts(tmp_path / "run").items()


def test_dry_run_writes_nothing(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "run", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert f"{CELLS[0]}: 40 images, fake-bound* (5 s) → fake-complete (5 s)" in printed
    assert not (tmp_path / "run").exists()


# --- in a process of its own ---


def start(zoo: Zoo, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bench.fake_run", *zoo.arguments(out, "--workers", "2", *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )


def slow_suite(zoo: Zoo, tmp_path: Path, delay: float = 0.05) -> Path:
    """A suite whose verifiers take their time, so that there is something to be killed."""
    path = tmp_path / "slow.yaml"
    settings = f"  settings: {{fake-bound: {{delay: 0.05}}, fake-complete: {{delay: {delay}}}}}\nprofiles:"
    path.write_text(zoo.suite.read_text().replace("profiles:", settings))
    return path


def wait_for_rows(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    log = out / "instances.main.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_bytes().count(b'"verdict"') >= count):
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigkill_at_random_moments_loses_nothing(run: Run, zoo: Zoo, tmp_path: Path) -> None:
    words = ("--suite", str(slow_suite(zoo, tmp_path)), "--images", "20")
    assert run(tmp_path / "calm", *words) == 0
    expected = verdicts(tmp_path / "calm")
    rng = random.Random(7)
    killed = tmp_path / "killed"
    kills = 0
    for _ in range(3):
        have = len(verdicts(killed)) if killed.exists() else 0
        process = start(zoo, killed, *words)
        wait_for_rows(killed, min(have + rng.randrange(1, 16), len(expected) - 1), process)
        time.sleep(rng.uniform(0, 0.08))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        if rng.random() < 0.5:  # what a kill in the middle of a write leaves
            with (killed / "instances.main.jsonl").open("a") as stream:
                stream.write('{"type":"verdict","id":"12')
    assert kills == 3
    last = start(zoo, killed, *words)
    out, _ = last.communicate(timeout=300)
    assert last.returncode == 0, out
    assert verdicts(killed) == expected
    ids = [row["id"] for row in documents(killed, "verdict")]
    assert len(ids) == len(set(ids))
    stable = ("verified", "attacked", "clean", "undecided", "decided_by", "finished")
    cells = [
        [{key: cell[key] for key in stable} for cell in summary(run)["cells"]] for run in (killed, tmp_path / "calm")
    ]
    assert cells[0] == cells[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_within_seconds_with_children_and_can_go_on(
    zoo: Zoo, tmp_path: Path, number: signal.Signals
) -> None:
    import psutil

    suite = slow_suite(zoo, tmp_path, delay=4.0)
    process = start(zoo, tmp_path / "run", "--suite", str(suite), "--images", "8")
    wait_for_rows(tmp_path / "run", 16, process)
    time.sleep(1.0)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    began = time.monotonic()
    process.send_signal(number)
    printed, _ = process.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert process.returncode == 130, printed
    assert "interrupted: finished results are kept" in printed
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    rows = documents(tmp_path / "run", "verdict")
    assert rows
    assert all(row["status"] != "error" for row in rows)


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_end_the_run(zoo: Zoo, tmp_path: Path) -> None:
    process = start(zoo, tmp_path / "run", "--images", "4")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert summary(tmp_path / "run")["finished"]


@pytest.mark.slow
def test_two_runs_in_one_directory_are_refused(run: Run, zoo: Zoo, tmp_path: Path) -> None:
    suite = str(slow_suite(zoo, tmp_path, delay=4.0))
    first = start(zoo, tmp_path / "run", "--suite", suite)
    wait_for_rows(tmp_path / "run", 1, first)
    try:
        with pytest.raises(UserError, match=r"is in use: another run is writing instances\.main\.jsonl"):
            run(tmp_path / "run", "--suite", suite)
    finally:
        first.kill()
        first.communicate()
