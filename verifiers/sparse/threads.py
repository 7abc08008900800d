"""How many threads this process may use."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait


def threads() -> int:
    """Returns how many threads this process may use: OMP_NUM_THREADS, or NUMBA_NUM_THREADS, or the cores it has."""
    most = len(os.sched_getaffinity(0))
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            most = min(most, int(value))
    return most


@functools.cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="sparse")


def together(count: int, tasks: Sequence[Callable[[], None]]) -> None:
    """Runs tasks, most of them in kernels without Python's lock, in so many threads that this process keeps."""
    if count == 1 or len(tasks) == 1:
        for task in tasks:
            task()
        return
    running = [_pool(count).submit(task) for task in tasks]
    # After an exception in one, too, no thread goes on in what the next question will use.
    wait(running)
    while running:
        # No variable keeps what raises: the exception holds this frame, and would lie in a circle with all its callers.
        running.pop(0).result()


def divide(size: int, parts: int) -> list[tuple[int, int]]:
    """Returns 0, …, size - 1 as so many spans (begin, end) of about one length."""
    return list(itertools.pairwise(size * part // parts for part in range(parts + 1)))
