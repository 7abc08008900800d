"""The supervisor tells how its verifier ended, keeps the end of its output, and leaves nobody behind."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pytest

import prunecert
from prunecert.verifiers.process import supervisor
from prunecert.verifiers.process.supervisor import Supervisor, children

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"), pytest.mark.timeout(60)]


def printed(*chunks: bytes, log: BinaryIO | None = None, room: int = 1000) -> Supervisor:
    """A supervisor of nobody, which has drained what was printed."""
    output, source = os.pipe()
    os.set_blocking(output, False)
    subject = Supervisor(0, output, -1, -1, log, room)
    for chunk in chunks:
        os.write(source, chunk)
        assert subject.drain()
    os.close(source)
    assert not subject.drain()
    os.close(output)
    return subject


def test_the_tail_is_the_last_lines_whatever_they_hold() -> None:
    subject = printed(b"first\n", *(f"line {n}\n".encode() for n in range(50)), b"\xff\xfe end")
    lines = subject.tail_text().split("\n")
    assert len(lines) == 40
    assert lines[0] == "line 11"
    assert lines[-1].endswith(" end")
    flood = printed(*[b"x" * 50_000] * 3, b"\nlast")
    assert flood.tail_text().endswith("x\nlast")
    assert len(flood.tail) == 16_384


def test_the_log_has_no_more_than_its_room() -> None:
    log = io.BytesIO()
    printed(b"abcd", b"efgh", b"ijkl", log=log, room=10)
    assert log.getvalue() == b"abcdefghij\n[output beyond this size is not kept]\n"
    exact = io.BytesIO()
    printed(b"abcd", log=exact, room=5)
    assert exact.getvalue() == b"abcd"


def test_a_full_disk_stops_nothing() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    assert printed(b"one\n", b"two\n", log=Full()).tail_text() == "one\ntwo"


def test_a_parent_that_has_gone_needs_to_know_nothing() -> None:
    incoming, status = os.pipe()
    subject = Supervisor(0, -1, -1, status, None, 0)
    subject.send({"pid": 3})
    assert os.read(incoming, 100) == b'{"pid": 3}\n'
    os.close(incoming)
    subject.send({"pid": 3})
    os.close(status)


def test_children_are_those_of_all_threads() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        assert child.pid in children(os.getpid())
        assert children(child.pid) == []
        child.kill()
    assert child.pid not in children(os.getpid())
    assert children(2**22 + 1) == []


class Supervised:
    """A supervisor as the parent starts it; its verifier process waits for a request that never comes."""

    def __init__(self, log: Path | None = None) -> None:
        request, self.request = os.pipe()
        self.reply, reply = os.pipe()
        control, self.control = os.pipe()
        self.status, status = os.pipe()
        ends = (request, reply, control, status)
        config = {
            **dict(zip(("request", "reply", "control", "status"), ends, strict=True)),
            "log": None if log is None else str(log),
            "log_limit": 10**6,
            "cores": None,
            "sys_path": [str(Path(prunecert.__file__).parents[1]), *sys.path],
        }
        command = [sys.executable, "-P", supervisor.__file__, json.dumps(config)]
        self.popen = subprocess.Popen(command, pass_fds=ends, start_new_session=True)
        for fd in ends:
            os.close(fd)
        self.lines = os.fdopen(self.status, "rb")
        self.pid: int = self.message()["pid"]

    def message(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.lines.readline())
        return data

    def end(self) -> dict[str, Any]:
        """Waits for its last message, and for its own end."""
        data = self.message()
        assert self.popen.wait(10) == 0
        assert self.lines.read() == b""
        return data

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self.lines.close()
        for fd in (self.request, self.reply, self.control):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    subject = Supervised(tmp_path / "x.log")
    yield subject
    subject.close()
    assert not psutil.pid_exists(subject.pid)


@pytest.mark.parametrize(
    ("command", "signum"), [(b"K", signal.SIGKILL), (b"T", signal.SIGTERM), (b"TK", signal.SIGKILL)]
)
def test_it_ends_as_it_is_told(command: bytes, signum: int, supervised: Supervised) -> None:
    for _ in range(200):
        # In its first moment the verifier ignores SIGTERM, as what it was forked from does.
        os.write(supervised.control, command)
        if select.select([supervised.status], [], [], 0.05)[0]:
            break
    assert supervised.end()["exit"] == signum


def test_the_parent_s_end_is_the_end_of_all(supervised: Supervised) -> None:
    os.close(supervised.control)
    supervised.control = -1
    status = supervised.end()["exit"]
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_verifier_that_ends_by_itself_has_its_exit_code(supervised: Supervised) -> None:
    os.close(supervised.request)
    supervised.request = -1
    assert supervised.end() == {"exit": 0, "tail": ""}


def test_signals_from_a_terminal_are_not_for_it(supervised: Supervised) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(supervised.popen.pid, signum)
    os.write(supervised.control, b"L")
    assert supervised.message() == {"tail": ""}
    assert supervised.popen.poll() is None
    # A death of which nobody was told: the process is reaped, and named by its signal.
    os.kill(supervised.pid, signal.SIGSEGV)
    assert os.WTERMSIG(supervised.end()["exit"]) == signal.SIGSEGV


def test_what_it_prints_goes_to_the_log_and_to_the_tail(supervised: Supervised, tmp_path: Path) -> None:
    os.write(supervised.request, b"not a request" * 10)
    message = supervised.end()
    assert os.WEXITSTATUS(message["exit"]) == 1
    assert "Error" in message["tail"]
    assert message["tail"].splitlines()[-1] == (tmp_path / "x.log").read_text().splitlines()[-1]
