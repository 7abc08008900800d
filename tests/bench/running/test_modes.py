from __future__ import annotations

from dataclasses import replace

import pytest

from prunecert.bench.running.modes import Certified, Compared, Plain, Timed, mode_of
from prunecert.bench.running.request import Cluster, RunRequest
from prunecert.bench.running.slurm import Resources
from prunecert.bench.schema.suite import available_suites, load_suite
from prunecert.errors import UserError


def test_times_are_neither_sent_nor_shared_out() -> None:
    suite = load_suite("cifar10-timing")
    for more, flag in (
        ({"cluster": Cluster("submitit", Resources())}, "--executor"),
        ({"shard": (1, 2)}, "--shard"),
        ({"workers": 2}, "--workers"),
        ({"device": "cuda:0,cuda:1"}, "--device"),
        ({"submit": True}, "--submit"),
        ({"certificates": True}, "--certificates"),
    ):
        request = replace(RunRequest(suite=suite, named="mine.yaml"), **more)
        with pytest.raises(UserError, match=f"{flag} is refused: suite 'mine.yaml' takes times"):
            mode_of(suite).refuse(request)


def test_the_suite_says_what_it_is_for() -> None:
    chosen = {name: mode_of(load_suite(name)) for name in available_suites()}
    assert isinstance(chosen["cifar10-4nets"], Plain)
    assert isinstance(chosen["cifar10-timing"], Timed)
    smoothing = chosen["cifar10-smoothing"]
    assert isinstance(smoothing, Certified)
    assert isinstance(smoothing.first, Plain)
    pairs = chosen["cifar10-pairs"]
    assert isinstance(pairs, Compared)
    assert isinstance(pairs.first, Plain)


def test_what_is_verified_at_other_radii_than_it_was_trained_for_is_no_entry() -> None:
    suite = load_suite("cifar10-4nets")
    (cell, protocol), *_ = suite.cells
    swept = replace(suite, cells=((replace(cell, eps=cell.eps / 2, trained_eps=cell.eps), protocol),))
    Plain().refuse(RunRequest(suite=swept))
    with pytest.raises(UserError, match="--submit is refused with trained_eps"):
        Plain().refuse(RunRequest(suite=swept, submit=True))
    balls = replace(swept, cells=((replace(swept.cells[0][0], ball=True), protocol),))
    Plain().refuse(RunRequest(suite=balls))
    with pytest.raises(UserError, match="--submit is refused with norm l2"):
        Plain().refuse(RunRequest(suite=balls, submit=True))


def test_rounded_weights_are_no_entry() -> None:
    suite = load_suite("cifar10-bits")
    mode_of(suite).refuse(RunRequest(suite=suite))
    with pytest.raises(UserError, match="--submit is refused with bits"):
        mode_of(suite).refuse(RunRequest(suite=suite, submit=True))
