"""Work is divided without gaps, and its errors are not lost."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse import threads


@given(size=st.integers(0, 1000), parts=st.integers(1, 40))
def test_spans_cover_everything_once_and_are_of_about_one_length(size: int, parts: int) -> None:
    spans = threads.divide(size, parts)
    assert len(spans) == parts
    assert [place for begin, end in spans for place in range(begin, end)] == list(range(size))
    lengths = [end - begin for begin, end in spans]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_tasks_run(count: int) -> None:
    numbers: list[int] = []
    threads.together(count, [functools.partial(numbers.append, k) for k in range(10)])
    assert sorted(numbers) == list(range(10))


@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_is_raised_when_no_thread_goes_on(count: int) -> None:
    numbers: list[int] = []

    def fail() -> None:
        raise MemoryError("too much")

    with pytest.raises(MemoryError, match="too much"):
        threads.together(count, [functools.partial(numbers.append, 1), fail, functools.partial(numbers.append, 2)])
    assert numbers == ([1] if count == 1 else [1, 2])


@pytest.mark.parametrize(("value", "most"), [("1", 1), ("0", None), ("many", None), ("-1", None)])
def test_the_environment_limits_them_where_it_says_a_number(
    value: str, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = threads.threads()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads.threads() == (most or free)
