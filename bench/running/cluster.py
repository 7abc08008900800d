"""A run as Slurm job arrays, through submitit: every task is a part of the run with a result file of its own.

A task is what ``--shard I/N`` is: the store is append-only and read by content hash, so a task that is preempted,
requeued, killed or submitted again with another N goes on where the last one stopped. Nothing is kept here but the
numbers of the jobs, so that the same command finds jobs that still run instead of sending others after them.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunecert.bench.machine import utc_now
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.running.outlook import KnownAnswers, arrays, describe, left
from prunecert.bench.running.request import RunRequest, RunResult
from prunecert.bench.running.slurm import SLURM, Resources
from prunecert.errors import UserError, did_you_mean

#: Slurm's own default, should it not say.
_MAX_ARRAY = 1001
_TIMEOUTS = 20
_POLL_S = (2.0, 15.0)
Tell = Callable[[str], None]


class TaskPart:
    """What an array task does; it travels as a pickle.

    Args:
        run_suite: Runs a request; see `bench.running.run.run_suite`.
        request: The whole run, as asked of the process that sends the parts.
        number: Which part, from 1.
        count: Of how many.
        retry: Whether the request's `retry` counts; only the first time that a part is sent.
    """

    def __init__(
        self, run_suite: Callable[[RunRequest], RunResult], request: RunRequest, number: int, count: int, retry: bool
    ) -> None:
        self.run_suite = run_suite
        self.request = request
        self.number = number
        self.count = count
        self.retry = retry

    def __call__(self) -> int:
        """Runs the part; returns its exit code."""
        retry = self.request.retry if self.retry else frozenset()
        request = replace(self.request, shard=(self.number, self.count), retry=retry, cluster=None, part=True)
        return self.run_suite(request).exit_code

    def checkpoint(self) -> Any:
        """Returns what submitit puts back into the queue when the task is preempted or out of time."""
        import submitit

        again = TaskPart(self.run_suite, self.request, self.number, self.count, retry=False)
        return submitit.helpers.DelayedSubmission(again)


@dataclass
class Watched:
    """Jobs that are on their way.

    Args:
        folder: Where their logs lie.
        tasks: Task ids, as ``12_3``.
    """

    folder: Path
    tasks: list[str]

    def failures(self) -> list[str]:
        """Returns one line for each task that ended without having finished its part."""
        import submitit

        lines = []
        for task in self.tasks:
            paths = submitit.core.utils.JobPaths(self.folder, task, 0)
            # Its part is finished if the function has returned; a result that says otherwise holds a traceback.
            outcome = b"success" if paths.result_pickle.is_file() else b""
            if outcome and b"success" in paths.result_pickle.read_bytes()[:200]:
                continue
            log = paths.stderr.read_text(errors="replace").splitlines() if paths.stderr.is_file() else []
            # What Slurm says of a step's end says nothing about its cause.
            own = (line.strip() for line in reversed(log) if line.strip() and not line.startswith("srun:"))
            last = next(own, "it has printed nothing; it was killed, or never started")
            lines.append(f"task {task} ended before its part was finished: {last[:300]} (see {paths.stderr})")
        return lines


def has_slurm() -> bool:
    """Whether jobs can be sent from here."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


class Nowhere:
    """What stands for Slurm where a dry run has none: nothing is sent, and nothing is known of its limits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def largest_array(self) -> int:
        """Returns Slurm's own default."""
        return _MAX_ARRAY

    def submit(self, parts: Sequence[TaskPart]) -> list[str]:
        """Refuses to send anything.

        Raises:
            UserError: Always.
        """
        raise UserError("Nothing can be sent from here; leave --dry-run out where there is a Slurm.")

    def alive(self, tasks: Sequence[str]) -> dict[str, str]:
        """Returns nothing: no task is known here."""
        return {}


class Slurm:
    """Job arrays of a real Slurm.

    Args:
        folder: For logs and pickles.
        resources: What each task gets.

    Raises:
        UserError: There is no Slurm here, or it has no such partition.
    """

    def __init__(self, folder: Path, resources: Resources) -> None:
        self.folder = folder
        self._resources = resources
        if not has_slurm():
            raise UserError(
                "--executor submitit needs Slurm, but sbatch and srun are not in PATH here; use --executor local "
                "--workers N on this machine, or --shard I/N under any other scheduler."
            )
        if resources.partition is not None:
            partitions = _ask(["sinfo", "-h", "-o", "%R"]).split()
            for name in resources.partition.split(","):
                if name not in partitions:
                    raise UserError(f"--slurm-partition: {did_you_mean('partition', name, set(partitions))}")

    def largest_array(self) -> int:
        """Returns Slurm's limit on the tasks of an array."""
        match = re.search(r"MaxArraySize\s*=\s*(\d+)", _ask(["scontrol", "show", "config"]))
        return max(1, int(match[1]) if match else _MAX_ARRAY)

    def submit(self, parts: Sequence[TaskPart]) -> list[str]:
        """Sends the parts and returns the task ids.

        Raises:
            UserError: Slurm refuses them; what was sent before stays.
        """
        import submitit

        ids: list[str] = []
        position = 0
        for size in arrays(len(parts), self.largest_array()):
            executor = submitit.SlurmExecutor(self.folder, max_num_timeout=_TIMEOUTS)
            executor.update_parameters(**self._resources.parameters())
            try:
                with executor.batch():
                    jobs = [executor.submit(part) for part in parts[position : position + size]]
            except submitit.core.utils.FailedJobError as error:
                words = " ".join(str(error).split())
                sent = f" {len(ids)} tasks were sent before; scancel ends them." if ids else ""
                raise UserError(f"Slurm refuses the jobs: {words[-300:]}{sent}") from error
            ids += [str(job.job_id) for job in jobs]
            position += size
            remember(self.folder, ids)
        return ids

    def alive(self, tasks: Sequence[str]) -> dict[str, str]:
        """Returns which tasks wait or run, with their state in Slurm's words."""
        jobs = sorted({task.partition("_")[0] for task in tasks}, key=int)
        if not jobs:
            return {}
        command = ["squeue", "-h", "-r", "-o", "%i|%T|%r", "-j", ",".join(jobs)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            # Jobs that ended long ago are unknown to Slurm; of anything else nothing follows about the jobs.
            return {} if "Invalid job id" in answer.stderr else dict.fromkeys(tasks, "UNKNOWN")
        states = {}
        for line in answer.stdout.splitlines():
            task, state, reason = (*line.strip().split("|"), "", "")[:3]
            if task in set(tasks):
                states[task] = f"{state} ({reason})" if "eld" in reason else state
        return states


class DryRunBackend:
    """The same tasks as processes of this machine: to try a submission out, and for tests.

    Args:
        folder: For logs and pickles.
        resources: `parallel` and `minutes` count; the rest has no meaning here.
    """

    def __init__(self, folder: Path, resources: Resources) -> None:
        self.folder = folder
        self._resources = resources
        self._waiting: list[TaskPart] = []
        self._running: dict[str, Any] = {}
        self._ids: list[str] = []

    def largest_array(self) -> int:
        """There are no arrays here."""
        return _MAX_ARRAY

    def submit(self, parts: Sequence[TaskPart]) -> list[str]:
        """Starts as many as may run side by side; `alive` starts the others, and the list then grows."""
        self._waiting = list(parts)
        self._ids = []
        self._start()
        return self._ids

    def _start(self) -> None:
        import submitit

        while self._waiting and len(self._running) < self._resources.parallel:
            executor = submitit.LocalExecutor(self.folder, max_num_timeout=_TIMEOUTS)
            executor.update_parameters(timeout_min=self._resources.minutes, signal_delay_s=5)
            job = executor.submit(self._waiting.pop(0))
            self._running[job.job_id] = job
            self._ids.append(job.job_id)
            remember(self.folder, self._ids)

    def alive(self, tasks: Sequence[str]) -> dict[str, str]:
        """Returns which of the tasks run; those of an earlier command are known by their process."""
        import psutil

        self._running = {task: job for task, job in self._running.items() if not job.done()}
        self._start()
        states = {}
        for task in tasks:
            if task in self._running:
                states[task] = "RUNNING"
            elif task not in self._ids and psutil.pid_exists(int(task)):
                try:
                    if "submitit.local._local" in psutil.Process(int(task)).cmdline():
                        states[task] = "RUNNING"
                except psutil.Error:
                    continue
        return states | dict.fromkeys((f"part {part.number}" for part in self._waiting), "PENDING")


def _ask(command: list[str]) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        words = " ".join(answer.stderr.split())
        raise UserError(f"Slurm does not answer ({command[0]}: {words[:300]}); is its controller up?")
    return answer.stdout


def remember(folder: Path, tasks: Sequence[str]) -> None:
    """Notes which jobs are on their way."""
    from prunecert.files import write_text

    folder.mkdir(parents=True, exist_ok=True)
    record = {"schema_version": 1, "submitted": utc_now(), "tasks": list(tasks)}
    write_text(folder / "submitted.json", json.dumps(record) + "\n")


def remembered(folder: Path) -> list[str]:
    """Returns the tasks that were noted last."""
    try:
        return [str(task) for task in json.loads((folder / "submitted.json").read_text())["tasks"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


Backend = Slurm | DryRunBackend | Nowhere


def make_backend(executor: str, folder: Path, resources: Resources, *, dry_run: bool, tell: Tell) -> Backend:
    """Returns what takes jobs.

    Args:
        executor: ``"submitit"`` or ``"submitit-local"``.
        folder: For logs and pickles.
        resources: What each task gets.
        dry_run: Whether nothing will be sent; the plan can then be made on any machine.
        tell: Takes a line about what is going on.

    Raises:
        UserError: submitit is not installed, there is no Slurm here, or it has no such partition.
    """
    if dry_run and executor == SLURM and not has_slurm():
        tell(f"no Slurm here: partitions aren't checked, and arrays are taken to have at most {_MAX_ARRAY} tasks")
        return Nowhere(folder)
    if dry_run and executor != SLURM:
        return Nowhere(folder)
    try:
        import submitit  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise UserError(
            f"--executor {executor} needs the package submitit, which is not installed; install it with: "
            "pip install 'prunecert[slurm]' (or pip install submitit)."
        ) from error
    return Slurm(folder, resources) if executor == SLURM else DryRunBackend(folder, resources)


def run(
    plans: Sequence[CellPlan],
    out: Path,
    make_part: Callable[[int, int, bool], TaskPart],
    backend: Backend,
    resources: Resources,
    read_answers: Callable[[bool], KnownAnswers],
    tell: Tell,
    *,
    workers: int | None,
    dry_run: bool,
) -> None:
    """Sends what is left as array tasks, waits for them, and sends again what they left as long as that gets on.

    Args:
        plans: The cells.
        out: The run directory.
        make_part: Makes a task of its number, their count, and whether ``--retry`` counts.
        backend: What takes the jobs.
        resources: What each task gets.
        read_answers: Returns what is finished; its argument says whether ``--retry`` counts.
        tell: Takes a line about what is going on.
        workers: Verifier processes of a task, or None.
        dry_run: Only say what would be done.

    Raises:
        UserError: Slurm refuses the jobs, or a round of tasks has got nothing done.
    """
    folder = backend.folder
    if dry_run:
        for line in describe(out, plans, left(plans, read_answers(True)), resources, workers, backend.largest_array()):
            tell(line)
        return
    earlier = remembered(folder)
    if running := backend.alive(earlier):
        tell(f"{len(running)} tasks of an earlier submission still wait or run: waiting for them, sending no others")
        watch(backend, earlier, out, tell)
    retry, before = True, math.inf
    while (total := sum(images := left(plans, read_answers(retry)))) and total < before:
        before = total
        for line in describe(out, plans, images, resources, workers, backend.largest_array()):
            tell(line)
        count = math.ceil(total / resources.chunk)
        tasks = backend.submit([make_part(number, count, retry) for number in range(1, count + 1)])
        jobs = sorted({task.partition("_")[0] for task in tasks}, key=int)
        tell(f"sent as job {', '.join(jobs)}; Ctrl-C leaves it running, and the same command then waits for it again")
        watch(backend, tasks, out, tell)
        failures = Watched(folder, tasks).failures()
        for line in failures[:3]:
            tell(line)
        if len(failures) > 3:
            tell(f"… and {len(failures) - 3} tasks more")
        retry = False
    if total:
        raise UserError(
            f"{total} images still have something left to be asked, and the last tasks got none of it done; see the "
            f"logs in {folder}. What is finished is kept: the same command goes on."
        )


def watch(backend: Backend, tasks: Sequence[str], out: Path, tell: Tell) -> None:
    """Returns when none of the tasks waits or runs any more; says a line when something has changed."""
    from prunecert.bench.results.store import writer_files

    pause, last = _POLL_S[0], ""
    while states := backend.alive(tasks):
        counts: dict[str, int] = {}
        for state in states.values():
            counts[state] = counts.get(state, 0) + 1
        size = sum(path.stat().st_size for path in writer_files(out)) / 2**20 if out.is_dir() else 0.0
        words = ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items()))
        if words != last:
            tell(f"tasks: {words}; {size:.1f} MiB of results so far")
        last = words
        time.sleep(pause)
        pause = min(pause * 1.2, _POLL_S[1])
