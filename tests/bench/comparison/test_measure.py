from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from prunecert.bench.comparison import measure
from prunecert.bench.comparison.measure import Meter


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_command_ends_with_its_status_its_output_and_its_time(tmp_path: Path) -> None:
    with Meter() as meter:
        ended = meter.run(
            python("import os, sys; print(os.getcwd(), os.environ['WORD']); sys.exit(3)"),
            log=tmp_path / "logs" / "out.log",
            folder=tmp_path,
            environment={"WORD": "seven"},
        )
    assert ended.code == 3
    assert 0 < ended.seconds < 30
    assert (tmp_path / "logs" / "out.log").read_text().split() == [str(tmp_path.resolve()), "seven"]


def test_a_signal_is_no_exit_status(tmp_path: Path) -> None:
    with Meter() as meter:
        ended = meter.run(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), log=tmp_path / "log")
    assert ended.code == -9


@pytest.mark.slow
def test_at_its_limit_a_command_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
    )
    with Meter() as meter:
        ended = meter.run(python(code), log=tmp_path / "log", limit_s=0.7)
    assert ended.code is None
    assert 0.7 <= ended.seconds < 20
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def test_the_peak_is_of_all_commands_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_POLL_S", 0.02)
    code = "import time; block = bytearray(40 << 20); block[::4096] = b'x' * len(block[::4096]); time.sleep(0.5)"
    with Meter() as meter:
        threads = [
            threading.Thread(target=meter.run, args=(python(code),), kwargs={"log": tmp_path / f"{number}"})
            for number in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert meter.peak_mb > 80


def test_leaving_the_meter_ends_what_still_runs(tmp_path: Path) -> None:
    meter = Meter()
    ends: list[int | None] = []
    with meter:
        thread = threading.Thread(
            target=lambda: ends.append(meter.run(python("import time; time.sleep(60)"), log=tmp_path / "log").code)
        )
        thread.start()
        while not meter._roots:
            time.sleep(0.01)
    thread.join(10)
    assert ends == [-9]
