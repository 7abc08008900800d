"""What networks cost: a shared pre-training is charged to each in full, and multiply-adds are the exported file's."""

from __future__ import annotations

from typing import Any

import msgspec

from prunecert.bench.results.impact.costs import (
    Trained,
    costs_of_cards,
    macs_of_card,
    sparse_macs,
    train_seconds,
    trained,
    units_kept,
)
from prunecert.bench.results.protocol_types import CompactionRecord
from prunecert.models.checkpoint import ZOO, load_card
from prunecert.models.export import export_onnx
from prunecert.onnx.count import count_shapes

KIND = ("cnn-small", "ibp", "2/255", "0", "f", "20")
SHAPES = [(16, 3, 4, 4), (32, 16, 4, 4), (100, 2048), (10, 100)]


def one(pruner: str, seconds: float, epochs: int, shared: int, measured: float | None = None) -> Trained:
    return Trained(KIND, pruner, seconds, epochs, shared, measured)


def test_a_shared_pre_training_counts_for_each_and_one_from_scratch_has_none() -> None:
    networks = {
        "lwm": one("lwm", 100.0, 10, 20, 250.0),
        "hydra": one("hydra", 120.0, 10, 20),
        "boosting": one("boosting", 360.0, 30, 0),
    }
    assert train_seconds(networks) == {"lwm": (350.0, False), "hydra": (370.0, False), "boosting": (360.0, False)}


def test_without_a_history_the_dense_control_s_epochs_tell_and_without_that_nobody() -> None:
    assert train_seconds({"lwm": one("lwm", 100.0, 10, 20)}) == {}
    both = {"lwm": one("lwm", 100.0, 10, 20), "dense": one("dense", 80.0, 10, 20)}
    assert train_seconds(both) == {"lwm": (260.0, True), "dense": (240.0, True)}


def test_a_parent_s_training_counts_in_full_and_without_it_nobody_knows() -> None:
    def child(seconds: float, parent: str) -> Trained:
        return Trained(KIND, "lwm", seconds, 10, 0, None, parent)

    networks = {"grandchild": child(5.0, "child"), "child": child(30.0, "dense"), "dense": one("dense", 80.0, 10, 20)}
    assert train_seconds(networks) == {"dense": (240.0, True), "child": (270.0, True), "grandchild": (275.0, True)}
    assert train_seconds({"child": child(30.0, "dense"), "one": child(1.0, "two"), "two": child(1.0, "one")}) == {}
    cell = {"network": "n", "objective": "o", "eps": "1", "seed": 0, "pruner": "lwm"}
    training = {"recipe": {"parent": "dense", "pretrain_epochs": 9}, "train_seconds": 5.0, "data_fingerprint": "f"}
    assert (trained(cell, training).parent, trained(cell, training).shared_epochs) == ("dense", 0)
    # Who begins at the initial weights has none, whatever the recipe says for others.
    assert trained({**cell, "pruner": "drop-grow"}, training).parent == ""


def test_pre_training_on_other_images_is_another_one() -> None:
    cell = {"network": "n", "objective": "o", "eps": "1", "seed": 0, "pruner": "dense"}
    recipe = {"pretrain_epochs": 20, "finetune_epochs": 10}
    usual, whole = (
        trained(cell, {"recipe": {**recipe, **key}, "train_seconds": seconds, "data_fingerprint": "f"}, shared)
        for key, seconds, shared in (({}, 50.0, 450.0), ({"holdout": False}, 55.0, 500.0))
    )
    assert train_seconds({"usual": usual, "whole": whole}) == {"usual": (500.0, False), "whole": (555.0, False)}


def test_a_recipe_that_anybody_sent_breaks_nothing() -> None:
    cell = {"network": "n", "objective": "o", "eps": "1", "seed": 0, "pruner": "lwm"}
    recipe = {"pretrain_epochs": "many", "prune_epochs": True, "finetune_epochs": -3}
    network = trained(cell, {"recipe": recipe, "train_seconds": 5.0, "data_fingerprint": "f"})
    assert (network.epochs, network.shared_epochs) == (0, 0)


def card(**fields: Any) -> dict[str, Any]:
    own = load_card(ZOO / "cnn-small_ibp_eps2_lwm_x100_s0.json").to_json()
    return {**own, **fields}


def test_cards_say_who_begins_where() -> None:
    costs = costs_of_cards(
        {
            "a": card(train_seconds=10.0),
            "b": card(pruner="robust-bird", train_seconds=30.0),
            "c": card(train_seconds=10.0, seed=5),
            "d": {"network": "somebody-else-s"},
        },
        shared_seconds={"a": 20.0},
    )
    assert {name: cost.train_seconds for name, cost in costs.items()} == {"a": 30.0, "b": 30.0, "c": None}


def test_multiply_adds_of_a_card_are_those_of_its_file(tmp_path: Any) -> None:
    export_onnx(ZOO / "cnn-small_ibp_eps2_lwm_x100_s0.safetensors", tmp_path / "net.onnx")
    assert macs_of_card(card()) == count_shapes(tmp_path / "net.onnx").sparse_macs
    assert macs_of_card(card(surgery={"factorised": {"0": [1, 1]}})) is None
    assert macs_of_card(card(network="somebody-else-s")) is None
    assert macs_of_card(card(sparsity_by_layer={"0.weight": 0.5})) is None


def test_layers_of_another_shape_are_not_guessed_at() -> None:
    layers = [(shape, 1.0) for shape in SHAPES]
    assert sparse_macs("cnn-small", layers, {}) == 16 * 16 + 8 * 8 + 1 + 1
    assert sparse_macs("cnn-small", layers[:3], {}) is None
    assert sparse_macs("cnn-small", layers, {"shape": [3, 64, 64], "classes": 10}) is None
    assert sparse_macs("somebody-else-s", layers, {}) is None
    # Nor is code run that an entry names.
    assert sparse_macs("prunecert.models.networks.cnn:cnn_small", layers, {}) is None


def test_units_of_filters_and_of_hidden_neurons_are_told_apart() -> None:
    layers = [
        {"name": "a", "operator": "Conv", "before": [16, 3, 4, 4], "after": [8, 3, 4, 4]},
        {"name": "b", "operator": "Conv", "before": [32, 16, 4, 4], "after": [16, 8, 4, 4]},
        {"name": "c", "operator": "Gemm", "before": [100, 2048], "after": [25, 1024]},
        {"name": "d", "operator": "Gemm", "before": [10, 100], "after": [10, 25]},
    ]
    whole = {"schema_version": 1, "masked_sha256": "0", "domain": None, "exact": True, "relus": [1, 1]}
    record = msgspec.convert({**whole, "layers": layers, "folded": 0, "merged": 0}, CompactionRecord)
    assert units_kept(record) == (0.5, 0.25)
    linear = msgspec.convert({**whole, "layers": layers[2:], "folded": 0, "merged": 0}, CompactionRecord)
    assert units_kept(linear) == (None, 0.25)
