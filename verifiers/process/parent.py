"""The parent's hold on one supervised verifier process: messages, limits, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import psutil

import prunecert
from prunecert.verifiers.process import supervisor
from prunecert.verifiers.process.child import HEADER, MAGIC, frame

FailureKind = Literal["timeout", "memory", "crash", "error", "unsupported"]

#: What a process is asked to do, and how that is said.
_WORDS = {
    "start": "starting",
    "inspect": "reading the network",
    "read": "reading the network",
    "load": "loading the network",
    "solve": "solving",
    "certify": "writing a certificate",
}
_LOG_LIMIT = 64 * 2**20
_MESSAGE_LIMIT = 2**31
_POLL_S = 0.1
_BRIEF_S = 5.0


class ProcessError(Exception):
    """A question that got no usable answer.

    Args:
        kind: ``timeout``, ``memory``, ``crash`` (it died or broke the protocol), ``error`` (it raised or returned
            nonsense), ``unsupported``.
        detail: One sentence.
        fatal: Whether the process is gone or must go.
        wall_s: Seconds from the question to the failure.
        peak_mb: Highest resident size seen, MiB.
        tail: Last lines of its output.
    """

    def __init__(
        self, kind: FailureKind, detail: str, *, fatal: bool, wall_s: float, peak_mb: float | None, tail: str
    ) -> None:
        super().__init__(detail)
        self.kind: FailureKind = kind
        self.detail = detail
        self.fatal = fatal
        self.wall_s = wall_s
        self.peak_mb = peak_mb
        self.tail = tail


class _PlainUnpickler(pickle.Unpickler):
    """Reads built-in types only."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


class Process:
    """One supervised verifier process.

    Args:
        log: File to which its output is appended.
        threads: Threads for numerical libraries, or None.
        memory_limit_mb: Limit on the resident size of the whole tree, MiB, or None.
        cores: Processors to which it and all below it are confined, or None.
    """

    def __init__(
        self,
        *,
        log: Path | None,
        threads: int | None,
        memory_limit_mb: int | None,
        cores: Sequence[int] | None = None,
    ) -> None:
        begin = time.perf_counter()
        self._memory_limit_mb = memory_limit_mb
        self.peak_mb: float | None = None
        self.pid: int | None = None
        self._exit: int | None = None
        self._exited = False
        self._tail: str | None = None
        self._status_buffer = b""
        self._closing = threading.Lock()
        self._closed = False
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        request, self._request = os.pipe()
        self._reply, reply = os.pipe()
        control, self._control = os.pipe()
        self._status, status = os.pipe()
        ends = (request, reply, control, status)
        config = {
            "request": request,
            "reply": reply,
            "control": control,
            "status": status,
            "log": None if log is None else str(log.resolve()),
            "log_limit": _LOG_LIMIT,
            "cores": None if cores is None else list(cores),
            "sys_path": [str(Path(prunecert.__file__).parents[1]), *(path or str(Path.cwd()) for path in sys.path)],
        }
        environment = dict(os.environ)
        # Read when torch is imported: later is too late.
        environment["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"] = "0"
        environment["NVIDIA_TF32_OVERRIDE"] = "0"
        environment.setdefault("PYTHONFAULTHANDLER", "1")
        if threads is not None:
            for name in (
                "OMP_NUM_THREADS",
                "MKL_NUM_THREADS",
                "OPENBLAS_NUM_THREADS",
                "NUMEXPR_NUM_THREADS",
                "NUMBA_NUM_THREADS",
            ):
                environment[name] = str(threads)
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", supervisor.__file__, json.dumps(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=ends,
                env=environment,
                # Ctrl-C at a terminal goes to us, not to it: we end it.
                start_new_session=True,
            )
        finally:
            for fd in ends:
                os.close(fd)
        for fd in (self._request, self._reply, self._status):
            os.set_blocking(fd, False)
        self.spawn_s = time.perf_counter() - begin

    def alive(self) -> bool:
        """Whether the verifier process is still there, as far as the supervisor has told."""
        self._read_status()
        return not self._exited

    def tail(self) -> str:
        """Returns the last lines of the verifier's output."""
        if not self._exited:
            self._tail = None
            with contextlib.suppress(BrokenPipeError):
                os.write(self._control, b"L")
            deadline = time.monotonic() + _BRIEF_S
            while self._tail is None and not self._exited and time.monotonic() < deadline:
                self._wait_status(deadline - time.monotonic())
        return self._tail or ""

    def resident_mb(self) -> float:
        """Returns the resident size of the verifier process and all below it, summed, MiB."""
        total = 0
        waiting = supervisor.children(self._popen.pid)
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
            waiting += supervisor.children(pid)
        size = total / 2**20
        self.peak_mb = max(size, self.peak_mb or 0.0)
        return size

    def ask(
        self,
        action: str,
        arguments: tuple[Any, ...],
        limit_s: float,
        grace_s: float,
        memory_mb: float | None = None,
    ) -> tuple[Any, float]:
        """Sends a request and waits for its answer.

        Args:
            action: A key of `_WORDS`.
            arguments: The request's arguments.
            limit_s: Seconds that the answer may take.
            grace_s: At `limit_s` and half of this SIGTERM is sent, at `limit_s` and all of this SIGKILL.
            memory_mb: Limit on the resident size while it is answered, MiB, beside the process's own; None for none.

        Returns:
            The answer and the seconds that it took.

        Raises:
            ProcessError: There is none, or it says that the verifier failed.
        """
        begin = time.monotonic()
        outgoing = memoryview(frame((action, arguments)))
        incoming = bytearray()
        term_at: float | None = begin + limit_s + grace_s / 2
        kill_at = begin + limit_s + grace_s
        what = _WORDS[action]
        limits = [float(limit) for limit in (self._memory_limit_mb, memory_mb) if limit is not None]
        most_mb = min(limits, default=None)
        next_poll = begin + _POLL_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._reply, selectors.EVENT_READ)
            selector.register(self._status, selectors.EVENT_READ)
            selector.register(self._request, selectors.EVENT_WRITE)
            while True:
                now = time.monotonic()
                if now >= kill_at or (self._exited and term_at is None):
                    self._end()
                    detail = f"killed: {what} took longer than the limit of {limit_s:g} s and its grace period"
                    raise self._failure("timeout", detail, begin)
                if term_at is not None and now >= term_at:
                    term_at = None
                    with contextlib.suppress(BrokenPipeError):
                        os.write(self._control, b"T")
                if now >= next_poll:
                    next_poll = now + _POLL_S
                    size = self.resident_mb()
                    if most_mb is not None and size > most_mb:
                        self._end()
                        detail = f"killed: {size:.0f} MiB resident while {what}, the limit is {most_mb:.0f}"
                        raise self._failure("memory", detail, begin)
                wake = min(kill_at, next_poll, kill_at if term_at is None else term_at)
                readable = False
                for key, _ in selector.select(max(0.0, wake - now)):
                    if key.fd == self._request:
                        try:
                            outgoing = outgoing[os.write(self._request, outgoing[: 1 << 20]) :]
                        except BlockingIOError:
                            continue
                        except BrokenPipeError:
                            outgoing = outgoing[:0]
                        if not outgoing:
                            selector.unregister(self._request)
                    elif key.fd == self._reply:
                        readable = True
                        chunk = os.read(self._reply, 1 << 20)
                        incoming += chunk
                        if not chunk:
                            selector.unregister(self._reply)
                    else:
                        self._read_status()
                if readable or self._exited:
                    answer = self._parse(incoming, begin, what)
                    if answer is not None:
                        return self._accept(answer, begin)
                if self._exited and term_at is not None:
                    raise self._death(begin, what)

    def _parse(self, incoming: bytearray, begin: float, what: str) -> dict[str, Any] | None:
        """Returns a complete answer, or None while it is incomplete."""
        if len(incoming) < HEADER.size and MAGIC.startswith(bytes(incoming[: len(MAGIC)])):
            return None
        reason = "a wrong start"
        if incoming[: len(MAGIC)] == MAGIC:
            if len(incoming) < HEADER.size:
                return None
            _, length, checksum = HEADER.unpack_from(incoming)
            if length > _MESSAGE_LIMIT:
                reason = f"a length of {length}"
            elif len(incoming) < HEADER.size + length:
                return None
            else:
                payload = bytes(incoming[HEADER.size :])
                reason = "trailing or altered bytes"
                if len(payload) == length and zlib.crc32(payload) == checksum:
                    try:
                        answer = _PlainUnpickler(BytesIO(payload)).load()
                    except Exception as error:
                        # A pickle that is no pickle can raise nearly anything.
                        reason = f"unreadable data ({error})"
                    else:
                        if isinstance(answer, dict):
                            return answer
                        reason = "no answer"
        self._end()
        raise self._failure("crash", f"the worker sent a message that makes no sense while {what}: {reason}", begin)

    def _accept(self, answer: dict[str, Any], begin: float) -> tuple[Any, float]:
        if answer["ok"]:
            return answer, time.monotonic() - begin
        kind: FailureKind = answer["kind"]
        raise self._failure(kind, answer["text"], begin, fatal=False)

    def _failure(self, kind: FailureKind, detail: str, begin: float, fatal: bool = True) -> ProcessError:
        wall_s = time.monotonic() - begin
        return ProcessError(kind, detail, fatal=fatal, wall_s=wall_s, peak_mb=self.peak_mb, tail=self.tail())

    def _death(self, begin: float, what: str) -> ProcessError:
        """Names how the process died by itself."""
        status, tail = self._exit, self.tail()
        if status is None:
            return self._failure("crash", f"the worker's supervisor ended while {what}", begin)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            try:
                name = signal.Signals(number).name
            except ValueError:
                name = f"signal {number}"
            if number == signal.SIGABRT and "std::bad_alloc" in tail:
                return self._failure("memory", f"std::bad_alloc while {what} (ended by {name})", begin)
            hint = "; not by this program: by somebody else or by the kernel for want of memory"
            detail = f"ended by {name} while {what}{hint if number == signal.SIGKILL else ''}"
            return self._failure("crash", detail, begin)
        return self._failure("crash", f"ended with exit code {os.WEXITSTATUS(status)} while {what}", begin)

    def _read_status(self) -> None:
        """Takes what the supervisor has said."""
        if self._exited or self._closed:
            return
        while True:
            try:
                chunk = os.read(self._status, 65_536)
            except BlockingIOError:
                break
            if not chunk:
                self._exited = True
                break
            self._status_buffer += chunk
        *lines, self._status_buffer = self._status_buffer.split(b"\n")
        for line in lines:
            message = json.loads(line)
            self.pid = message.get("pid", self.pid)
            self._tail = message.get("tail", self._tail)
            if "exit" in message:
                self._exit = message["exit"]
                self._exited = True

    def _wait_status(self, timeout_s: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._status, selectors.EVENT_READ)
            if selector.select(max(0.0, timeout_s)):
                self._read_status()

    def kill(self) -> None:
        """Asks for the end of the process and all below it; may be called from any thread."""
        with self._closing:
            if not self._closed:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._control, b"K")

    def _end(self) -> None:
        """Kills and waits until the supervisor has told that nothing is left."""
        self.kill()
        deadline = time.monotonic() + _BRIEF_S
        while not self._exited and time.monotonic() < deadline:
            self._wait_status(deadline - time.monotonic())

    def close(self) -> None:
        """Kills the process and all below it and gives back all that it held."""
        self._end()
        with self._closing:
            if self._closed:
                return
            self._closed = True
            for fd in (self._request, self._reply, self._control, self._status):
                os.close(fd)
        try:
            self._popen.wait(_BRIEF_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
