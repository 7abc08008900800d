"""The process that has a network loaded: started when one is needed, replaced when it dies or is worn out.

What a verifier's process owes a caller before it can be asked: that it runs, that it has read and loaded the network,
and that a death over either is no instance's fault. What becomes of its answers is the business of
`prunecert.verifiers.process.worker`.
"""

from __future__ import annotations

import functools
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from prunecert.verifiers.base import Instance, Verifier
from prunecert.verifiers.process.inspection import READ_LIMIT_S, read_memory_mb
from prunecert.verifiers.process.parent import Process, ProcessError

_log = logging.getLogger(__name__)

#: What a process has loaded: a network's identity, and how many outputs the questions about it have.
NetworkKey = tuple[str, int]

#: Seconds that starting (imports) and loading a network may take before they count as hung.
START_LIMIT_S = 300.0
LOAD_LIMIT_S = 300.0
#: Where it does something once for this machine (`Verifier.preparation`), which takes minutes on a slow one.
PREPARATION_LIMIT_S = 1800.0
#: How often in a row a process may die while it starts, and while it reads or loads one network, before that counts.
START_TRIES = 4
LOAD_TRIES = 3
#: Share of the machine's memory that loading a network may take where no limit is given.
_LOAD_SHARE = 0.8


def network_key(instance: Instance) -> NetworkKey:
    """Returns what must be loaded for an instance."""
    return instance.onnx_sha256, instance.classes


class LoadedProcess:
    """A verifier's process and the network that it has loaded; none runs before `start` or `ready`, or after `drop`.

    One thread at a time uses it; `stop` may be called from any.

    Args:
        verifier: Its class, installed.
        settings: All settings of it, resolved.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        memory_limit_mb: Limit in MiB on the resident size of the process and all below it, summed; None for none.
        grace_s: SIGTERM comes when it is half of this beyond a limit of time, and SIGKILL at the whole.
        log: File to which the verifier's own output is appended.
        threads: Threads for numerical libraries, or None.
        cores: Processors that it may use, or None for all.
        start_limit_s: Limit on starting.
        load_limit_s: Limit on loading a network.

    Attributes:
        served: Instances that the process has answered, which its user counts; 0 in a new one.
        start_s: Seconds that its start took, until its user has put them down to an answer.
    """

    def __init__(
        self,
        verifier: type[Verifier],
        settings: Mapping[str, Any],
        device: str,
        *,
        memory_limit_mb: int | None,
        grace_s: float,
        log: Path | None,
        threads: int | None,
        cores: Sequence[int] | None,
        start_limit_s: float,
        load_limit_s: float,
    ) -> None:
        self._class = verifier
        self._settings = settings
        self._device = device
        self._memory_limit_mb = memory_limit_mb
        self._grace_s = grace_s
        self._log_path = log
        self._threads = threads
        self._cores = cores
        self._start_limit_s = start_limit_s
        self._load_limit_s = load_limit_s
        self._process: Process | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._loaded: NetworkKey | None = None
        self._refused: dict[NetworkKey, ProcessError] = {}
        self._loaded_mb = 0.0
        self._stopped = False
        self.served = 0
        self.start_s = 0.0

    @property
    def pid(self) -> int | None:
        """Process id of the verifier process, None while none runs."""
        return None if self._process is None else self._process.pid

    @property
    def peak_mb(self) -> float | None:
        """Highest resident size seen of the process that runs, MiB."""
        return None if self._process is None else self._process.peak_mb

    def tail(self) -> str:
        """Returns the last lines of the verifier's output, while a process runs."""
        return "" if self._process is None else self._process.tail()

    def stopped(self) -> bool:
        """Whether `stop` was called; it may be by another thread, at any time."""
        return self._stopped

    def stop(self) -> None:
        """Kills the process and all below it, at once and for good: what it is asked fails, and isn't tried again."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def start(self, *, ahead: bool = False) -> None:
        """Starts a process, if none runs.

        Args:
            ahead: Whether nobody waits for it yet, nor perhaps ever will: what takes long once on a machine is then
                left to a later start.

        Raises:
            ProcessError: None can be started.
        """
        limit: float | None = None
        for attempt in range(1, START_TRIES + 1):
            if self._process is not None:
                return
            try:
                self._process = Process(
                    log=self._log_path,
                    threads=self._threads,
                    memory_limit_mb=self._memory_limit_mb,
                    cores=self._cores,
                )
                if self.stopped():
                    # `stop` may have come just before there was a process to kill.
                    self._process.kill()
                if limit is None:
                    # Looked up while the interpreter starts.
                    preparation = self._class.preparation()
                    if preparation and ahead:
                        self.drop()
                        return
                    limit = self._start_limit(preparation)
                target = (self._class.__module__, self._class.__qualname__, self._settings, self._device)
                _, start_s = self._process.ask("start", target, limit, self._grace_s)
                self.start_s = start_s + self._process.spawn_s
            except ProcessError as failure:
                self.drop()
                if failure.kind != "crash" or attempt == START_TRIES or self.stopped():
                    raise failure
                _log.debug("%s: died while starting: %s", self._class.name, failure)
            except BaseException:
                # Nobody may ask what has not started.
                self.drop()
                raise

    def _start_limit(self, preparation: str) -> float:
        """Says what a first start on this machine has to do; returns the seconds that the start may take."""
        if not preparation:
            return self._start_limit_s
        _announce(preparation)
        return max(self._start_limit_s, PREPARATION_LIMIT_S)

    def ready(self, instance: Instance) -> float:
        """Starts a process, and reads and loads the network, where that is not done; returns the seconds of loading.

        A process that dies over it, for whatever reason, is replaced some times before that counts: no instance has
        been tried yet, and it may have been killed by somebody else. What a network failed with it isn't asked again.

        Raises:
            ProcessError: It can't be started, or can't load.
        """
        key = network_key(instance)
        if key in self._refused:
            raise self._refused[key]
        if self._process is not None and (self._worn_out() or not self._process.alive()):
            self.drop()
        tries = 0
        while True:
            self.start()
            if self._loaded == key:
                return 0.0
            try:
                return self._load(instance, key)
            except ProcessError as failure:
                if failure.fatal:
                    self.drop()
                tries += 1
                if failure.kind == "crash" and tries < LOAD_TRIES and not self.stopped():
                    continue
                if not self.stopped():
                    self._refused[key] = failure
                raise failure

    def _load(self, instance: Instance, key: NetworkKey) -> float:
        """Reads and loads a network; returns the seconds that took.

        Raises:
            ProcessError: It can't.
        """
        process = self._process
        assert process is not None
        self._loaded = None
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="prunecert-", ignore_cleanup_errors=True)
        arguments = (str(instance.onnx), instance.onnx_sha256, instance.classes, self._scratch.name)
        room_mb = process.resident_mb() + read_memory_mb(instance.onnx)
        _, read_s = process.ask("read", arguments, min(READ_LIMIT_S, self._load_limit_s), self._grace_s, room_mb)
        most_mb = _LOAD_SHARE * psutil.virtual_memory().total / 2**20
        _, load_s = process.ask("load", (), self._load_limit_s, self._grace_s, most_mb)
        self._loaded = key
        self._loaded_mb = process.resident_mb()
        return read_s + load_s

    def _worn_out(self) -> bool:
        assert self._process is not None
        if self._class.recycle_after is not None and self.served >= self._class.recycle_after:
            return True
        if self._memory_limit_mb is None:
            return False
        # A network that needs most of the limit by itself must not have its process replaced at every call.
        return self._process.resident_mb() > max(0.7 * self._memory_limit_mb, 1.5 * self._loaded_mb)

    def ask(self, action: str, arguments: tuple[Any, ...], limit_s: float) -> tuple[Any, float]:
        """Asks about the network that is loaded; `ready` comes first.

        Args:
            action: ``solve`` or ``certify``.
            arguments: Its arguments.
            limit_s: Seconds that the answer may take, beside the grace period.

        Returns:
            The answer and the seconds that it took.

        Raises:
            ProcessError: There is none, or it says that the verifier failed; where that is fatal, `drop` the process.
        """
        assert self._process is not None
        return self._process.ask(action, arguments, limit_s, self._grace_s)

    def drop(self) -> None:
        """Ends the process, if there is one, with all that is below it."""
        process, self._process = self._process, None
        self._loaded, self.served, self.start_s = None, 0, 0.0
        if process is not None:
            process.close()

    def end(self) -> None:
        """Ends the process, and removes what it has written."""
        self.drop()
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.cleanup()


@functools.cache
def _announce(preparation: str) -> None:
    """Says on standard error what is waited for; the same once, however many processes do it."""
    print(f"prunecert: {preparation}", file=sys.stderr, flush=True)
