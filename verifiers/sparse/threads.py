"""How many threads this process may use."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor


def threads() -> int:
    """Returns how many threads this process may use: OMP_NUM_THREADS, or NUMBA_NUM_THREADS, or the cores it has."""
    most = len(os.sched_getaffinity(0))
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            most = min(most, int(value))
    return most


@functools.cache
def pool(count: int) -> ThreadPoolExecutor:
    """Returns the threads that kernels without Python's lock share in this process."""
    return ThreadPoolExecutor(count, thread_name_prefix="sparse")
