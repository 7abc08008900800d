"""bench.adopt: a network of CTRAIN becomes a checkpoint, and a suite prunes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import prunecert.models.data
from prunecert.bench import train
from prunecert.bench.adopt import main
from prunecert.bench.planning.card import measure, read_card
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models import NETWORKS
from prunecert.models.ap import ARCHITECTURES
from prunecert.models.checkpoint import load_card, load_model
from prunecert.models.ctrain import CLASSES
from prunecert.models.data import Dataset
from prunecert.models.history import read_history
from tests.models.conftest import blobs

#: What the import is called, and the dense cell beside it.
PARENT, CONTROL = "narrow_mtl-ibp_eps2_imported_s0", "narrow_mtl-ibp_eps2_dense_x1_s0"
FILE = Path(__file__).parent.parent / "models" / "data" / "ctrain_cnn5_width2.pt"
SUITE = """
schema_version: 1
name: adopted
description: An imported network, pruned
data: cifar10
cells:
  - networks: [narrow]
    objectives: [mtl-ibp]
    eps: [2/255]
    pruners: [lwm]
    compression: [1, 4]
    seeds: [0]
verify: {images: 2, cascade: [ibp], timeouts: {ibp: 10}}
recipes:
  default: {parent: narrow_mtl-ibp_eps2_imported_s0, prune_epochs: 0, finetune_epochs: 1, batch_size: 20}
"""


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the file's network, and stands in for the data."""

    def load(split: str, *_: Any, **__: Any) -> Dataset:
        return blobs(60 if split == "train" else 20, split)

    monkeypatch.setattr(prunecert.models.data, "load", load)
    monkeypatch.setitem(NETWORKS._targets, "narrow", "tests.models.test_ctrain:tiny")
    monkeypatch.setitem(CLASSES, "narrow", "CNN5_Mao")


def adopt(out: Path, *changes: str) -> int:
    options = ["--file", str(FILE), "--sha256", sha256_file(FILE).upper(), "--network", "narrow"]
    return main([*options, "--objective", "mtl-ibp", "--out", str(out), "--images", "10", *changes])


@pytest.mark.slow
def test_an_imported_network_is_a_checkpoint_and_a_parent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The dense control is a cell of its own, fine-tuned from the parent for as long as the pruned one."""
    assert adopt(tmp_path) == 0
    card = load_card(tmp_path / PARENT)
    assert card.recipe == {"imported": sha256_file(FILE)}
    assert card.accuracy["images"] == 10
    assert card.measured.startswith("first 10 images of the validation split, which whoever trained it first may have")
    assert f"parent: {PARENT}" in capsys.readouterr().out
    suite = tmp_path / "adopted.yaml"
    suite.write_text(SUITE)
    command = ["--suite", str(suite), "--out", str(tmp_path)]
    assert train.main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "2 cells, 0 trained already, 2 to train." in printed
    assert printed.count(f"The parent is {tmp_path / PARENT}.safetensors.") == 1
    before = sha256_file(tmp_path / f"{PARENT}.safetensors")
    assert train.main(command) == 0
    assert "pretrain" not in capsys.readouterr().err
    assert sha256_file(tmp_path / f"{PARENT}.safetensors") == before == card.sha256
    parent, _, _ = load_model(tmp_path / f"{PARENT}.safetensors")
    for name, kept in (("dense_x1", 1), ("lwm_x4", 4)):
        model, masks, own = load_model(tmp_path / f"narrow_mtl-ibp_eps2_{name}_s0.safetensors")
        assert masks.kept == round(masks.total / kept)
        assert (own.recipe["parent"], own.parent_sha256) == (PARENT, card.sha256)
        assert own.measured.startswith("validation split, which whoever trained it first may have trained on; PGD")
        rows = read_history(tmp_path / f"{own.name}.history.jsonl")
        assert [(row.stage, row.epoch) for row in rows] == [("finetune", 1)]
        # A step of fine-tuning moves weights a little: they are still the parent's.
        moves = [
            (model.get_parameter(layer) - parent.get_parameter(layer)).detach().abs()[mask]
            for layer, mask in masks.items()
        ]
        assert 0 < max(float(move.max()) for move in moves) < 0.01
    assert train.main(command) == 0
    assert "2 cells, 2 trained already, 0 to train." in capsys.readouterr().out
    replaced = tmp_path / "other.pt"
    state = torch.load(FILE, weights_only=True)["model_state_dict"]
    torch.save({name: value * 1.5 if value.ndim == 2 else value for name, value in state.items()}, replaced)
    assert adopt(tmp_path, "--force", "--file", str(replaced), "--sha256", sha256_file(replaced)) == 0
    with pytest.raises(UserError, match=rf"dense_x1_s0.json was trained from another parent \(its '{PARENT}' had"):
        train.main([*command, "--dry-run"])


@pytest.mark.slow
def test_without_fine_tuning_the_dense_control_is_the_parent(tmp_path: Path) -> None:
    adopt(tmp_path)
    suite = tmp_path / "adopted.yaml"
    suite.write_text(SUITE.replace("finetune_epochs: 1", "finetune_epochs: 0"))
    assert train.main(["--suite", str(suite), "--out", str(tmp_path), "--cells", "*dense*"]) == 0
    dense, parent = (load_model(tmp_path / f"{name}.safetensors")[0].state_dict() for name in (CONTROL, PARENT))
    assert all(torch.equal(value, parent[name]) for name, value in dense.items())


def test_a_parent_of_a_cells_name_is_refused_for_that_cell(tmp_path: Path) -> None:
    """What is imported has another name; what was trained may have it, and must not be replaced by its own child."""
    suite = tmp_path / "adopted.yaml"
    suite.write_text(SUITE.replace(PARENT, CONTROL))
    with pytest.raises(UserError, match=rf"^{CONTROL} is refused: its recipe's parent has its own name"):
        train.main(["--suite", str(suite), "--out", str(tmp_path), "--force"])
    with pytest.raises(UserError, match=f"narrow_mtl-ibp_eps2_lwm_x4_s0: there is no parent '{CONTROL}'"):
        train.main(["--suite", str(suite), "--out", str(tmp_path), "--cells", "*_x4_*"])


@pytest.mark.slow
def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    adopt(tmp_path)
    with pytest.raises(UserError, match=r"is there already; allowed are --force"):
        adopt(tmp_path)
    assert adopt(tmp_path, "--force") == 0
    assert adopt(tmp_path, "--seed", "1") == 0
    with pytest.raises(SystemExit) as refusal:
        adopt(tmp_path, "--seed", "-1")
    assert refusal.value.code == 2, "no card has such a seed, so that it couldn't be a parent"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--images", "0"), r"--images 0 is refused"),
        (("--objective", "mtl"), r"Unknown objective 'mtl'.*Did you mean 'mtl-ibp'"),
        (("--sha256", "00"), r"its SHA-256 is"),
        (("--network", "cnn-small"), r"CTRAIN has no network 'cnn-small'"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adopt(tmp_path, *changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parent", "pruner", "message"),
    [
        ("nobody", "lwm", r"there is no parent 'nobody'"),
        ("cnn-small_ibp_eps2_dense_x1_s0", "lwm", r"it is a cnn-small that keeps 214,760 .* a dense narrow"),
        ("narrow_mtl-ibp_eps2_imported_s0", "lwm-rewind", r"lwm-rewind begins at the initial weights"),
    ],
)
def test_a_parent_that_does_not_fit_is_refused_before_data_is_loaded(
    tmp_path: Path, parent: str, pruner: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopt(tmp_path)
    monkeypatch.setattr(prunecert.models.data, "load", lambda *_, **__: pytest.fail("the data was loaded"))
    suite = tmp_path / "adopted.yaml"
    suite.write_text(SUITE.replace(PARENT, parent).replace("[lwm]", f"[{pruner}]"))
    with pytest.raises(UserError, match=message):
        train.main(["--suite", str(suite), "--cells", "*_x4_*", "--out", str(tmp_path)])


KEY = "HARP_Zhao2023Holistic_R18_CIFAR10_US_90"


def pruned_file(folder: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> list[str]:
    """Returns options for a narrow ResNet-18 with that share of zeros."""
    monkeypatch.setitem(NETWORKS._targets, "narrow-resnet", "tests.models.test_ap:narrow_resnet")
    monkeypatch.setitem(ARCHITECTURES, "R18", "narrow-resnet")
    torch.manual_seed(0)
    state = NETWORKS.get("narrow-resnet")().state_dict()
    for value in state.values():
        if value.ndim > 1:
            value.mul_(torch.rand(value.shape) > share)
    torch.save(state, folder / "net.pt")
    return ["--file", str(folder / "net.pt"), "--sha256", sha256_file(folder / "net.pt"), "--out", str(folder)]


def test_a_network_of_the_pruning_benchmark_becomes_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*pruned_file(tmp_path, monkeypatch, 0.9), "--ap-key", KEY]
    assert main(options) == 0
    printed = capsys.readouterr().out
    card = read_card(tmp_path / f"{KEY.lower()}.yaml")
    assert (card.network, card.pruner, str(card.eps)) == ("narrow-resnet", "harp", "8/255")
    cell, export = measure(card)
    assert cell.compression == pytest.approx(10, rel=0.05)
    assert export.sparsity == pytest.approx(0.9, abs=0.01)
    assert f"--suite cifar10-ap --card {card.path}" in printed
    with pytest.raises(UserError, match="is there already"):
        main(options)


def test_zeros_that_are_not_the_keys_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"5\d\.\d% of its weights are zero, and its key says 90 %"):
        main([*pruned_file(tmp_path, monkeypatch, 0.5), "--ap-key", KEY])
    with pytest.raises(UserError, match="--network is needed"):
        main(["--file", "x", "--sha256", "0"])


def test_a_structured_key_is_held_against_filters_channels_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "FRE_Author2023_R18_CIFAR10_S_50"
    with pytest.raises(UserError, match=r"0\.0% of its filters, .* of its channels and .* and its key says 50 %"):
        main([*pruned_file(tmp_path, monkeypatch, 0.0), "--ap-key", key])
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    for value in state.values():
        if value.ndim == 4:
            value[: len(value) // 2] = 0
    torch.save(state, tmp_path / "net.pt")
    options = ["--file", str(tmp_path / "net.pt"), "--sha256", sha256_file(tmp_path / "net.pt"), "--out", str(tmp_path)]
    assert main([*options, "--ap-key", key]) == 0
