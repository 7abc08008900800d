"""Numbers on the command line are refused as options, by every verb alike."""

from __future__ import annotations

import argparse
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.options import (
    ETA,
    IMAGES,
    MEMORY_MB,
    RADIUS,
    SECONDS,
    SEED,
    THREADS,
    WORKERS,
    parse_statuses,
    whole,
)
from prunecert.errors import EXIT_USAGE, UserError
from prunecert.verifiers.base import Status

SUITE = ("--suite", "cifar10-4nets")


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [(IMAGES, "50000", 50_000), (THREADS, "1", 1), (SEED, "0", 0), (SECONDS, "1e-3", 0.001), (RADIUS, "1", 1.0)],
)
def test_what_makes_sense_is_taken(reader: object, text: str, value: float) -> None:
    assert callable(reader)
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "texts"),
    [
        (THREADS, ("0", "-5", "100000", "1.5", "two", "", "1_0", "٣", "9" * 5000, "1e3", "nan", "\x1b[2J")),
        (WORKERS, ("0", "-1", "5000")),
        (IMAGES, ("0", "50001")),
        (MEMORY_MB, ("-1", "0", "255", "9" * 20)),
        (SEED, ("-1", str(2**31))),
        (SECONDS, ("0", "-1", "nan", "inf", "1e999", "1e9", "", "x", "9" * 5000)),
        (ETA, ("1", "nan")),
        (RADIUS, ("0", "1.1")),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(reader: object, texts: tuple[str, ...]) -> None:
    assert callable(reader)
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match="is refused; it must be") as caught:
            reader(text)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 250


@given(st.integers(-(10**25), 10**25))
def test_limits_are_where_they_are_said_to_be(value: int) -> None:
    reader = whole("things", -7, 10**19)
    if -7 <= value <= 10**19:
        assert reader(str(value)) == value
    else:
        with pytest.raises(argparse.ArgumentTypeError):
            reader(str(value))


@pytest.mark.parametrize(
    "words",
    [
        ("bench.run", *SUITE, "--images", "0"),
        ("bench.run", *SUITE, "--workers", "100000"),
        ("bench.run", *SUITE, "--image-seed", "-1"),
        ("bench.run", *SUITE, "--executor", "submitit", "--chunk", "0"),
        ("bench.run", *SUITE, "--shard", "1/" + "9" * 5000),
        ("bench.train", *SUITE, "--threads", "0"),
        ("bench.export", *SUITE, "--timeout", "nan"),
        ("bench.search", *SUITE, "--cells", "x", "--space", "x", "--out", "x", "--eta", "nan"),
        ("bench.compare", "--workers", "-5"),
        ("bench.compare", "--loop-sample", "0"),
        ("bench.export", *SUITE, "--check", "0"),
        ("bench.train", *SUITE, "--subset", "0"),
        ("bench.sparse_benchmark", "complete", "--onnx", "x", "--threads", "0"),
    ],
    ids=lambda words: " ".join(words[-2:])[:40],
)
def test_every_verb_refuses_it_with_exit_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"prunecert.{words[0]}").main
    with pytest.raises(SystemExit) as refusal:
        main(list(words[1:]))
    assert refusal.value.code == EXIT_USAGE
    printed = capsys.readouterr().err
    assert f"argument {words[-2]}: " in printed
    assert "is refused" in printed


@pytest.mark.parametrize("text", ["unsat", "sat", "timeout,", "failed", ""])
def test_only_what_is_undecided_is_done_again(text: str) -> None:
    with pytest.raises(UserError, match=r"--retry .* is refused; allowed are unknown, timeout"):
        parse_statuses(text)


def test_statuses_are_read_from_words() -> None:
    assert parse_statuses(None) == frozenset()
    assert parse_statuses("timeout, error") == {Status.TIMEOUT, Status.ERROR}
