"""Which processors and cards the verifier processes of one machine get, each its own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.machine import cores
from prunecert.errors import UserError
from prunecert.printable import plural

_TOPOLOGY = Path("/sys/devices/system/cpu")
#: The load average forgets within minutes: what has just ended, a training before its run, is no other work.
_LOAD_MARGIN = 1.0


def parse_devices(text: str) -> tuple[str, ...]:
    """Splits ``"cuda:0,cuda:1"``.

    Args:
        text: What stands behind ``--device``.

    Returns:
        The devices; a single one is taken as it stands, whether it exists is found out by who uses it.

    Raises:
        UserError: A list holds something else than different CUDA devices with their numbers.
    """
    devices = tuple(word.strip() for word in text.split(","))
    if len(devices) > 1 and (
        len(set(devices)) < len(devices) or not all(re.fullmatch(r"cuda:[0-9]+", word) for word in devices)
    ):
        raise UserError(
            f"--device {text!r} is refused; a list must name different CUDA devices with their numbers, "
            "e.g. cuda:0,cuda:1."
        )
    return devices


def share_out(devices: Sequence[str], workers: int | None) -> tuple[str, ...]:
    """Returns the device of each worker, the workers' number being a multiple of the devices'.

    Args:
        devices: Two or more.
        workers: How many, or None for one a device.

    Raises:
        UserError: The workers can't be shared out evenly.
    """
    count = len(devices) if workers is None else workers
    if count % len(devices):
        raise UserError(
            f"--workers {count} is refused with {len(devices)} devices; it must be a multiple of {len(devices)}, "
            "so that each device gets as many."
        )
    return tuple(devices[number % len(devices)] for number in range(count))


def default_workers(device: str) -> int:
    """Returns how many verifier processes to run side by side: one a core, each with 2 GiB of free memory."""
    import psutil

    if device != "cpu":
        return 1
    return max(1, min(cores(), int(psutil.virtual_memory().available // (2 << 30))))


def crowd_hint(workers: int, device: str, cores: int) -> str:
    """Returns what slows a run down beside its own work; nothing where it has the processors to itself.

    Limits are of wall time: what was proved near one becomes a timeout beside other work.

    Args:
        workers: Verifier processes side by side.
        device: What they compute on.
        cores: Processors that this process may use.
    """
    if device == "cpu" and workers > cores:
        return (
            f"hint: {workers} verifier processes share {plural(cores, 'core')}, and slow each other down; "
            f"--workers {cores} ends that."
        )
    processors = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > processors + _LOAD_MARGIN:
        return (
            f"hint: other work keeps {plural(processors, 'processor')} busy already (load average "
            f"{load:.1f}); answers near their time limits become timeouts, which --retry timeout asks again."
        )
    return ""


def core_sets(workers: int) -> tuple[tuple[int, ...], ...] | None:
    """Returns disjoint sets of processors of one size, one a worker; siblings of a core stay together.

    None where nothing is gained or nothing may be taken for granted: with one worker, with fewer processors than
    workers, where the system has no such thing, and where this process may use fewer processors than it sees (a
    batch system that confines nobody: two jobs would take the same ones).

    Args:
        workers: How many worker processes run side by side.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cpus = sorted(os.sched_getaffinity(0), key=_place)
    if workers < 2 or workers > len(cpus) or cores() < len(cpus):
        return None
    size = len(cpus) // workers
    return tuple(tuple(sorted(cpus[number * size : (number + 1) * size])) for number in range(workers))


def _place(cpu: int) -> tuple[int, int, int]:
    """Sorts processors by socket, core and number."""
    numbers = []
    for name in ("physical_package_id", "core_id"):
        try:
            numbers.append(int((_TOPOLOGY / f"cpu{cpu}" / "topology" / name).read_text()))
        except (OSError, ValueError):
            numbers.append(0)
    return numbers[0], numbers[1], cpu
