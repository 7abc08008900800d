"""What a run is made on and when: the clock, versions, processors, and a command as one types it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

import prunecert

_PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "neuralsat", "auto_LiRPA", "foolbox")


def utc_now() -> str:
    """Returns the time as ``2026-01-31T12:00:00Z``."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that have a say in the results; nothing is imported."""
    numbers = {"prunecert": prunecert.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            numbers[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return numbers


def cores() -> int:
    """Returns how many processors this process may use: no more than Slurm has given it, confined or not."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(count, int(limit)) if limit.isdecimal() and int(limit) else count


def machine() -> dict[str, Any]:
    """Returns what a timing depends on: system, processor, cores, memory. No host name: results get published."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def quote(argv: Sequence[str]) -> str:
    """Returns a command as one types it, wherever prunecert is installed; results record ``python -m bench.VERB``.

    Example:
        >>> quote(["python", "-m", "bench.run", "--suite", "mine", "--cells", "a b*"])
        "prunecert run --suite mine --cells 'a b*'"
    """
    import shlex

    words = ["python" if word == sys.executable else word for word in argv]
    if words[:2] == ["python", "-m"] and len(words) > 2:
        house, _, verb = words[2].removeprefix("prunecert.").partition(".")
        if house == "bench" and verb.replace("_", "").isalpha():
            words[:3] = ["prunecert", verb.replace("_", "-")]
    return shlex.join(words)
