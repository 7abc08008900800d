"""The parent's hold on a process: only whole messages of plain data count, limits hold, and deaths are named."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import signal
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.process.child import HEADER, MAGIC, frame
from prunecert.verifiers.process.parent import Process, ProcessError
from tests.verifiers import onnxnets

MESSAGES: list[Any] = [
    {"ok": True},
    {"ok": True, "verdicts": [{"status": "unsat", "bounds": (1.0, -0.5), "witness": ((2,), b"\0" * 8)}]},
    {"ok": False, "kind": "error", "text": "ValueError: x" * 50},
]


class Listener(Process):
    """The reading of answers alone, without a process."""

    def __init__(self) -> None:
        self.ended = False
        self.peak_mb = None

    def _end(self) -> None:
        self.ended = True

    def tail(self) -> str:
        return ""

    def take(self, data: bytes) -> dict[str, Any] | None:
        return self._parse(bytearray(data), time.monotonic(), "solving")


def refused(data: bytes, why: str = "") -> None:
    subject = Listener()
    with pytest.raises(ProcessError, match=f"makes no sense while solving: .*{why}") as caught:
        subject.take(data)
    assert (caught.value.kind, caught.value.fatal) == ("crash", True)
    assert subject.ended


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_counts_when_it_is_whole(message: Any) -> None:
    data = frame(message)
    for size in range(len(data)):
        assert Listener().take(data[:size]) is None
    assert Listener().take(data) == message


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_that_was_altered_never_counts(message: Any, data: st.DataObject) -> None:
    raw = bytearray(frame(message))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    subject = Listener()
    if place in range(4, 12) and raw[4:12][::-1] > frame(message)[4:12][::-1]:
        # A length that grew may be waited for; the limit ends that.
        with contextlib.suppress(ProcessError):
            assert subject.take(bytes(raw)) is None
    else:
        refused(bytes(raw))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"sat\n", "a wrong start"),
        (b"PCw2" + frame({})[4:], "a wrong start"),
        (frame({"ok": True}) + b"x", "trailing or altered bytes"),
        (frame({"ok": True}) * 2, "trailing or altered bytes"),
        (HEADER.pack(MAGIC, 2**31 + 1, 0), "a length of 2147483649"),
        (frame([1, 2]), "no answer"),
        (frame("unsat"), "no answer"),
    ],
)
def test_what_is_no_message_ends_the_process(data: bytes, why: str) -> None:
    refused(data, why)


def framed(payload: bytes) -> bytes:
    return HEADER.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


class Trap:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("message", [Trap(), {"ok": Trap()}, Path("x"), collections.OrderedDict(), {"ok": print}])
def test_nothing_but_plain_data_is_unpickled(message: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(framed(pickle.dumps(message)), "unreadable data")
    assert not list(tmp_path.iterdir())
    refused(framed(b"no pickle"), "unreadable data")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    subject = Process(log=tmp_path / "logs" / "x.log", threads=1, memory_limit_mb=None)
    yield subject
    subject.close()
    assert not psutil.pid_exists(subject._popen.pid)


def test_questions_are_answered_and_failures_leave_the_process_alive(process: Process, tmp_path: Path) -> None:
    path = onnxnets.residual(tmp_path / "n.onnx")
    reply, wall_s = process.ask("inspect", (str(path), (), None), 30.0, 1.0)
    assert reply["ok"]
    assert reply["outputs"] == 10
    assert 0 < wall_s < 30
    assert process.pid is not None
    assert process.peak_mb is None or process.peak_mb > 0
    with pytest.raises(ProcessError) as caught:
        process.ask("start", ("json", "nothing", {}, "cpu"), 30.0, 1.0)
    failure = caught.value
    assert (failure.kind, failure.fatal) == ("error", False)
    assert failure.detail.startswith("AttributeError")
    assert "Traceback" in failure.tail
    assert process.alive()
    assert process.resident_mb() > 10
    assert "AttributeError" in (tmp_path / "logs" / "x.log").read_text()
    # Whoever kills it from outside is not mistaken for this program.
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessError) as caught:
        process.ask("inspect", (str(path), (), None), 30.0, 1.0)
    failure = caught.value
    assert (failure.kind, failure.fatal) == ("crash", True)
    assert failure.detail.startswith("ended by SIGKILL while reading the network; not by this program")
    assert not process.alive()
    process.close()
    process.close()


def test_limits_on_time_and_memory_hold(tmp_path: Path) -> None:
    path = onnxnets.residual(tmp_path / "n.onnx")
    for memory_mb, limit_s, kind, why in (
        (1.0, 60.0, "memory", r"killed: \d+ MiB resident while reading the network, the limit is 1"),
        (None, 0.05, "timeout", "killed: reading the network took longer than the limit of 0.05 s"),
    ):
        subject = Process(log=None, threads=1, memory_limit_mb=None)
        begin = time.monotonic()
        with pytest.raises(ProcessError, match=why) as caught:
            # The imports alone take longer, and more.
            subject.ask("inspect", (str(path), (), None), limit_s, 0.1, memory_mb)
        assert (caught.value.kind, caught.value.fatal) == (kind, True)
        assert time.monotonic() - begin < 30
        assert not subject.alive()
        subject.close()


def test_threads_and_cores_are_set_where_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    class Started(Exception):  # noqa: N818 - ends the start
        pass

    def popen(command: list[str], **options: Any) -> Any:
        calls.append({"command": command, **options})
        raise Started

    before = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    monkeypatch.setattr("subprocess.Popen", popen)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for threads in (3, None):
        with pytest.raises(Started):
            Process(log=None, threads=threads, memory_limit_mb=None, cores=[0])
    three, free = (call["env"] for call in calls)
    assert three["OMP_NUM_THREADS"] == three["MKL_NUM_THREADS"] == three["NUMBA_NUM_THREADS"] == "3"
    assert free["OMP_NUM_THREADS"] == "7"
    assert three["NVIDIA_TF32_OVERRIDE"] == "0"
    assert '"cores": [0]' in calls[0]["command"][-1]
    assert calls[0]["start_new_session"]
    if sys.platform == "linux":
        # Of eight ends four are the child's, which are closed though it never started; the others are ours.
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 2 * 4
