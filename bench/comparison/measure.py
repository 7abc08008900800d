"""Runs commands and measures what they cost: wall-clock time, and the peak memory of all that they start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_POLL_S = 0.2


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: Its exit status, negative for a signal; None: it was killed at its limit.
        seconds: From its start to its end.
    """

    code: int | None
    seconds: float


class Meter:
    """Starts commands, in any number of threads, and watches the memory of all their processes together.

    Sizes are resident sizes summed, so that pages which processes share count once for each.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._roots: dict[int, subprocess.Popen[bytes]] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Meter:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._guard:
            processes = list(self._roots.values())
        for process in processes:
            _kill(process)
        self._watcher.join()

    def run(
        self,
        command: Sequence[str],
        *,
        log: Path,
        limit_s: float | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Runs one command to its end.

        Args:
            command: Program and arguments.
            log: Where its output goes.
            limit_s: Seconds after which it is killed with all that it started.
            folder: Where it runs.
            environment: Variables over those of this process.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            begin = time.perf_counter()
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            with self._guard:
                self._roots[process.pid] = process
            try:
                code: int | None = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _kill(process)
                with self._guard:
                    del self._roots[process.pid]
            return Ended(code, time.perf_counter() - begin)

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_S):
            with self._guard:
                pids = list(self._roots)
            total = sum(size for pid in pids for size in _sizes(pid))
            self.peak_mb = max(self.peak_mb, total / 2**20)


def _sizes(pid: int) -> Iterator[int]:
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                yield process.memory_info().rss


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and its session; nothing of it may run on beside the next one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
