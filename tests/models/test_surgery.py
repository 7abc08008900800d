"""Layers are replaced where a card says so, and what fits no network is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO, load_card, load_model
from prunecert.models.masks import prunable
from prunecert.models.networks.factorised import saved
from prunecert.models.networks.grafted import GraftedReLU
from prunecert.models.surgery import operate, replace_layer
from tests.models.conftest import small_residual


def test_layers_within_blocks_are_reached() -> None:
    model = small_residual()
    operate(model, {"grafted": {"3.relu1": [[16, 4, 4], [16, 1, 1]], "7": [[32], [32]]}})
    inner = model.get_submodule("3.relu1")
    assert isinstance(inner, GraftedReLU)
    assert inner.slope.shape == (16, 1, 1)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_no_surgery_changes_nothing(tiny: nn.Module) -> None:
    before = list(tiny.modules())
    operate(tiny, {})
    assert list(tiny.modules()) == before


@pytest.mark.parametrize(
    "surgery",
    [
        {"cut": {}},
        {"grafted": {"0": [[6, 8, 8]] * 2}},
        {"grafted": {"9": [[1], [1]]}},
        {"grafted": {"1": [[-1], [-1]]}},
        {"grafted": {"1": "ab"}},
        {"grafted": {"6": [[True], [True]]}},
        {"grafted": {"1": [[6, 8, 8], [8, 1, 1]]}},
        {"grafted": {"1": [[10**9], [10**9]]}},
        {"grafted": 3},
        {"factorised": {"0": [1]}},
        {"factorised": {"1": [1, 1]}},
        {"factorised": {"5": ["a"]}},
    ],
)
def test_surgery_that_fits_no_network_is_refused(tiny: nn.Module, surgery: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"(is|are) refused"):
        operate(tiny, surgery)


def test_factors_are_put_where_a_card_says(tiny: nn.Module) -> None:
    operate(tiny, {"factorised": {"2": [3, 4], "5": [2]}})
    assert saved(tiny) == {"2.weight": 3 * 6 + 3 * 4 * 16 + 4 * 8, "5.weight": 2 * (128 + 20)}


def test_layers_are_replaced_where_they_are(tiny: nn.Module) -> None:
    relu = GraftedReLU((20,))
    replace_layer(tiny.eval(), "6", relu)
    assert tiny.get_submodule("6") is relu
    assert not relu.training
    assert isinstance(tiny(torch.rand(1, 3, 8, 8)), Tensor)
    assert len(prunable(tiny)) == 4


def test_a_card_with_strange_surgery_names_its_checkpoint(tmp_path: Path) -> None:
    for ending in (".json", ".safetensors"):
        shutil.copy(ZOO / f"cnn-small_ibp_eps2_lwm_x10_s0{ending}", tmp_path / f"net{ending}")
    assert load_card(tmp_path / "net").surgery == {}
    card = json.loads((tmp_path / "net.json").read_text(encoding="utf-8"))
    for surgery, message in (
        ({"grafted": {"0": [[16], [16]]}}, "net.safetensors' is refused: The surgery on layer '0'"),
        ({"grafted": {"1": [[16, 16, 16], [16, 1, 1]]}}, "does not fit network 'cnn-small'"),
        ([], "is refused"),
    ):
        (tmp_path / "net.json").write_text(json.dumps({**card, "surgery": surgery}), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            load_model(tmp_path / "net.safetensors")
