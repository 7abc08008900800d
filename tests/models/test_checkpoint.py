"""Checkpoints come back as they were, and damaged ones don't come back at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models import NETWORKS, PRUNERS
from prunecert.models.checkpoint import ZOO, load_card, load_model, round_to_half, save
from prunecert.models.masks import Masks


def card(**changes: Any) -> dict[str, Any]:
    return {
        "name": "cell",
        "network": "cnn-small",
        "objective": "ibp",
        "eps": "2/255",
        "pruner": "lwm",
        "compression": 10.0,
        "seed": 0,
        "recipe": {},
        "accuracy": {"clean": 0.5},
        "measured": "not at all",
        "data_fingerprint": "0" * 64,
        "versions": {},
        "device": "cpu",
        "train_seconds": 1.0,
        "command": "python -m bench.train --suite s --cells cell",
        **changes,
    }


def saved(folder: Path, ratio: float = 10, network: str = "cnn-small") -> tuple[Path, nn.Module, Masks]:
    torch.manual_seed(0)
    model = NETWORKS.get(network)()
    masks = PRUNERS.get("lwm")(model, ratio)
    masks.apply_(model)
    save(folder, model, masks, **card(network=network, compression=float(ratio)))
    return folder / "cell.safetensors", model, masks


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1, 2, 10, 100])
@pytest.mark.parametrize("network", ["cnn-small", "vgg16"])
def test_round_trip(tmp_path: Path, ratio: float, network: str) -> None:
    file, model, masks = saved(tmp_path, ratio, network)
    again, masks_again, read = load_model(file)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert masks_again.sha256() == masks.sha256() == read.mask_sha256
    assert read.kept == masks.kept
    assert read.sparsity == pytest.approx(1 - 1 / ratio, abs=1e-5)
    assert set(read.sparsity_by_layer) == set(masks)
    assert not again.training


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1, 10])
@pytest.mark.parametrize("network", ["cnn-small", "vgg-8"])
def test_weights_rounded_to_half_take_half_the_bytes_and_come_back_the_same(
    tmp_path: Path, ratio: float, network: str
) -> None:
    whole, model, masks = saved(tmp_path / "whole", ratio, network)
    changes = card(network=network, recipe={"storage": "float16"}, compression=float(ratio))
    with pytest.raises(ValueError, match=r"stored in float16 and holds other values"):
        save(tmp_path / "half", model, masks, **changes)
    round_to_half(model)
    save(tmp_path / "half", model, masks, **changes)
    file = tmp_path / "half" / "cell.safetensors"
    again, masks_again, _ = load_model(file)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert value.dtype == again.state_dict()[name].dtype
    assert masks_again.sha256() == masks.sha256()
    # A pruned one has a bit a weight besides.
    assert file.stat().st_size < (0.55 if ratio == 1 else 0.7) * whole.stat().st_size


def test_a_weight_too_large_for_half_is_named() -> None:
    model = NETWORKS.get("cnn-small")()
    with torch.no_grad():
        model.get_parameter("5.weight")[0, 0] = 1e6
    with pytest.raises(UserError, match=r"'5\.weight' cannot be stored in float16: the largest is 1e\+06"):
        round_to_half(model)


def test_a_kept_weight_that_is_zero_stays_kept(tmp_path: Path) -> None:
    model = NETWORKS.get("cnn-small")()
    masks = PRUNERS.get("lwm")(model, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    save(tmp_path, model, masks, **card())
    assert load_model(tmp_path / "cell.safetensors")[1].sha256() == masks.sha256()


def test_what_a_pruner_noted_stands_on_the_card_and_nothing_where_it_noted_nothing(tmp_path: Path) -> None:
    model = NETWORKS.get("cnn-small")()
    for notes in ({}, {"excess": 0.001, "rounds": [{"kept": 3}]}):
        save(tmp_path, model, Masks.dense(model), **card(), notes=notes)
        assert load_card(tmp_path / "cell.json").notes == notes
        assert ("notes" in json.loads((tmp_path / "cell.json").read_text())) == bool(notes)


def test_pruned_checkpoints_are_small(tmp_path: Path) -> None:
    dense = saved(tmp_path / "dense", 1)[0].stat().st_size
    pruned = saved(tmp_path / "pruned", 10)[0].stat().st_size
    # A tenth of the weights, and a bit for each: 1/10 + 1/32.
    assert pruned < 0.15 * dense


def test_saving_a_network_that_breaks_its_masks_is_a_bug(tmp_path: Path) -> None:
    model = NETWORKS.get("cnn-small")()
    with pytest.raises(ValueError, match="not zero"):
        save(tmp_path, model, PRUNERS.get("lwm")(model, 10), **card())
    assert not list(tmp_path.iterdir())


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    file, _, _ = saved(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"SHA-256 .* truncated or another file"):
        load_model(file)
    file.unlink()
    with pytest.raises(UserError, match=r"no checkpoint .* prunecert train --suite s --cells cell"):
        load_model(file)
    with pytest.raises(UserError, match="There is no card"):
        load_model(tmp_path / "other.safetensors")


def rewrite(file: Path, **changes: Any) -> None:
    data = json.loads(file.with_suffix(".json").read_text())
    data.update(changes)
    file.with_suffix(".json").write_text(json.dumps(data))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    file, _, _ = saved(tmp_path)
    rewrite(file, network="cnn-large")
    with pytest.raises(UserError, match="does not fit network 'cnn-large'"):
        load_model(file)
    rewrite(file, network="cnn-smal")
    with pytest.raises(UserError, match="Did you mean 'cnn-small'"):
        load_model(file)


def test_other_masks_than_the_card_s_are_refused(tmp_path: Path) -> None:
    file, _, _ = saved(tmp_path)
    rewrite(file, mask_sha256="0" * 64)
    with pytest.raises(UserError, match="not those of its card"):
        load_model(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ("{}", "missing"),
        ('{"schema_version": 99}', "newer than this program's 1; update prunecert"),
        ("[" * 5000, "cannot be read .it is nested thousands of levels deep"),
        ('{"seed": ' + "9" * 400 + "}", "cannot be read .it holds a number of 400 digits"),
        ('{"seed": NaN}', "cannot be read .it holds NaN"),
        ("\x00", "cannot be read"),
    ],
)
def test_damaged_cards_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_card(tmp_path / "a.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("accuracy", {"clean": "much"}),
        ("accuracy", {"clean": [0.5]}),
        ("accuracy", 0.5),
        ("accuracy", {"clean": -1}),
        ("compression", "10"),
        ("compression", 1e300),
        ("compression", 0),
        ("compression", True),
        ("recipe", []),
        ("seed", 1.5),
        ("seed", 10**30),
        ("train_seconds", None),
        ("throughput", {"finetune": {}}),
        ("weights", -1),
        ("sparsity", 2),
        ("unfit", 1),
        ("versions", {"torch": 2}),
        ("network", "\x1b[2J"),
        ("recipe", {"\x1b[2J": 1}),
        ("sparsity_by_layer", {"\ud800": 0.5}),
        ("device", "\ud800"),
    ],
)
def test_fields_of_other_types_or_sizes_are_refused_in_a_sentence(tmp_path: Path, field: str, value: object) -> None:
    file, _, _ = saved(tmp_path)
    rewrite(file, **{field: value})
    with pytest.raises(UserError, match="is refused") as caught:
        load_card(file)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_card_that_is_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match="no plain file"):
        load_card(tmp_path / "a.json")


SHIPPED = sorted(ZOO.glob("*.safetensors"))


#: Their methods leave so few weights of a layer that they say one class, or three. A board without them would be kinder
#: to these methods than they are.
COLLAPSED = {
    "cnn-small_ibp_eps2_boosting_x100_s0",
    "cnn-small_ibp_eps2_boosting_x100_s1",
    "cnn-small_ibp_eps2_lwm-uniform_x100_s0",
    "cnn-small_ibp_eps2_mad_x100_s0",
    "cnn-small_ibp_eps2_mad_x100_s1",
}


@pytest.mark.slow
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_checkpoints_load_and_are_what_their_names_say(file: Path) -> None:
    _, masks, read = load_model(file)
    assert file.stem == read.name
    assert f"_{read.pruner}_x{read.compression:g}_s{read.seed}" in read.name
    # Flying Bird+ follows its own density; a cell's compression is where that begins.
    own = read.pruner == "flying-bird-plus"
    if read.pruner == "cstar":
        # Its matrices are products of small ones, of which the masks say nothing, and ranks are whole.
        assert 0.98 * read.weights / read.compression < read.kept <= read.weights / read.compression
    else:
        assert masks.kept == (read.kept if own else round(masks.total / read.compression))
    if not read.recipe.get("holdout", True):
        # It was trained on all training images, so that none was left to be measured on.
        assert read.accuracy == {}
        assert read.measured.startswith("not measured")
        return
    # A network that learns beats chance, and a bound never beats an attack.
    assert (read.accuracy["clean"] < 0.15) == (read.name in COLLAPSED)
    assert read.accuracy.get("ibp", 0) <= read.accuracy.get("crown_ibp", 0) + 0.02
    assert read.accuracy.get("crown_ibp", 0) <= read.accuracy["pgd"] <= read.accuracy["clean"]
