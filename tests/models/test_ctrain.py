"""CTRAIN's checkpoints are read as what they are, or refused by the layer that does not fit.

The files in `data` were written with the classes of ctrain 0.6.1 (CNN5_Mao and CNN7_Shi of width 2, after some passes
in training mode), one of each as its checkpoints are, one of CNN5 from the bounded module around it; the logits are
those of these classes. None of the checkpoints that CTRAIN's authors publish was at hand.
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
from prunecert.models.networks.normalised import cnn5_standardised, cnn7_standardised

DATA = Path(__file__).parent / "data"
FILES = ("ctrain_cnn5_width2.pt", "ctrain_cnn5_width2_bounded.pt")
CNN7 = "ctrain_cnn7_width2.pt"
LOGITS = [
    [-0.57305, 0.27686, 0.00424, -0.00527, 0.59452, -0.58943, 0.25326, 0.08992, 0.48763, -1.04902],
    [-0.50461, -0.02242, 0.36767, 0.03417, 0.75185, -0.02705, 0.29576, 0.08948, 0.31661, -0.62954],
]
LOGITS7 = [
    [-0.30147, -0.24242, -0.51499, -0.90474, -0.03261, -0.40288, -0.42499, 0.19904, -0.10637, -0.21834],
    [-0.28964, -0.26338, -0.54332, -0.95865, 0.02763, -0.3631, -0.42332, 0.23279, -0.07659, -0.18371],
]


def tiny() -> nn.Module:
    return cnn5_standardised(2, 4)


def tiny7() -> nn.Module:
    return cnn7_standardised(2, 2)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the networks of the files."""
    monkeypatch.setitem(NETWORKS._targets, "narrow7", "tests.models.test_ctrain:tiny7")
    monkeypatch.setitem(CLASSES, "narrow7", "CNN7_Shi")
    monkeypatch.setitem(NETWORKS._targets, "narrow", "tests.models.test_ctrain:tiny")
    monkeypatch.setitem(CLASSES, "narrow", "CNN5_Mao")


def load(file: Path, network: str = "narrow") -> nn.Module:
    return load_ctrain(file, network, sha256_file(file))


def written(folder: Path, state: Any) -> Path:
    torch.save(state, folder / "a.pt")
    return folder / "a.pt"


def state(name: str = FILES[0]) -> dict[str, torch.Tensor]:
    whole: dict[str, Any] = torch.load(DATA / name, weights_only=True)
    tensors: dict[str, torch.Tensor] = whole["model_state_dict"]
    return dict(tensors)


def logits_of(model: nn.Module) -> np.ndarray[Any, Any]:
    images = np.random.default_rng(7).random((2, 3, 32, 32), dtype=np.float32)
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(images)))


@pytest.mark.parametrize(
    ("name", "network", "logits"),
    [(FILES[0], "narrow", LOGITS), (FILES[1], "narrow", LOGITS), (CNN7, "narrow7", LOGITS7)],
)
def test_the_logits_are_ctrain_s(name: str, network: str, logits: list[list[float]], tmp_path: Path) -> None:
    model = load(DATA / name, network)
    assert logits_of(model) == pytest.approx(np.array(logits), abs=2e-4)
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


def test_cnn7_is_read_by_order_under_the_bounded_module_s_names_too(tmp_path: Path) -> None:
    """The bounded module numbers parameters and buffers, and has no counts of batches."""
    tensors = [value for value in state(CNN7).values() if value.ndim]
    model = load(written(tmp_path, {f"/{number}.param": value for number, value in enumerate(tensors)}), "narrow7")
    assert logits_of(model) == pytest.approx(np.array(LOGITS7), abs=2e-4)


@pytest.mark.parametrize(
    ("network", "change", "message"),
    [
        # One class read as the other is refused at the first layer that tells them apart.
        (
            "narrow",
            {},
            r"the weight of layer '4' \(Conv2d\) of narrow has the shape \[2, 2, 4, 4\].*must be a CNN5_Mao",
        ),
        (
            "narrow7",
            {"layers.6.weight": torch.zeros(4, 2, 4, 4)},
            r"'layers\.6\.weight' has \[4, 2, 4, 4\].* a CNN7_Shi",
        ),
        ("narrow7", {"layers.16.weight": torch.zeros(2, 2048)}, r"'layers\.16\.weight' has \[2, 2048\]"),
        ("narrow7", {"layers.20.weight": torch.zeros(2, 2)}, r"'layers\.20\.weight' and what follows have no place"),
        ("cnn7-standardised", {}, r"has the shape \[64, 3, 3, 3\].*must be a CNN7_Shi of width 64 for CIFAR-10"),
    ],
)
def test_another_shape_of_cnn7_is_refused_by_layer(
    tmp_path: Path, network: str, change: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(written(tmp_path, {**state(CNN7), **change}), network)


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
    assert set(CLASSES) - {"narrow", "narrow7"} <= set(NETWORKS)
    assert Masks.dense(NETWORKS.get("cnn5-standardised")()).total == 4_397_760
    assert Masks.dense(NETWORKS.get("cnn5")()).total == 4_397_760
    assert Masks.dense(NETWORKS.get("cnn7-standardised")()).total == 17_189_568
