"""One child process per adapter, settings and device: started once, many instances, hard limits, no trust.

`Worker` is what everything else uses to ask a verifier. It keeps the limits whatever the verifier does, replaces a
worker that died, retries, takes a batch apart when it fails, replays every claimed counterexample, and gives each
failure its own status (see `Worker.verify`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status, Times, Verdict, Verifier
from prunecert.verifiers.formats.support import check_instance
from prunecert.verifiers.process.judge import judge
from prunecert.verifiers.process.loaded import LOAD_LIMIT_S, START_LIMIT_S, LoadedProcess, NetworkKey, network_key
from prunecert.verifiers.process.parent import ProcessError
from prunecert.verifiers.rounding import guard

_log = logging.getLogger(__name__)


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
        if family not in self._availability.devices or (index and not (index.isascii() and index.isdecimal())):
            raise UserError(
                f"Device {device!r} is refused for verifier {verifier!r}; it can use "
                f"{', '.join(self._availability.devices)} here."
            )
        self.name = verifier
        self.device = device
        self._process = LoadedProcess(
            self._class,
            self._settings,
            device,
            memory_limit_mb=memory_limit_mb,
            grace_s=grace_s,
            log=log,
            threads=threads,
            cores=cores,
            start_limit_s=start_limit_s,
            load_limit_s=load_limit_s,
        )
        self._batch_caps: dict[str, int] = {}
        self._lock = threading.Lock()
        self._ahead: threading.Thread | None = None

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
            self._start_quietly(ahead=False)

    def start_ahead(self) -> None:
        """Starts the process in the background, if none runs; `verify` waits for it.

        A caller that will ask, unless its files turn out to be none, can read them meanwhile. What `prepare` does isn't
        done so: nobody should wait a minute for being told that there is no network in a file.
        """
        starter = functools.partial(self._start_quietly, ahead=True)
        self._ahead = threading.Thread(target=starter, name=f"start {self.name}", daemon=True)
        self._ahead.start()

    def _start_quietly(self, *, ahead: bool) -> None:
        with self._lock:
            # A failure is said where an instance is asked, which tries again.
            with contextlib.suppress(ProcessError, OSError):
                if not self.closed():
                    self._process.start(ahead=ahead)
            if self.closed():
                self._process.end()

    def closed(self) -> bool:
        """Whether `close` was called; it may be by another thread, at any time."""
        return self._process.stopped()

    @property
    def pid(self) -> int | None:
        """Process id of the verifier process, None while none runs."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and all below it, at once; verdicts still awaited by another thread become `error`."""
        self._process.stop()
        if self._ahead is not None:
            self._ahead.join()
        # Another thread in `verify` sees the death and cleans up itself.
        if self._lock.acquire(blocking=False):
            try:
                self._process.end()
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
        if self._ahead is not None and self._ahead.is_alive() and self._class.tightens:
            # What will be needed is imported while the process starts.
            guard.import_runtimes()
        with self._lock:
            if self.closed():
                raise UserError(f"The worker of {self.name!r} is closed; make a new one.")
            try:
                return self._verify(list(instances))
            except BaseException:
                # Ctrl-C above all: nothing may run on when the caller has given up.
                self._process.drop()
                raise
            finally:
                if self.closed():
                    self._process.end()

    def _verify(self, instances: list[Instance]) -> list[Verdict]:
        answers: dict[int, Verdict] = {}
        groups: dict[tuple[str, NetworkKey], list[int]] = {}
        for index, instance in enumerate(instances):
            try:
                reason = check_instance(self._class, instance)
            except UserError as error:
                answers[index] = self._failed(Status.ERROR, str(error))
                continue
            if reason is None:
                groups.setdefault((str(instance.onnx), network_key(instance)), []).append(index)
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
            load_s = self._process.ready(batch[0])
        except ProcessError as failure:
            return [self._failed_by(failure) for _ in batch]
        limit = sum(instance.timeout for instance in batch)
        batch = [guard.prepare(self._class, instance) for instance in batch]
        try:
            reply, wall_s = self._process.ask("solve", (batch,), limit)
        except ProcessError as failure:
            if failure.fatal:
                self._process.drop()
            return self._after(failure, batch, retry)
        self._process.served += len(batch)
        start_s, self._process.start_s = self._process.start_s, 0.0
        peak_mb = max(filter(None, (reply.get("peak_mb"), self._process.peak_mb)), default=None)
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
                    log_tail=self._process.tail() if verdict.status is Status.ERROR else "",
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
