"""Certificates of a run's answers: from the search that has just answered, and of all others when these are there.

Whoever decided an image, its certificate is written by the sparse engine and has been accepted by `verifiers.checker`;
what no search in the answer's own limit proves a second time has none, and a row that says why.

    sparse-bab answers ── row ── its tree becomes a certificate ── file ── row       while the run goes on
    everybody's answers that have none yet ── intervals, CROWN, a search ── file ── row       at its end
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prunecert.bench.machine import cores
from prunecert.bench.planning.plan import CellPlan, property_text, question_id
from prunecert.bench.results.proofs import is_whole, save_certificate
from prunecert.bench.results.row_types import ProofRow, VerdictRow
from prunecert.bench.results.store import Log, Writer, collector_off, is_run
from prunecert.bench.running import resources
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import FloatArray, Instance, Status, Verdict
from prunecert.verifiers.certification import Written
from prunecert.verifiers.process.certifying import CertifyingWorker

#: Who certifies what others have answered, and whose searches are kept for their certificates.
CERTIFIER = "sparse-bab"
_LINE_EVERY_S = 10.0
#: Question and answer.
_Place = tuple[str, Status]
_Tell = Callable[[str], None]


class _Job(NamedTuple):
    """An answer that has no certificate yet."""

    question: str
    plan: CellPlan
    stage: int
    position: int
    status: Status
    row: VerdictRow | None = None


@dataclass
class Certificates:
    """Writes a run's certificates.

    Args:
        writer: The log.
        settled: Answers that have a certificate, or are known to have none.
    """

    writer: Writer
    settled: set[_Place]

    @classmethod
    def going_on(cls, writer: Writer, again: bool) -> Certificates:
        """Returns what goes on where earlier runs into the same directory stopped.

        Args:
            writer: The log.
            again: Whether what had no certificate is tried again.

        Raises:
            UserError: Certificates can't be written here.
        """
        availability = VERIFIERS.get(CERTIFIER).availability()
        if not availability.installed:
            raise UserError(f"--certificates is refused: {availability.hint}")
        rows: dict[_Place, ProofRow] = {}
        if is_run(writer.directory):
            with collector_off():
                for row in Log(writer.directory).rows():
                    if isinstance(row, ProofRow):
                        rows[row.question, row.status] = row
        places = {
            place
            for place, row in rows.items()
            # A file that was lost or damaged is written again.
            if (is_whole(writer.directory, row.sha256) if row.sha256 else not again)
        }
        return cls(writer, places)

    def answered(
        self,
        plan: CellPlan,
        batch: Batch,
        instances: Sequence[Instance],
        verdicts: Sequence[Verdict],
        worker: CertifyingWorker,
    ) -> None:
        """Certifies what a search has just proved, while the worker still has it; what fails is left for the end."""
        if plan.cell.ball or plan.stages[batch.stage].verifier != CERTIFIER or len(batch.positions) > 1:
            return
        (position,), (instance,), (verdict,) = batch.positions, instances, verdicts
        question = question_id(instance)
        if verdict.status.decided and (question, verdict.status) not in self.settled:
            job = _Job(question, plan, batch.stage, position, verdict.status)
            self._certify(job, worker, verdict.witness, final=False)

    def rest(
        self,
        plans: Sequence[CellPlan],
        cascades: Sequence[CellCascade],
        *,
        workers: int,
        pinned: bool,
        log_dir: Path,
        tell: _Tell,
    ) -> None:
        """Certifies all other answers.

        Args:
            plans: The networks.
            cascades: Their answers, in the same order.
            workers: Processes side by side.
            pinned: Whether each has processors of its own.
            log_dir: Where their output goes.
            tell: Takes a line about how far it is.
        """
        jobs = list(self._jobs(plans, cascades))
        if not jobs:
            return
        tell(f"writing certificates of {len(jobs)} answers that have none yet")
        core_sets = resources.core_sets(workers) if pinned else None
        crew = [
            CertifyingWorker(
                CERTIFIER,
                threads=max(1, cores() // workers),
                log=log_dir / f"certificates.{number}.log",
                cores=None if core_sets is None else core_sets[number],
            )
            for number in range(min(workers, len(jobs)))
        ]
        _Crew(self, jobs, crew, tell).run()

    def _jobs(self, plans: Sequence[CellPlan], cascades: Sequence[CellCascade]) -> Iterator[_Job]:
        """Yields the first answer of each kind to each question, unless that has a certificate."""
        broken: dict[tuple[str, int], VerdictRow] = {}
        with collector_off():
            for row in Log(self.writer.directory).rows():
                if isinstance(row, VerdictRow) and row.status is Status.SAT:
                    broken[row.key, row.image] = row
        places: set[_Place] = set()
        for plan, cascade in zip(plans, cascades, strict=True):
            if plan.cell.ball:
                # Certificates are of boxes.
                continue
            for position in cascade.positions:
                for stage, key in enumerate(plan.keys):
                    status = cascade.status(stage, position)
                    if status is None or not status.decided:
                        continue
                    place = question_id(plan.instance(position, stage)), status
                    if place not in self.settled and place not in places:
                        places.add(place)
                        answer = broken.get((key, int(plan.data.indices[position])))
                        yield _Job(place[0], plan, stage, position, status, answer if status is Status.SAT else None)

    def settle(self, job: _Job, worker: CertifyingWorker) -> bool:
        """Certifies an answer; returns whether there is a certificate."""
        witness: FloatArray | None = None
        if job.row is not None:
            try:
                witness = Log(self.writer.directory).witness(job.row)
            except UserError as error:
                self._write(job, Written("unknown", f"its counterexample can't be read: {error}"), b"")
                return False
        return self._certify(job, worker, witness, final=True)

    def _certify(self, job: _Job, worker: CertifyingWorker, witness: FloatArray | None, *, final: bool) -> bool:
        instance = job.plan.instance(job.position, job.stage)
        text = property_text(job.plan.data, job.position, job.plan.cell.eps).encode()
        limit = job.plan.stages[job.stage].timeout
        written, content = worker.certify([instance], text, limit, witness)
        if worker.closed() or (written.reason and not final):
            # While a run is being stopped, that something was not certified says nothing.
            return False
        if not written.reason and written.status != job.status:
            # Both stand in the log, so that the run ends as any contradiction does.
            proved = Status(written.status)
            self._write(job._replace(status=proved, row=None), written, content, by=CERTIFIER)
            written, content = Written("error", f"the checker accepts a certificate of {proved}"), b""
        self._write(job, written, content)
        return bool(content)

    def _write(self, job: _Job, written: Written, content: bytes, by: str = "") -> None:
        plan, stage = job.plan, job.plan.stages[job.stage]
        self.writer.append(
            ProofRow(
                question=job.question,
                key=plan.keys[job.stage],
                cell=plan.name,
                image=int(plan.data.indices[job.position]),
                status=job.status,
                verifier=by or stage.verifier,
                sha256=save_certificate(self.writer.directory, content) if content else "",
                size=len(content) if content else None,
                how=written.how if content else "",
                leaves=written.leaves if content else None,
                seconds=round(written.search_s, 6),
                check_s=round(written.check_s, 6),
                detail="" if content else written.reason or "no reason was said",
            )
        )
        self.settled.add((job.question, job.status))


class _Crew:
    """Processes that work through a list, a thread for each.

    Args:
        certificates: What takes the answers.
        jobs: The list.
        workers: The processes.
        tell: Takes a line about how far it is.
    """

    def __init__(
        self, certificates: Certificates, jobs: Sequence[_Job], workers: Sequence[CertifyingWorker], tell: _Tell
    ) -> None:
        self._certificates, self._jobs, self._workers, self._tell = certificates, iter(jobs), workers, tell
        self._count, self._done, self._without = len(jobs), 0, 0
        self._guard = threading.Lock()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Returns when all are done.

        Raises:
            KeyboardInterrupt: Ctrl-C; all processes are gone by then.
            Exception: Whatever a thread raised first.
        """
        threads = [threading.Thread(target=self._work, args=(worker,), daemon=True) for worker in self._workers]
        said = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
                    if time.monotonic() - said > _LINE_EVERY_S:
                        said = time.monotonic()
                        self._tell(f"certificates: {self._done} of {self._count} done, {self._without} can't be had")
        finally:
            for worker in self._workers:
                worker.close()
        if self._failure is not None:
            raise self._failure

    def _work(self, worker: CertifyingWorker) -> None:
        try:
            while self._failure is None and not worker.closed():
                with self._guard:
                    job = next(self._jobs, None)
                if job is None:
                    return
                certified = self._certificates.settle(job, worker)
                with self._guard:
                    self._done += 1
                    self._without += not certified
        except BaseException as error:
            # A worker that was closed because the run stops complains; that is no failure.
            if not worker.closed():
                self._failure = error
