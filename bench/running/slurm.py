"""What is asked of Slurm, checked before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunecert.errors import UserError
from prunecert.printable import shortened

LOCAL = "local"
SLURM = "submitit"
#: The same jobs as processes of this machine, to try a submission out.
TRIAL = "submitit-local"
EXECUTORS = (LOCAL, SLURM, TRIAL)
CHUNK = 500
MINUTES = 60
PARALLEL = 256
_LONGEST_MINUTES = 366 * 24 * 60


@dataclass(frozen=True)
class Resources:
    """What each array task gets.

    Args:
        partition: Slurm's partition, or None for its default.
        minutes: Wall-clock limit; a task that reaches it is requeued and goes on.
        cpus: Processors, or None for Slurm's default.
        mem: Memory as Slurm writes it (``"8G"``), or None.
        gres: Generic resources (``"gpu:1"``), or None.
        parallel: Tasks of one array that run side by side at most.
        chunk: Images with something left to be asked, per task.
        extra: Any further options of sbatch, by their long names without dashes.
    """

    partition: str | None = None
    minutes: int = MINUTES
    cpus: int | None = None
    mem: str | None = None
    gres: str | None = None
    parallel: int = PARALLEL
    chunk: int = CHUNK
    extra: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """Returns the parameters in submitit's words."""
        fields: dict[str, Any] = {
            "job_name": "prunecert",
            "time": self.minutes,
            "array_parallelism": self.parallel,
            # Long enough for a task to be put back into the queue, short beside its limit.
            "signal_delay_s": min(90, self.minutes * 15),
            "additional_parameters": {"requeue": True, **self.extra},
        }
        if self.cpus is not None:
            # Since Slurm 22.05 a step does not inherit the number from the job.
            fields |= {"cpus_per_task": self.cpus, "srun_args": [f"--cpus-per-task={self.cpus}"]}
        named = {"partition": self.partition, "mem": self.mem, "gres": self.gres}
        return fields | {key: value for key, value in named.items() if value is not None}

    def describe(self) -> str:
        """Returns the sbatch options as one types them."""
        words = [f"--time={self.minutes}", "--requeue"]
        for key, value in (("partition", self.partition), ("cpus-per-task", self.cpus), ("mem", self.mem)):
            words += [] if value is None else [f"--{key}={value}"]
        words += [] if self.gres is None else [f"--gres={self.gres}"]
        return " ".join([*words, *(f"--{key}={value}" for key, value in self.extra.items())])


def parse_resources(
    *,
    partition: str | None = None,
    time: str | None = None,
    cpus: int | None = None,
    mem: str | None = None,
    gres: str | None = None,
    parallel: int | None = None,
    chunk: int | None = None,
    extra: Sequence[str] = (),
) -> Resources:
    """Reads what is asked of Slurm, in sbatch's words; None: the default.

    Args:
        partition: Names, comma-separated.
        time: Limit of a task; see `parse_minutes`.
        cpus: Processors of a task.
        mem: Memory of a task, as ``"8G"``.
        gres: Generic resources of a task.
        parallel: Tasks of one array side by side.
        chunk: Images per task.
        extra: Further options of sbatch, as ``"account=verify"``.

    Raises:
        UserError: A value makes no sense.
    """
    _match("--slurm-partition", partition, r"[\w.-]+(,[\w.-]+)*", "names like gpu or gpu,long")
    _match("--slurm-mem", mem, r"0*[1-9][0-9]*[KMGT]?", "a number with K, M, G or T, e.g. 8G")
    _match("--slurm-gres", gres, r"[a-z]\w*(:[\w.-]+){0,2}(,[a-z]\w*(:[\w.-]+){0,2})*", "e.g. gpu:1")
    return Resources(
        partition=partition,
        minutes=MINUTES if time is None else parse_minutes(time),
        cpus=cpus,
        mem=mem,
        gres=gres,
        parallel=parallel or PARALLEL,
        chunk=chunk or CHUNK,
        extra=_extra(extra),
    )


def _match(flag: str, value: str | None, pattern: str, allowed: str) -> None:
    if value is not None and not re.fullmatch(pattern, value):
        raise UserError(f"{flag} {value!r} is refused; allowed are {allowed}.")


def parse_minutes(text: str) -> int:
    """Returns a limit in minutes, rounded up.

    Args:
        text: In one of the six forms that sbatch takes: ``"90"`` (minutes), ``"90:00"`` (M:S), ``"1:30:00"``,
            ``"2-12"`` (D-H), ``"2-12:00"``, ``"2-12:00:00"``.

    Raises:
        UserError: It is none of these, or not between a minute and a year.
    """
    shown = shortened(repr(text), 60)
    days, dash, rest = text.rpartition("-")
    # With days the parts begin with hours; without, one part is minutes and two are minutes and seconds.
    scales = (3600, 60, 1) if dash else {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}.get(rest.count(":") + 1, ())
    parts = ([(days, 86_400)] if dash else []) + list(zip(rest.split(":"), scales, strict=False))
    if rest.count(":") >= len(scales) or not all(
        # Parts after a colon are below 60; what comes first may be any number.
        re.fullmatch(r"[0-9]{1,9}" if place == 0 or (dash and place == 1) else r"[0-5]?[0-9]", part)
        for place, (part, _) in enumerate(parts)
    ):
        raise UserError(
            f"--slurm-time {shown} is refused; write it as sbatch takes it: minutes, M:S, H:M:S, D-H, D-H:M or "
            "D-H:M:S, e.g. 90 or 1:30:00."
        )
    total = math.ceil(sum(int(part) * scale for part, scale in parts) / 60)
    if not 1 <= total <= _LONGEST_MINUTES:
        raise UserError(f"--slurm-time {shown} is refused; it must be between a minute and a year.")
    return total


def _extra(words: Sequence[str]) -> dict[str, str]:
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z-]*", key) or not value or "\n" in value:
            raise UserError(f"--slurm-extra {word!r} is refused; write KEY=VALUE, e.g. account=verify.")
        if key in ("array", "output", "error", "open-mode", "signal", "requeue", "time"):
            raise UserError(f"--slurm-extra {key} is refused: it is set already; see --slurm-time, --slurm-parallel.")
        options[key] = value
    return options
