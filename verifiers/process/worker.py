"""One child process per adapter, settings and device: started once, many instances, hard limits, no trust.

`Worker` is what everything else uses to ask a verifier. It keeps the limits whatever the verifier does, replaces a
worker that died, retries, takes a batch apart when it fails, replays every claimed counterexample, and gives each
failure its own status (see `Worker.verify`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status, Times, Verdict, Verifier
from prunecert.verifiers.formats.support import check_instance
from prunecert.verifiers.process.inspection import READ_LIMIT_S, read_memory_mb
from prunecert.verifiers.process.judge import judge
from prunecert.verifiers.process.parent import Process, ProcessError
from prunecert.verifiers.rounding import guard

_log = logging.getLogger(__name__)

#: What a process has loaded: a network's identity, and how many outputs the questions about it have.
_Key = tuple[str, int]

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


class Worker:
    """A verifier in a process of its own, with limits that hold.

    The process is started by the first `verify`, serves any number of calls, and is replaced when it dies, when the
    verifier's `recycle_after` is reached or when it has grown near its memory limit. It ends, with all that it
    started, on `close`, on Ctrl-C and when this process dies, however that happens. One `Worker` serves one thread at
    a time; `close` may be called from any.

    Args:
        verifier: Registered name.
        settings: Values for keys of the verifier's `known_settings`.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        memory_limit_mb: Limit in MiB on the resident size of the process and all below it, summed; None for none.
            Pages that forked processes share count once for each.
        grace_s: A verifier gets SIGTERM when it is half of this beyond an instance's limit, and SIGKILL at the whole.
        log: File to which the verifier's own output is appended (64 MiB at most for each process started).
        threads: Threads for OpenMP, BLAS and torch; None leaves it to them.
        cores: Processors that the process may use, where the system can confine it; None for all.
        start_limit_s: Limit on starting.
        load_limit_s: Limit on loading a network.

    Raises:
        UserError: The verifier, a setting or the device is unknown, or the verifier is not installed.
    """

    def __init__(
        self,
        verifier: str,
        settings: Mapping[str, Any] | None = None,
        device: str = "cpu",
        *,
        memory_limit_mb: int | None = None,
        grace_s: float = 5.0,
        log: Path | None = None,
        threads: int | None = None,
        cores: Sequence[int] | None = None,
        start_limit_s: float = START_LIMIT_S,
        load_limit_s: float = LOAD_LIMIT_S,
    ) -> None:
        self._class: type[Verifier] = VERIFIERS.get(verifier)
        self._settings = self._class.resolve(settings)
        self._availability = self._class.availability()
        if not self._availability.installed:
            raise UserError(f"Verifier {verifier!r} is unavailable: {self._availability.hint}")
        family, _, index = device.partition(":")
        if family not in self._availability.devices or (index and not index.isdecimal()):
            raise UserError(
                f"Device {device!r} is refused for verifier {verifier!r}; it can use "
                f"{', '.join(self._availability.devices)} here."
            )
        self.name = verifier
        self.device = device
        self.grace_s = grace_s
        self._memory_limit_mb = memory_limit_mb
        self._log_path = log
        self._threads = threads
        self._cores = cores
        self._start_limit_s = start_limit_s
        self._load_limit_s = load_limit_s
        self._process: Process | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._loaded: _Key | None = None
        self._refused: dict[_Key, ProcessError] = {}
        self._loaded_mb = 0.0
        self._served = 0
        self._start_s = 0.0
        self._batch_caps: dict[str, int] = {}
        self._lock = threading.Lock()
        self._ahead: threading.Thread | None = None
        self._closed = False

    @property
    def identity(self) -> dict[str, Any]:
        """What of the verifier decides its answers, as plain data: name, version, source and settings."""
        return {
            "verifier": self.name,
            "version": self._availability.version,
            "source": self._availability.source,
            "settings": dict(self._settings),
        }

    def prepare(self) -> None:
        """Has the verifier do what its first start on a machine does, before anybody's clock runs; later: nothing.

        What fails here fails again, and is said, when an instance is asked.
        """
        if self._class.preparation():
            self._start_quietly()

    def start_ahead(self) -> None:
        """Starts the process in the background, if none runs; `verify` waits for it.

        A caller that knows that it will ask can read its files meanwhile.
        """
        self._ahead = threading.Thread(target=self._start_quietly, name=f"start {self.name}", daemon=True)
        self._ahead.start()

    def _start_quietly(self) -> None:
        with self._lock:
            # A failure is said where an instance is asked, which tries again.
            with contextlib.suppress(ProcessError, OSError):
                if not self.closed():
                    self._start()
            if self.closed():
                self._end()

    def closed(self) -> bool:
        """Whether `close` was called; it may be by another thread, at any time."""
        return self._closed

    @property
    def pid(self) -> int | None:
        """Process id of the verifier process, None while none runs."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and all below it, at once; verdicts still awaited by another thread become `error`."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        if self._ahead is not None:
            self._ahead.join()
        # Another thread in `verify` sees the death and cleans up itself.
        if self._lock.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._lock.release()

    def verify(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Answers instances, in their order; batches are by network and of the adapter's `batch_size`.

        A verifier's failure never raises; it becomes a status:

        - ``timeout``: the verifier said so, or it was killed beyond the instance's limit. A batch may take the sum
          of its instances' limits; one that took longer is done again one by one.
        - ``memout``: killed at `memory_limit_mb`, or host or device memory ran out (a batch is halved first).
        - ``unsupported``: an operator, norm or property that the verifier doesn't take, even in normal form.
        - ``error``: it died (the signal is named; the instance is retried once first), raised, answered nonsense,
          contradicted itself, or claimed a counterexample that onnxruntime doesn't confirm; or the network is missing,
          no ONNX, or not the planned one. The other instances are answered all the same.

        Args:
            instances: Questions; any mixture of networks.

        Returns:
            One verdict for each.

        Raises:
            UserError: The worker is closed.
        """
        with self._lock:
            if self.closed():
                raise UserError(f"The worker of {self.name!r} is closed; make a new one.")
            try:
                return self._verify(list(instances))
            except BaseException:
                # Ctrl-C above all: nothing may run on when the caller has given up.
                self._drop()
                raise
            finally:
                if self.closed():
                    self._end()

    def _verify(self, instances: list[Instance]) -> list[Verdict]:
        answers: dict[int, Verdict] = {}
        groups: dict[tuple[str, _Key], list[int]] = {}
        for index, instance in enumerate(instances):
            try:
                reason = check_instance(self._class, instance)
            except UserError as error:
                answers[index] = self._failed(Status.ERROR, str(error))
                continue
            if reason is None:
                groups.setdefault((str(instance.onnx), _key(instance)), []).append(index)
            else:
                answers[index] = self._failed(Status.UNSUPPORTED, reason)
        for (onnx, _), indices in groups.items():
            position = 0
            while position < len(indices):
                size = min(self._class.batch_size, self._batch_caps.get(onnx, self._class.batch_size))
                part = indices[position : position + size]
                position += size
                answers.update(zip(part, self._solve([instances[i] for i in part]), strict=True))
        return [answers[index] for index in range(len(instances))]

    def _solve(self, batch: list[Instance], retry: bool = True) -> list[Verdict]:
        """Answers a batch of one network, taking it apart where it fails as a whole."""
        try:
            load_s = self._ready(batch[0])
        except ProcessError as failure:
            return [self._failed_by(failure) for _ in batch]
        process = self._process
        assert process is not None
        limit = sum(instance.timeout for instance in batch)
        batch = [guard.prepare(self._class, instance) for instance in batch]
        try:
            reply, wall_s = process.ask("solve", (batch,), limit, self.grace_s)
        except ProcessError as failure:
            if failure.fatal:
                self._drop()
            return self._after(failure, batch, retry)
        self._served += len(batch)
        start_s, self._start_s = self._start_s, 0.0
        peak_mb = max(filter(None, (reply.get("peak_mb"), process.peak_mb)), default=None)
        verdicts = []
        for index, (instance, plain) in enumerate(zip(batch, reply["verdicts"], strict=True)):
            verdict = judge(self._class, instance, plain)
            first = index == 0
            times = Times(
                start_s=start_s if first else 0.0,
                load_s=load_s if first else 0.0,
                bound_s=verdict.times.bound_s,
                search_s=verdict.times.search_s,
                wall_s=wall_s / len(batch) + (load_s if first else 0.0),
            )
            verdicts.append(
                replace(
                    verdict,
                    times=times,
                    peak_memory_mb=peak_mb,
                    batch=len(batch),
                    verifier=self.name,
                    version=verdict.version or self._availability.version,
                    log_tail=process.tail() if verdict.status is Status.ERROR else "",
                )
            )
        return verdicts

    def _after(self, failure: ProcessError, batch: list[Instance], retry: bool) -> list[Verdict]:
        """Goes on after a batch that failed as a whole."""
        _log.debug("%s: batch of %d failed: %s", self.name, len(batch), failure)
        if self.closed():
            return [self._failed_by(failure) for _ in batch]
        if len(batch) > 1:
            # Time ran out for all together: each gets its own limit, and no more than the sum is spent again.
            step = 1 if failure.kind == "timeout" else (len(batch) + 1) // 2
            if failure.kind == "memory":
                self._batch_caps[str(batch[0].onnx)] = step
            parts = [batch[i : i + step] for i in range(0, len(batch), step)]
            return [verdict for part in parts for verdict in self._solve(part)]
        if failure.kind == "crash" and retry:
            return self._solve(batch, retry=False)
        return [self._failed_by(failure)]

    def _ready(self, instance: Instance) -> float:
        """Starts a worker, and reads and loads the network, where that is not done; returns the seconds of loading.

        A process that dies over it, for whatever reason, is replaced some times before that counts: no instance has
        been tried yet, and it may have been killed by somebody else. What a network failed with it isn't asked again.

        Raises:
            ProcessError: It can't be started, or can't load.
        """
        key = _key(instance)
        if key in self._refused:
            raise self._refused[key]
        if self._process is not None and (self._worn_out() or not self._process.alive()):
            self._drop()
        tries = 0
        while True:
            self._start()
            if self._loaded == key:
                return 0.0
            try:
                return self._load(instance, key)
            except ProcessError as failure:
                if failure.fatal:
                    self._drop()
                tries += 1
                if failure.kind == "crash" and tries < LOAD_TRIES and not self.closed():
                    continue
                if not self.closed():
                    self._refused[key] = failure
                raise failure

    def _start(self) -> None:
        """Starts a process, if none runs.

        Raises:
            ProcessError: None can be started.
        """
        if self._process is not None:
            return
        preparation = self._class.preparation()
        limit = self._start_limit_s
        if preparation:
            _announce(preparation)
            limit = max(limit, PREPARATION_LIMIT_S)
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
                if self.closed():
                    # `close` may have come just before there was a process to kill.
                    self._process.kill()
                target = (self._class.__module__, self._class.__qualname__, self._settings, self.device)
                _, start_s = self._process.ask("start", target, limit, self.grace_s)
                self._start_s = start_s + self._process.spawn_s
            except ProcessError as failure:
                self._drop()
                if failure.kind != "crash" or attempt == START_TRIES or self.closed():
                    raise failure
                _log.debug("%s: died while starting: %s", self.name, failure)

    def _load(self, instance: Instance, key: _Key) -> float:
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
        _, read_s = process.ask("read", arguments, min(READ_LIMIT_S, self._load_limit_s), self.grace_s, room_mb)
        most_mb = _LOAD_SHARE * psutil.virtual_memory().total / 2**20
        _, load_s = process.ask("load", (), self._load_limit_s, self.grace_s, most_mb)
        self._loaded = key
        self._loaded_mb = process.resident_mb()
        return read_s + load_s

    def _worn_out(self) -> bool:
        assert self._process is not None
        if self._class.recycle_after is not None and self._served >= self._class.recycle_after:
            return True
        if self._memory_limit_mb is None:
            return False
        # A network that needs most of the limit by itself must not have its worker replaced at every call.
        return self._process.resident_mb() > max(0.7 * self._memory_limit_mb, 1.5 * self._loaded_mb)

    def _drop(self) -> None:
        """Ends the process, if there is one, with all that is below it."""
        process, self._process = self._process, None
        self._loaded, self._served, self._start_s = None, 0, 0.0
        if process is not None:
            process.close()

    def _end(self) -> None:
        """Ends the process, and removes what it has written."""
        self._drop()
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.cleanup()

    def _failed_by(self, failure: ProcessError) -> Verdict:
        status = {"timeout": Status.TIMEOUT, "memory": Status.MEMOUT, "unsupported": Status.UNSUPPORTED}.get(
            failure.kind, Status.ERROR
        )
        verdict = self._failed(status, failure.detail)
        return replace(
            verdict,
            times=Times(wall_s=failure.wall_s),
            peak_memory_mb=failure.peak_mb,
            log_tail="" if status is Status.UNSUPPORTED else failure.tail,
        )

    def _failed(self, status: Status, detail: str) -> Verdict:
        return Verdict(status, detail, device=self.device, verifier=self.name, version=self._availability.version)


@functools.cache
def _announce(preparation: str) -> None:
    """Says on standard error what is waited for; the same once, however many processes do it."""
    print(f"prunecert: {preparation}", file=sys.stderr, flush=True)


def _key(instance: Instance) -> _Key:
    return instance.onnx_sha256, instance.classes


@contextlib.contextmanager
def workers(names: Sequence[str], **options: Any) -> Iterator[dict[str, Worker]]:
    """Makes a worker for each name, all closed at the end; options as for `Worker`."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Worker(name, **options)) for name in names}


def prepare_verifiers(names: Sequence[str]) -> None:
    """Has verifiers do what their first start on a machine does, compiling kernels, before anybody's clock runs.

    Args:
        names: Registered names; those that are not installed are left out.

    Raises:
        UserError: A name is unknown.
    """
    for name in names:
        verifier = VERIFIERS.get(name)
        if verifier.availability().installed and verifier.preparation():
            with Worker(name) as worker:
                worker.prepare()
