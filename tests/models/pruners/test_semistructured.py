"""Two of four: the pattern, the number of weights, the pruners that keep to it and those that refuse it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from prunecert.errors import UserError
from prunecert.models import PRUNERS
from prunecert.models.export import export_model
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import allocate_in_pattern, pattern_room
from prunecert.models.pruners.semistructured import is_two_of_four, pattern
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline

KEEPING = ("lwm", "random", "hydra")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4).filter(lambda shape: len(shape) != 3),
    st.integers(0, 2**31 - 1),
)
def test_the_two_largest_of_each_four_inputs_stay(shape: list[int], seed: int) -> None:
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    mask = pattern(scores)
    assert int(mask.sum()) == pattern_room(shape)
    # By hand: channel by channel, for each output and each place of the kernel by itself.
    rows, expected = scores.flatten(2) if len(shape) > 2 else scores[..., None], torch.zeros(shape, dtype=torch.bool)
    for output in range(shape[0]):
        for place in range(rows.shape[-1]):
            for start in range(0, shape[1], 4):
                four = rows[output, start : start + 4, place]
                for index in four.topk(min(2, len(four))).indices:
                    expected.view(shape[0], shape[1], -1)[output, start + int(index), place] = True
    assert torch.equal(mask, expected)


def test_equal_scores_keep_the_lower_ones() -> None:
    assert pattern(torch.zeros(1, 8)).int().tolist() == [[1, 1, 0, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("compression", [2.0, 3.0, 20.0])
def test_it_holds_and_the_number_of_weights_is_exact(name: str, compression: float, tiny: nn.Module) -> None:
    extra = {"train": Lent()} if name == "hydra" else {}
    masks = PRUNERS.get(name)(tiny, compression, allocation="2of4", **extra)
    assert is_two_of_four(masks)
    assert masks.kept == round(masks.total / compression)
    # Numbers alone break it, where more than a few weights are kept.
    assert compression > 10 or not is_two_of_four(PRUNERS.get(name)(tiny, compression, **extra))


def test_by_magnitude_the_largest_two_stay(tiny: nn.Module) -> None:
    masks = PRUNERS.get("lwm-2of4")(tiny, 2.0)
    weight, mask = prunable(tiny)["5.weight"].detach().abs(), masks["5.weight"]
    fours, kept = weight.view(-1, 4), mask.view(-1, 4)
    assert (kept.sum(1) == 2).all()
    assert torch.equal(fours.masked_fill(~kept, 0).sum(1), fours.topk(2, dim=1).values.sum(1))
    assert masks.sha256() == PRUNERS.get("lwm")(tiny, 2.0, allocation="2of4").sha256()


def test_less_than_half_cannot_be_pruned_and_numbers_alone_have_no_pattern(tiny: nn.Module) -> None:
    with pytest.raises(
        UserError, match=r"refused: at most two of every four .* by '2of4', 2,\d+ in all; allowed is .*2"
    ):
        PRUNERS.get("lwm-2of4")(tiny, 1.5)
    assert allocate_in_pattern({"a": (2, 3), "b": (2, 8)}, 12, "2of4") == {"a": 4, "b": 8}
    with pytest.raises(UserError, match="Keeping 13 of 22"):
        allocate_in_pattern({"a": (2, 3), "b": (2, 8)}, 13, "2of4")


@pytest.mark.parametrize(
    "name", ["lwm-iterative", "harp", "drop-grow", "inheritance", "filter-l1", "lwm-global", "connectivity"]
)
def test_who_keeps_to_no_pattern_says_so_before_training(name: str) -> None:
    one = job(name, 4.0)
    with pytest.raises(UserError, match=r"Allocation '2of4' is refused: .*allowed are uniform, erk, balanced"):
        replace(one, recipe=replace(one.recipe, allocation="2of4")).refuse_unreachable()


def test_regrowth_refuses_it_itself(tiny: nn.Module) -> None:
    with pytest.raises(UserError, match="keeps to no pattern"):
        PRUNERS.get("drop-grow")(tiny, 4.0, train=Lent(), allocation="2of4")


def test_it_is_counted_in_the_exported_file(tiny: nn.Module, tmp_path: Path) -> None:
    masks = PRUNERS.get("lwm-2of4")(tiny, 2.0)
    masks.apply_(tiny)
    export = export_model(tiny, masks, {}, tmp_path / "net.onnx", (3, 8, 8))
    assert export.compression == pytest.approx(2.0, rel=1e-3)
    stored = [numpy_helper.to_array(t) for t in onnx.load(export.path).graph.initializer if t.name.endswith("_weight")]
    assert len(stored) == 4
    assert is_two_of_four(Masks({str(i): torch.from_numpy(np.array(w != 0)) for i, w in enumerate(stored)}))


@pytest.mark.slow
def test_fine_tuning_keeps_the_pattern(tmp_path: Path) -> None:
    from prunecert.models.checkpoint import load_model

    card = pipeline(tmp_path, images=20).run(job("lwm-2of4", 2.0))
    model, masks, _ = load_model(tmp_path / f"{card.name}.safetensors")
    assert is_two_of_four(masks)
    assert masks.holds(model)
