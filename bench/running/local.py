"""N threads on this machine, each with worker processes of its own.

The threads only wait for their verifier processes, so one Python process serves them all and writes all results. A
batch's content does not depend on who works on it: with any number of workers the same questions are asked.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Stage
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, Verdict
from prunecert.verifiers.process.certifying import CertifyingWorker

#: Verifier processes that a thread keeps warm; each takes some hundred MiB.
KEEP_WARM = 3
OnVerdicts = Callable[[Batch, Sequence[Instance], Sequence[Verdict]], None]
Certify = Callable[[CellPlan, Batch, Sequence[Instance], Sequence[Verdict], CertifyingWorker], None]


class LocalExecutor:
    """Works through cells until every image is settled.

    Batches are taken stage by stage across all cells, so that a worker process is started once and the cheap
    verdicts are there early.

    Args:
        plans: The cells.
        cascades: Their states, in the same order.
        on_verdicts: Called with each answered batch, by one thread at a time; what it raises ends the run.
        on_progress: Called after that, when the cell's state has changed, likewise.
        prepare: Changes a batch's instances before they are asked; given where cells may wait for each other.
        certify: Called with each answered batch after that, by several threads at a time; the worker still has the
            search.
        workers: How many threads.
        threads: Threads of computation for each verifier process.
        log_dir: Where the verifiers' own output goes.
        devices: The device of each worker; None: each verifier runs where its stage says.
        cores: The processors of each worker; None: all workers share all.
    """

    def __init__(
        self,
        plans: Sequence[CellPlan],
        cascades: Sequence[CellCascade],
        on_verdicts: OnVerdicts,
        *,
        on_progress: Callable[[], None] | None = None,
        prepare: Callable[[Batch, Sequence[Instance]], list[Instance]] | None = None,
        certify: Certify | None = None,
        workers: int = 1,
        threads: int = 1,
        log_dir: Path | None = None,
        devices: Sequence[str] | None = None,
        cores: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._plans = plans
        self._cascades = cascades
        self._on_verdicts = on_verdicts
        self._on_progress = on_progress
        self._prepare = prepare
        self._certify = certify
        self._changed = threading.Condition()
        self._ready: list[Batch] = []
        self._in_work = 0
        self._stop = False
        self._failure: BaseException | None = None
        self._crews = [
            _Crew(
                number,
                threads,
                log_dir,
                device=None if devices is None else devices[number],
                cores=None if cores is None else cores[number],
            )
            for number in range(workers)
        ]

    def run(self) -> None:
        """Returns when nothing is left to be asked.

        Raises:
            KeyboardInterrupt: Ctrl-C; all worker processes are gone by then.
            Exception: Whatever a thread or `on_verdicts` raised first.
        """
        self._release()
        # Daemons: should a verifier process resist being killed, the program can end all the same.
        pool = [threading.Thread(target=self._work, args=(crew,), daemon=True) for crew in self._crews]
        try:
            for thread in pool:
                thread.start()
            for thread in pool:
                while thread.is_alive():
                    thread.join(0.2)
        finally:
            with self._changed:
                self._stop = True
                self._changed.notify_all()
            for crew in self._crews:
                crew.close()
            for thread in pool:
                if thread.ident is not None:
                    thread.join(3.0)
        if self._failure is not None:
            raise self._failure

    def _release(self) -> None:
        """Queues what can be worked on now; a cell may wait for another one's answers, which is here already."""
        stages = None
        while stages != (stages := [cascade.outlook()[0] for cascade in self._cascades]):
            for cascade in self._cascades:
                for batch in cascade.release():
                    heapq.heappush(self._ready, batch)

    def _next(self) -> Batch | None:
        with self._changed:
            while not self._stop:
                if self._ready:
                    self._in_work += 1
                    return heapq.heappop(self._ready)
                if self._in_work == 0:
                    self._stop = True
                    self._changed.notify_all()
                    break
                self._changed.wait()
            return None

    def _work(self, crew: _Crew) -> None:
        try:
            while (batch := self._next()) is not None:
                plan = self._plans[batch.cell]
                instances = [plan.instance(position, batch.stage) for position in batch.positions]
                if self._prepare is not None:
                    with self._changed:
                        instances = self._prepare(batch, instances)
                worker = crew.worker(plan.stages[batch.stage])
                verdicts = worker.verify(instances)
                with self._changed:
                    if self._stop:
                        # The worker was closed under us: its answers are no results.
                        return
                    self._on_verdicts(batch, instances, verdicts)
                    for released in self._cascades[batch.cell].record(batch, [v.status for v in verdicts]):
                        heapq.heappush(self._ready, released)
                    if self._prepare is not None:
                        self._release()
                    self._in_work -= 1
                    if self._on_progress is not None:
                        self._on_progress()
                    self._changed.notify_all()
                if self._certify is not None and not worker.closed():
                    self._certify(plan, batch, instances, verdicts, worker)
        except BaseException as error:
            with self._changed:
                # A worker that was closed because the run stops complains; that is no failure.
                if not self._stop:
                    self._failure = error
                    self._stop = True
                self._changed.notify_all()


class _Crew:
    """The verifier processes of one thread, the latest used kept warm."""

    def __init__(
        self, number: int, threads: int, log_dir: Path | None, *, device: str | None, cores: Sequence[int] | None
    ) -> None:
        self._number = number
        self._device = device
        self._cores = cores
        self._threads = threads
        self._log_dir = log_dir
        self._workers: OrderedDict[tuple[str, str, str, int | None], CertifyingWorker] = OrderedDict()
        self._guard = threading.Lock()
        self._closed = False

    def worker(self, stage: Stage) -> CertifyingWorker:
        """Returns the worker for a stage, made if need be."""
        device = stage.device
        # A verifier that can't use the worker's kind of device was planned for another.
        if self._device is not None and self._device.partition(":")[0] == device.partition(":")[0]:
            device = self._device
        key = (stage.verifier, stage.settings_hash, device, stage.memory_mb)
        with self._guard:
            if self._closed:
                raise UserError("The run was stopped.")
            if key not in self._workers:
                while len(self._workers) >= KEEP_WARM:
                    self._workers.popitem(last=False)[1].close()
                log = None if self._log_dir is None else self._log_dir / f"{stage.verifier}.{self._number}.log"
                self._workers[key] = CertifyingWorker(
                    stage.verifier,
                    stage.settings,
                    device,
                    memory_limit_mb=stage.memory_mb,
                    log=log,
                    threads=self._threads,
                    cores=self._cores,
                )
            self._workers.move_to_end(key)
            return self._workers[key]

    def close(self) -> None:
        """Ends all processes at once, whatever they are doing; may be called from any thread."""
        with self._guard:
            self._closed = True
            for worker in self._workers.values():
                worker.close()
            self._workers.clear()
