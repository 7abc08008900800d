"""NumPy's products run in one thread where they are told so, and as before afterwards, whatever happens."""

from __future__ import annotations

import pytest

from prunecert.verifiers.rounding import blas_threads


def test_one_thread_and_then_as_before() -> None:
    libraries = blas_threads._blas()
    if not libraries:
        pytest.skip("this NumPy carries no OpenBLAS")
    before = [query() for _, query in libraries]
    try:
        for assign, _ in libraries:
            assign(2)
        two = [query() for _, query in libraries]
        threads: list[int] = []

        def fail() -> None:
            with blas_threads.one_thread():
                threads.extend(query() for _, query in libraries)
                raise ValueError("inside")

        with pytest.raises(ValueError, match="inside"):
            fail()
        assert threads == [1] * len(libraries)
        assert [query() for _, query in libraries] == two
    finally:
        for (assign, _), count in zip(libraries, before, strict=True):
            assign(count)
