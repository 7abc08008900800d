"""What pruners declare, and what is refused by it."""

from __future__ import annotations

import math

import pytest

from prunecert.errors import UserError
from prunecert.models.masks import Masks
from prunecert.models.pruners.contract import (
    Hook,
    Hooks,
    Method,
    declares,
    method_of,
    refuse_lacking,
)
from prunecert.models.settings import Share


def plain() -> Masks:
    raise AssertionError


@declares(Hook.SCORES, Hook.EPOCH, from_scratch=True)
def demanding() -> Masks:
    raise AssertionError


def test_what_is_declared_is_read_and_nothing_is_the_default() -> None:
    assert method_of(plain) == Method()
    assert method_of(demanding) == Method(frozenset({Hook.SCORES, Hook.EPOCH}), from_scratch=True)
    assert method_of(demanding).learns_scores
    assert not method_of(plain).learns_scores


def test_a_hook_that_is_lacking_is_named() -> None:
    refuse_lacking("demanding", demanding, frozenset(Hook), "training", "another objective")
    with pytest.raises(
        UserError,
        match="'demanding' is refused: it needs epoch with validation feedback, which a loop of steps lacks; "
        "allowed is another pruner, or another objective",
    ):
        refuse_lacking("demanding", demanding, frozenset({Hook.SCORES}), "a loop of steps", "another objective")
    refuse_lacking("plain", plain, frozenset(), "nothing", "another objective")


@declares()
def sharing(model: None, compression: float, *, seed: int = 0, share: Share = 0.5) -> float:
    return share + seed + compression


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_setting_out_of_range_is_refused_with_what_it_is(value: float) -> None:
    with pytest.raises(UserError, match=r"share .* is refused: it must be a number from 0 to 1\."):
        sharing(None, 2.0, share=value)
    assert sharing(None, 2.0, share=0.25, seed=-1) == 1.25


def test_no_two_stretches_share_what_hooks_remember() -> None:
    one, other = Hooks(), Hooks()
    one.memory["count"] = 1
    assert other.memory == {}
