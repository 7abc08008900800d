"""Weights of a few bits are what they are said to be, in the file that verifiers get."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from prunecert.errors import UserError
from prunecert.models import PRUNERS
from prunecert.models.bits import BITS_KEY, count_bits, round_file, round_weight, weights_of
from prunecert.models.export import export_model
from prunecert.models.masks import Masks


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**31 - 1), st.integers(-110, 100))
def test_rounding_is_exact_symmetric_and_to_the_nearest(bits: int, seed: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    weight = np.ldexp(rng.standard_normal((3, 2, 2, 2)), exponent).astype(np.float32)
    weight[1, 0] = 0.0
    rounded = round_weight(weight, bits)
    limit, scales = 2 ** (bits - 1) - 1, rounded.scales.astype(np.float64).reshape(3, 1, 1, 1)
    assert np.abs(rounded.integers).max() <= limit
    # The product is the stored number itself, in real arithmetic.
    assert np.array_equal(rounded.integers * scales, rounded.values.astype(np.float64))
    alive = scales[:, 0, 0, 0] != 1.0
    error = np.abs(rounded.values.astype(np.float64) - weight)
    assert (error[alive] <= scales[alive] / 2).all()
    assert not rounded.values[weight == 0].any()
    # The largest weight of a channel keeps the largest integer, so that rounding again changes nothing.
    assert (np.abs(rounded.integers).reshape(3, -1).max(axis=1)[alive] == limit).all()
    assert np.array_equal(round_weight(rounded.values, bits).values, rounded.values)
    assert np.array_equal(round_weight(-weight, bits).values, -rounded.values)


def test_a_channel_without_weights_has_none_and_huge_ones_are_refused() -> None:
    assert not round_weight(np.full((1, 2), 1e-38, dtype=np.float32), 4).values.any()
    with pytest.raises(UserError, match="can't be rounded within float32"):
        round_weight(np.array([[np.finfo(np.float32).max]], dtype=np.float32), 8)
    for bits in (1, 9, 32):
        with pytest.raises(UserError, match=f"{bits} bits are refused; allowed are 2 to 8"):
            round_weight(np.ones((1, 1), dtype=np.float32), bits)


@pytest.fixture(name="exported")
def _exported(tiny: nn.Module, tmp_path: Path) -> Path:
    masks = PRUNERS.get("lwm")(tiny, 4.0)
    masks.apply_(tiny)
    export_model(tiny, masks, {}, tmp_path / "net.onnx", (3, 8, 8))
    return tmp_path / "net.onnx"


def test_what_is_counted(exported: Path, tmp_path: Path) -> None:
    whole, count = count_bits(exported), round_file(exported, tmp_path / "few.onnx", [4])
    assert [layer.bits for layer in whole.layers] == [32] * 4
    kept = sum(layer.nonzero for layer in whole.layers)
    assert whole.compression == pytest.approx(4.0, rel=1e-3)
    assert whole.kilobytes == pytest.approx((kept + 6 + 8 + 20 + 10) * 4 / 1000)
    assert [layer.bits for layer in count.layers] == [4] * 4
    left = sum(layer.nonzero for layer in count.layers)
    assert left <= kept, "what rounds to zero is a zero"
    assert (count.scales, count.others, count.weight_bits) == (44, 44, 4 * left)
    assert count.kilobytes == pytest.approx((left / 2 + 88 * 4) / 1000)
    assert count_bits(tmp_path / "few.onnx") == count


def test_each_layer_may_have_its_own_and_biases_stay(exported: Path, tmp_path: Path) -> None:
    names = weights_of(exported)
    round_file(exported, tmp_path / "mixed.onnx", [8, 4, 2, 6])
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        for path in (exported, tmp_path / "mixed.onnx")
    )
    for name, bits in zip(names, [8, 4, 2, 6], strict=True):
        assert np.array_equal(after[name], round_weight(before[name], bits).values)
        assert len(np.unique(np.abs(after[name][0]))) <= 2 ** (bits - 1)
    assert all(np.array_equal(before[name], after[name]) for name in before.keys() - set(names))
    assert round_file(exported, tmp_path / "other.onnx", {names[0]: 5}).layers[1].bits == 32


def test_bits_that_do_not_fit_and_files_that_do_not_keep_to_theirs(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"8/4 are refused: the network has 4 layers with weights; allowed is one"):
        round_file(exported, tmp_path / "few.onnx", [8, 4])
    assert not (tmp_path / "few.onnx").exists()
    model = onnx.load(exported)
    model.metadata_props.add(key=BITS_KEY, value=json.dumps({weights_of(exported)[0]: 3}))
    onnx.save(model, tmp_path / "liar.onnx")
    with pytest.raises(UserError, match=r"holds other numbers than those of 3 bits"):
        count_bits(tmp_path / "liar.onnx")
    model.metadata_props[-1].value = "[]"
    onnx.save(model, tmp_path / "liar.onnx")
    with pytest.raises(UserError, match=r"record of bits .* is damaged"):
        count_bits(tmp_path / "liar.onnx")


def test_a_layer_that_would_be_emptied_is_named(tmp_path: Path) -> None:
    linear = nn.Linear(4, 2)
    nn.init.constant_(linear.weight, 1e-35)
    layer = nn.Sequential(nn.Flatten(), linear)
    export_model(layer, Masks.dense(layer), {}, tmp_path / "net.onnx", (1, 2, 2))
    with pytest.raises(UserError, match=r"at 4 bits: all of '1_weight' would be zero"):
        round_file(tmp_path / "net.onnx", tmp_path / "few.onnx", [4])
