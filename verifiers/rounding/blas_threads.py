"""The threads of NumPy's matrix products."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Has NumPy's products run in one thread, where its OpenBLAS can be told so.

    These are small products beside verifiers that keep all cores busy, where threads that wait for each other take
    twenty times as long as one.
    """
    before = [(library, library[1]()) for library in _blas()]
    for (assign, _), _ in before:
        assign(1)
    try:
        yield
    finally:
        for (assign, _), threads in before:
            assign(threads)


@functools.cache
def _blas() -> list[tuple[Callable[[int], None], Callable[[], int]]]:
    """Returns how to set and to get the threads of the OpenBLAS in NumPy's wheel."""
    libraries = []
    for path in sorted((Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*")):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))
            for start, end in itertools.product(("scipy_openblas", "openblas"), ("64_", "")):
                assign, query = (getattr(library, f"{start}_{verb}_num_threads{end}", None) for verb in ("set", "get"))
                if assign is not None and query is not None:
                    assign.argtypes, assign.restype, query.restype = [ctypes.c_int], None, ctypes.c_int
                    libraries.append((assign, query))
                    break
    return libraries
