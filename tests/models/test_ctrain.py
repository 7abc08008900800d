"""CTRAIN's checkpoints are read as what they are, or refused by the layer that does not fit.

The files in `data` were written with the classes of ctrain 0.6.1 (CNN5_Mao of width 2, after some passes in training
mode), one as its checkpoints are, one from the bounded module around it; the logits are those of that class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models import NETWORKS, PRUNERS
from prunecert.models.ctrain import CLASSES, load_ctrain
from prunecert.models.export import export_model
from prunecert.models.masks import Masks
from prunecert.models.networks.normalised import cnn5_standardised

DATA = Path(__file__).parent / "data"
FILES = ("ctrain_cnn5_width2.pt", "ctrain_cnn5_width2_bounded.pt")
LOGITS = [
    [-0.57305, 0.27686, 0.00424, -0.00527, 0.59452, -0.58943, 0.25326, 0.08992, 0.48763, -1.04902],
    [-0.50461, -0.02242, 0.36767, 0.03417, 0.75185, -0.02705, 0.29576, 0.08948, 0.31661, -0.62954],
]


def tiny() -> nn.Module:
    return cnn5_standardised(2, 4)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the network of the files."""
    monkeypatch.setitem(NETWORKS._targets, "narrow", "tests.models.test_ctrain:tiny")
    monkeypatch.setitem(CLASSES, "narrow", "CNN5_Mao")


def load(file: Path, network: str = "narrow") -> nn.Module:
    return load_ctrain(file, network, sha256_file(file))


def written(folder: Path, state: Any) -> Path:
    torch.save(state, folder / "a.pt")
    return folder / "a.pt"


def state() -> dict[str, torch.Tensor]:
    whole: dict[str, Any] = torch.load(DATA / FILES[0], weights_only=True)
    tensors: dict[str, torch.Tensor] = whole["model_state_dict"]
    return dict(tensors)


@pytest.mark.parametrize("name", FILES)
def test_the_logits_are_ctrain_s(name: str, tmp_path: Path) -> None:
    model = load(DATA / name)
    images = np.random.default_rng(7).random((2, 3, 32, 32), dtype=np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(images)).numpy()
    assert logits == pytest.approx(np.array(LOGITS), abs=2e-4)
    masks = PRUNERS.get("lwm")(model, 4)
    masks.apply_(model)
    # The check inside compares logits of the exported file.
    assert export_model(model, masks, {}, tmp_path / "a.onnx").compression == pytest.approx(4, rel=1e-2)


def test_standardisation_is_never_trained_nor_counted() -> None:
    model = load(DATA / FILES[0])
    assert sum(mask.numel() for mask in Masks.dense(model).values()) == 3 * 2 * 9 + 4 * 16 + 8 * 16 + 256 * 4 + 40
    first = model.get_submodule("0")
    model.train()
    before = {name: value.clone() for name, value in first.state_dict().items()}
    model(torch.rand(8, 3, 32, 32))
    assert not first.training
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_a_file_of_another_shape_is_refused_by_layer(tmp_path: Path) -> None:
    wide = {**state(), "layers.3.weight": torch.zeros(4, 2, 4, 4)}
    with pytest.raises(
        UserError, match=r"the weight of layer '4' \(Conv2d\) of narrow .* 'layers\.3\.weight' has \[4, 2"
    ):
        load(written(tmp_path, wide))
    short = {name: value for name, value in state().items() if not name.startswith("layers.13")}
    with pytest.raises(UserError, match=r"it ends before the weight of layer '14' \(Linear\)"):
        load(written(tmp_path, short))
    with pytest.raises(UserError, match=r"'layers\.15\.weight' and what follows have no place"):
        load(written(tmp_path, {**state(), "layers.15.weight": torch.zeros(2, 2)}))
    with pytest.raises(UserError, match=r"of cnn5-standardised has the shape \[64, 3, 3, 3\].*CNN5_Mao of width 64"):
        load(DATA / FILES[0], "cnn5-standardised")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"CTRAIN has no network 'cnn-small'; allowed are cnn5-standardised"):
        load(DATA / FILES[0], "cnn-small")
    with pytest.raises(UserError, match=r"There is no file"):
        load_ctrain(tmp_path / "none.pt", "narrow", "0" * 64)
    with pytest.raises(UserError, match=r"its SHA-256 is .* and 0000"):
        load_ctrain(DATA / FILES[0], "narrow", "0" * 64)
    (tmp_path / "b.pt").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"cannot be read .* must be a state dictionary"):
        load(tmp_path / "b.pt")
    for wrong in ({}, {"epoch": 3}, [torch.zeros(2)], {"model_state_dict": {"a": 1}}):
        with pytest.raises(UserError, match=r"holds no state dictionary"):
            load(written(tmp_path, wrong))


def test_a_file_runs_no_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    with pytest.raises(UserError, match="cannot be read"):
        load(written(tmp_path, {"a": Harm()}))
    assert not ran.exists()


def test_every_name_is_a_network_of_the_right_size() -> None:
    assert set(CLASSES) - {"narrow"} <= set(NETWORKS)
    assert Masks.dense(NETWORKS.get("cnn5-standardised")()).total == 4_397_760
    assert Masks.dense(NETWORKS.get("cnn5")()).total == 4_397_760
    assert Masks.dense(NETWORKS.get("cnn7-standardised")()).total == 17_189_568
