"""How many threads this process may use."""

from __future__ import annotations

import os


def threads() -> int:
    """Returns how many threads this process may use: OMP_NUM_THREADS, or NUMBA_NUM_THREADS, or the cores it has."""
    most = len(os.sched_getaffinity(0))
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            most = min(most, int(value))
    return most
