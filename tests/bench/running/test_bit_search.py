"""Bits are exchanged between layers within a size, and only for something better."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunecert.bench.planning.exports import Export
from prunecert.bench.running.bit_search import (
    Bits,
    Score,
    VerifiedJudge,
    check_verifier,
    exchanged,
    exchanges,
    search_bits,
    start_of,
)
from prunecert.errors import UserError
from prunecert.models import PRUNERS
from prunecert.models.bits import BitCount, count_bits
from prunecert.models.data import Dataset
from prunecert.models.export import export_model
from prunecert.verifiers.base import Instance, Status, Verdict
from prunecert.verifiers.formats.counterexample import outputs

NOTHING = BitCount((), 0)


def size(bits: Bits, kept: list[int]) -> int:
    return sum(width * count for width, count in zip(bits, kept, strict=True))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=4), st.integers(3, 7), st.integers(0, 2**31 - 1))
def test_every_step_is_better_and_none_exceeds_the_size(kept: list[int], bits: int, seed: int) -> None:
    gains = np.random.default_rng(seed).random(len(kept))
    tried: list[Bits] = []

    def judge(widths: Bits) -> tuple[Score, BitCount]:
        tried.append(widths)
        return Score(0, float(np.dot(gains, np.sqrt(widths)))), NOTHING

    start = (bits,) * len(kept)
    path = search_bits(start, judge, kept, lambda _: None)
    scores = [trial.score for trial in path]
    assert scores == sorted(set(scores))
    assert len(tried) == len(set(tried)), "nothing is tried twice"
    assert all(size(widths, kept) <= size(start, kept) for widths in tried)
    assert all(2 <= width <= 8 for widths in tried for width in widths)
    # No exchange that is left is an improvement.
    last = path[-1].bits
    for pair in exchanges(last):
        other = exchanged(last, *pair, size(start, kept), lambda widths: size(widths, kept))
        assert other is None or judge(other)[0] <= scores[-1]


def test_proofs_count_before_margins_and_a_small_layer_gets_what_a_large_one_gives() -> None:
    def judge(widths: Bits) -> tuple[Score, BitCount]:
        return Score(int(widths[0] >= 7), -float(widths[0])), NOTHING

    (first, second) = search_bits((4, 4), judge, [10, 100], lambda _: None)
    assert (first.bits, second.bits) == ((4, 4), (8, 3))


def test_a_layer_that_would_be_emptied_is_passed_over_and_other_refusals_are_not() -> None:
    lines: list[str] = []

    def judge(widths: Bits) -> tuple[Score, BitCount]:
        if min(widths) < 4:
            raise UserError("net at 3 bits: all of 'a' would be zero.")
        return Score(0, 0.0), NOTHING

    assert len(search_bits((4, 4), judge, [1, 1], lines.append)) == 1
    assert sum("would be zero" in line for line in lines) == 2
    with pytest.raises(UserError, match="nothing to begin with"):
        search_bits((3, 3), judge, [1, 1], lines.append)

    def failing(widths: Bits) -> tuple[Score, BitCount]:
        raise UserError("The search is stopped: it died")

    with pytest.raises(UserError, match="it died"):
        search_bits((4, 4), failing, [1, 1], lines.append)


def test_who_proves_nothing_is_refused() -> None:
    check_verifier("sparse-crown-ibp")
    with pytest.raises(UserError, match="proves nothing"):
        check_verifier("pgd")
    with pytest.raises(UserError, match="sparse-pair is refused because it compares two networks"):
        check_verifier("sparse-pair")
    with pytest.raises(UserError, match="Did you mean 'sparse-crown'") as refused:
        check_verifier("sparse-crow")
    assert "sparse-bab" in str(refused.value)
    assert not any(name in str(refused.value) for name in ("pgd", "sparse-pair", "smoothing", "autoattack"))


class _Verifier:
    """Proves every second question, or fails."""

    def __init__(self, status: Status) -> None:
        self.status, self.names = status, list[str]()

    def verify(self, instances: list[Instance]) -> list[Verdict]:
        self.names += [instance.onnx.name for instance in instances]
        return [
            Verdict(Status.UNSAT, bounds=(0.5, 2.0)) if i % 2 == 0 else Verdict(self.status, "died", bounds=(-3.0, 1.0))
            for i in range(len(instances))
        ]


def test_the_score_is_of_the_rounded_file_and_a_failure_ends_the_search(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
    masks = PRUNERS.get("lwm")(network, 4.0)
    masks.apply_(network)
    path = tmp_path / "net.onnx"
    export_model(network, masks, {}, path, (3, 8, 8))
    export = Export(path, "", 0.75, 4.0, "", {})
    images = np.random.default_rng(0).random((6, 3, 8, 8), dtype=np.float32)
    labels = outputs(path, images).argmax(axis=1)
    labels[5] = (labels[5] + 1) % 10
    data = Dataset(images, labels, np.arange(6), "val", "f", True, False, "")
    start, kept = start_of(export, 8)
    assert (start, kept) == ((8,) * 2, [layer.nonzero for layer in count_bits(path).layers])
    verifier = _Verifier(Status.UNKNOWN)
    judge = VerifiedJudge(export, tmp_path, data, range(2, 6), Fraction(1, 100), verifier, 5.0)  # type: ignore[arg-type]
    score, count = judge(start)
    assert set(verifier.names) == {"net_b8-8.onnx"}
    assert [layer.bits for layer in count.layers] == [8] * 2
    # Three of four are classified correctly; two are proved; no bound counts for more than 1 or less than -1.
    assert score == Score(2, (0.5 - 1.0 + 0.5 - 1.0) / 4)
    with pytest.raises(UserError, match=r"The search is stopped: .* failed at 8/8 bits: died"):
        VerifiedJudge(export, tmp_path, data, range(4), Fraction(1, 100), _Verifier(Status.ERROR), 5.0)(start)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"doesn't take the network of 8/8 bits: died"):
        VerifiedJudge(export, tmp_path, data, range(4), Fraction(1, 100), _Verifier(Status.UNSUPPORTED), 5.0)(start)  # type: ignore[arg-type]
