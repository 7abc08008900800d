"""Rates that layers begin and end with, of checkpoints; what a folder lacks is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from prunecert.bench.impact.checkpoints import cards_of, gradients, initial_shares, rates
from prunecert.bench.retention import main
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO, load_card
from prunecert.models.pruners.allocation import allocate, budget

NAME = "cnn-small_ibp_eps2_hydra_x100_s0"
SHAPES = {"0.weight": (16, 3, 4, 4), "2.weight": (32, 16, 4, 4), "5.weight": (100, 2048), "7.weight": (10, 100)}


def test_a_uniform_variant_begins_uniform_whatever_its_recipe_says() -> None:
    card = load_card(ZOO / NAME)
    assert card.recipe["allocation"] == "balanced"
    balanced = allocate(SHAPES, budget(card.weights, 100), "balanced")
    begins = initial_shares(card)
    assert begins["0.weight"] == pytest.approx(balanced["0.weight"] / 768)
    assert list(begins) == list(SHAPES)
    uniform = initial_shares(replace(card, pruner="harp-uniform"))
    assert max(uniform.values()) == pytest.approx(0.01, abs=0.001)


def test_rates_are_those_of_networks_that_found_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("harp", 0), ("harp", 1), ("hydra", 0)):
        stem = f"cnn-small_ibp_eps2_{name}_x100_s{seed}"
        card = {**load_card(ZOO / NAME).to_json(), "name": stem, "pruner": name, "seed": seed}
        (tmp_path / f"{stem}.json").write_text(json.dumps(card))
        shutil.copy(ZOO / f"{NAME}.safetensors", tmp_path / f"{stem}.safetensors")
    main([str(tmp_path), "--about", "rates"])
    text = capsys.readouterr().out
    assert "| cnn-small, ibp, 2/255 | harp | 100 | 2 | 0 |" in text
    assert "hydra" not in text
    file = tmp_path / "cnn-small_ibp_eps2_harp_x100_s1.json"
    damaged = json.loads(file.read_text())
    del damaged["sparsity_by_layer"]["0.weight"]
    file.write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=r"s1' is refused: sparsity_by_layer lacks '0\.weight', a layer of cnn-small"):
        list(rates(cards_of(tmp_path, None, None), tmp_path))
    with pytest.raises(UserError, match="no checkpoint of harp"):
        list(rates(cards_of(tmp_path, "*_hydra_*", None), tmp_path))
    with pytest.raises(UserError, match="need a folder of checkpoints"):
        cards_of(tmp_path / "none", None, None)


def test_gradients_are_not_measured_on_images_that_were_trained_on() -> None:
    cards = [load_card(ZOO / name) for name in (NAME, "cnn-small_ibp_eps2_dense_x1_s0")]
    whole = replace(cards[0], recipe={**cards[0].recipe, "holdout": False})
    with pytest.raises(UserError, match=rf"no pruned .* held-out images tell; trained on them, too: {NAME}\."):
        list(gradients([whole, cards[1]], ZOO, None))
    control = replace(cards[1], recipe={**cards[1].recipe, "holdout": False})
    with pytest.raises(UserError, match=rf"held-out images tell; trained on them, too: {control.name}\."):
        list(gradients([cards[0], control], ZOO, None))


def test_cards_are_chosen_by_name_and_compression_with_all_dense_ones() -> None:
    names = {card.name for card in cards_of(ZOO, "cnn-small_ibp_eps2_hydra*", frozenset({100.0}))}
    assert NAME in names
    assert not any("lwm" in name or "_x10_" in name for name in names)
    assert "cnn-large_ibp_eps2_dense_x1_s0" in names


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint; --about gradients and rates need a folder of them"):
        cards_of(tmp_path, "*", None)
