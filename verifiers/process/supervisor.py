"""The process between a `Worker` and its verifier: it starts the verifier, drains its output, and leaves nobody behind.

Run as a script by `verifiers.process.worker` with one JSON argument; it imports nothing but the standard library, so
that it is up in milliseconds and forks with a single thread. It is the sub-reaper of everything below it (Linux): a
process that a verifier forks, even into a session of its own, becomes a child of this one when its parent dies, and is
killed with the rest. It ends when told to, when its verifier ends, or when the process that started it is gone.

Control bytes from the parent: ``T`` SIGTERM to the verifier's process group, ``K`` or end of file: SIGKILL to all that
is below, ``L``: send the tail of the output. Replies are JSON lines.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

_TAIL_BYTES = 16_384
_TAIL_LINES = 40
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Returns the pids of a process's children, from ``/proc``; empty where there is none."""
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += [int(child) for child in (task / "children").read_text().split()]
    return pids


class Supervisor:
    """Watches one verifier process.

    Args:
        pid: The verifier's process id; it leads its own session.
        output: Read end of the pipe that holds its stdout and stderr.
        control: Read end of the parent's commands.
        status: Write end of the replies.
        log: Where its output is appended, if anywhere.
        log_limit: Bytes of output that are written to the log at most.
    """

    def __init__(self, pid: int, output: int, control: int, status: int, log: BinaryIO | None, log_limit: int) -> None:
        self.pid = pid
        self.output = output
        self.control = control
        self.status = status
        self.log = log
        self.room = log_limit
        self.tail = b""
        self.exit_status: int | None = None

    def send(self, message: dict[str, Any]) -> None:
        """Tells the parent something; one that has gone needs to know nothing."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.status, json.dumps(message).encode() + b"\n")

    def tail_text(self) -> str:
        """Returns the last lines of what the verifier printed."""
        return "\n".join(self.tail.decode(errors="replace").splitlines()[-_TAIL_LINES:])

    def drain(self) -> bool:
        """Takes what the verifier has printed; False once nobody can print any more."""
        for _ in range(64):
            try:
                chunk = os.read(self.output, 65_536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self.tail = (self.tail + chunk)[-_TAIL_BYTES:]
            if self.log is not None and self.room > 0:
                kept = chunk[: self.room]
                self.room -= len(kept)
                # A full disk must not keep the verifier from being watched.
                with contextlib.suppress(OSError):
                    self.log.write(kept)
                    if self.room == 0:
                        self.log.write(b"\n[output beyond this size is not kept]\n")
        return True

    def reap(self) -> bool:
        """Collects ended children; True while any is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.exit_status = status

    def kill_all(self) -> None:
        """SIGKILL to everything below, until nothing is below."""
        import time

        # Once reaped, the number may stand for a group of somebody else's.
        if self.exit_status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        while self.reap():
            below = children(os.getpid())
            if not below and sys.platform == "linux":
                break
            for pid in below or [self.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def run(self) -> None:
        """Serves until the verifier, or the parent, is gone."""
        parent = os.getppid()
        selector = selectors.DefaultSelector()
        selector.register(self.output, selectors.EVENT_READ)
        selector.register(self.control, selectors.EVENT_READ)
        # SIGCHLD interrupts the select through this pipe, so that a death is seen at once.
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector.register(wake_read, selectors.EVENT_READ)
        self.send({"pid": self.pid})
        self.reap()
        while self.exit_status is None:
            for key, _ in selector.select(0.5):
                if key.fd == self.output:
                    if not self.drain():
                        selector.unregister(self.output)
                elif key.fd == wake_read:
                    os.read(wake_read, 4096)
                    self.reap()
                else:
                    commands = os.read(self.control, 16)
                    if b"K" in commands or not commands:
                        self.kill_all()
                    elif b"T" in commands:
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(self.pid, signal.SIGTERM)
                    elif b"L" in commands:
                        self.drain()
                        self.send({"tail": self.tail_text()})
            if os.getppid() != parent:
                self.kill_all()
            else:
                self.reap()
        self.kill_all()
        self.drain()
        self.send({"exit": self.exit_status, "tail": self.tail_text()})


def main() -> None:
    """Forks the verifier process and watches it."""
    config = json.loads(sys.argv[1])
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if config["cores"] is not None and hasattr(os, "sched_setaffinity"):
        # Before the fork: the verifier inherits it. A processor that was taken away meanwhile is no reason to fail.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, config["cores"])
    output, printed = os.pipe()
    pid = os.fork()
    if pid == 0:
        # No thread but this one exists in the supervisor, so its end is the end of the process.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        for fd in (output, printed, config["control"], config["status"]):
            os.close(fd)
        sys.path[:] = config["sys_path"]
        sys.argv[1:] = []
        code = 1
        try:
            from prunecert.verifiers.process.child import serve

            serve(config["request"], config["reply"])
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    for fd in (printed, config["request"], config["reply"]):
        os.close(fd)
    os.set_blocking(output, False)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(Path(config["log"]).open("ab", buffering=0)) if config["log"] is not None else None
        Supervisor(pid, output, config["control"], config["status"], log, config["log_limit"]).run()


if __name__ == "__main__":
    main()
