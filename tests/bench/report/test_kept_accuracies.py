"""What pruning keeps: compared with the right control, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prunecert.bench.report.kept_accuracies import (
    CARD_KEPT,
    Line,
    kept_of_cells,
    kept_of_checkpoints,
    markdown,
    of_card,
    of_cell,
)
from prunecert.bench.results.summary import Rows, summary_of
from prunecert.bench.results.summary_cells import SummaryCell
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO, load_card
from tests.bench.rowkit import typed


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def line(pruner: str, compression: float, clean: float, *, seed: int = 0, epochs: int = 30) -> Line:
    name = f"net_ibp_eps2_{pruner}_x{compression:g}_s{seed}"
    return Line(
        ("net", "ibp", "2/255", seed), name, pruner, compression, {"clean %": clean}, {}, (epochs, 5000, "print")
    )


def test_a_network_is_compared_with_the_control_of_its_seed() -> None:
    lines = [line("lwm", 10, 0.4), line("dense", 1, 0.5), line("lwm", 10, 0.4, seed=1), line("dense", 1, 0.8, seed=1)]
    table = cells(markdown(lines, CARD_KEPT, "epochs", 1))
    assert [(row[0][-1], row[1], row[4]) for row in table] == [
        ("0", "dense", ""),
        ("0", "lwm", "80.0"),
        ("1", "dense", ""),
        ("1", "lwm", "50.0"),
    ]


def test_other_epochs_or_no_control_are_said_and_not_compared() -> None:
    table = cells(markdown([line("dense", 1, 0.5), line("lwm", 10, 0.4, epochs=29)], CARD_KEPT, "epochs", 1))
    assert table[1][4] == "the control was made in another way"
    assert cells(markdown([line("lwm", 10, 0.4)], CARD_KEPT, "epochs", 1))[0][4] == "no dense control"


def share(k: int) -> dict[str, float]:
    return {"k": k, "n": 100, "value": k / 100, "low": k / 100 - 0.05, "high": k / 100 + 0.05}


def cell(**changes: object) -> dict[str, object]:
    (whole,) = summary_data()["cells"]
    shares = {"clean": share(50), "attacked": share(40), "verified": share(37)}
    return {**whole, "finished": True, "images": 100, "undecided": {"total": 3}, **shares, **changes}


def summary_data(*cells: dict[str, object]) -> dict[str, Any]:
    """Returns the summary of a run that has just begun, or one of these cells."""
    rows = Rows()
    rows.add([typed({"type": "session", "cells": [{}]})])
    data = summary_of(rows)
    return {**data, "cells": list(cells)} if cells else data


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {}},
        {"recipe": {"pretrain_epochs": "many", "prune_epochs": 1, "finetune_epochs": 1}},
        {"recipe": {"pretrain_epochs": [10**30], "prune_epochs": 1, "finetune_epochs": 1}},
        {"recipe": {"pretrain_epochs": 10**300, "prune_epochs": 1, "finetune_epochs": 1}},
        {"accuracy": {"clean": 0.5}},
        {"accuracy": {"clean": {}, "images": 5}},
        {"compression": [1]},
    ],
)
def test_cards_of_another_form_are_refused_in_a_sentence(tmp_path: Path, changes: dict[str, object]) -> None:
    name = ZOO / "cnn-small_ibp_eps2_lwm_x10_s0.json"
    card = {**json.loads(name.read_text()), **changes}
    (tmp_path / name.name).write_text(json.dumps(card))
    (tmp_path / name.with_suffix(".safetensors").name).write_bytes(b"")
    with pytest.raises(UserError, match=r"is refused|cannot be read"):
        kept_of_checkpoints(tmp_path)


def test_what_was_trained_on_the_held_out_images_has_no_accuracies_on_them() -> None:
    name = "cnn-small_ibp_eps2_lwm_x10_s0"
    control, pruned = load_card(ZOO / "cnn-small_ibp_eps2_dense_x1_s0"), load_card(ZOO / name)
    whole = replace(pruned, accuracy={}, recipe={**pruned.recipe, "holdout": False})
    own = of_card(whole)
    assert own.shares == {}
    assert own.note.endswith(", on all training images")
    alone = markdown([own], CARD_KEPT, "epochs", 1)
    assert alone.startswith("| network, objective, ε, seed | pruner | × | epochs |\n")
    table = cells(markdown([of_card(control), own], CARD_KEPT, "epochs", 1))
    assert table[1][3:7] == ["", "", "", ""]
    assert table[1][7] == "the control was made in another way"
    with pytest.raises(UserError, match="accuracy: it lacks images"):
        of_card(replace(pruned, accuracy={}))


def test_images_a_second_are_those_of_the_pruned_networks_training() -> None:
    """Not of the search for a mask on the dense network, whose rate is another."""
    card = load_card(ZOO / "cnn-small_ibp_eps2_robust-bird_x10_s1.json")
    assert card.throughput["search"] > 2 * card.throughput["ticket"]
    assert f", {card.throughput['ticket']:,.0f}/s on cpu" in of_card(card, ZOO).note


def test_an_imported_network_is_shown_and_is_nobodys_control() -> None:
    dense, pruned = (load_card(ZOO / f"cnn-small_ibp_eps2_{name}_s0") for name in ("dense_x1", "lwm_x10"))
    foreign = replace(dense, name="cnn-small_ibp_eps2_imported_s0", recipe={"imported": "00"})
    text = markdown([of_card(dense), of_card(pruned), of_card(foreign)], CARD_KEPT, "epochs", 1)
    (own, other, third) = cells(text)
    assert (own[1], other[1], third[1]) == ("dense", "imported", "lwm")
    assert (other[-2], other[-1]) == ("", "epochs unknown, perhaps trained on these images")
    assert third[-2].count("/") == 2


def test_verified_networks_have_intervals_and_undecided_images() -> None:
    pruned = cell(pruner="lwm", compression=10.0, verified=share(74), clean=share(100))
    data = pruned, cell(), cell(pruner="lwm", compression=20.0, finished=False)
    networks = [msgspec.convert(one, SummaryCell) for one in data]
    table = cells(kept_of_cells(networks, "here"))
    assert table[0][3:] == ["50.0", "40.0", "37.0 (32.0–42.0)", "", "3"]
    assert table[1][3:] == ["100.0", "40.0", "74.0 (69.0–79.0)", "200 / 100 / 200", "3"]
    assert len(table) == 2
    assert [row[1] for row in cells(kept_of_cells(networks, "here", {10.0}))] == ["lwm"]
    with pytest.raises(UserError, match="here holds no finished network"):
        kept_of_cells(networks, "here", {20.0})


def test_a_verified_network_that_was_trained_for_other_epochs_is_marked() -> None:
    pruned = cell(name="longer", pruner="lwm", compression=10.0), cell(name="as_long", pruner="hydra", compression=10.0)
    networks = [msgspec.convert(one, SummaryCell) for one in (cell(), *pruned)]
    dense = networks[0].name
    text = kept_of_cells(networks, "here", epochs={dense: 70, "longer": 90, "as_long": 70})
    table, _, note = text.partition("\n\n")
    assert [row[-2] for row in cells(table)] == ["", "100 / 100 / 100 *", "100 / 100 / 100"]
    assert note == "\\* Trained for other epochs than the dense control: longer 90 in place of 70.\n"
    # Where one of the two isn't recorded, nothing is said.
    for epochs in (None, {"longer": 90}, {dense: 70}, {dense: 70, "longer": 70}):
        assert "*" not in kept_of_cells(networks, "here", epochs=epochs)


def test_what_was_only_attacked_has_no_verified_accuracy() -> None:
    row = of_cell(msgspec.convert(cell(note="attack only"), SummaryCell))
    assert row is not None
    assert set(row.shares) == {"clean %", "under attack %"}


def test_what_has_a_note_and_was_proved_has_a_verified_accuracy() -> None:
    counts = dict.fromkeys(("asked", "unsat", "sat", "unknown", "timeout", "memout", "error", "unsupported"), 0)
    words = {"version": "1", "versions_seen": [], "settings_hash": "0", "device": "cpu"}
    none = dict.fromkeys(("median_s", "median_unstable", "median_domains"))
    answers = {**counts, **words, **none, "everyone": False, "timeout_s": 1.0, "total_s": 0.0}
    row = of_cell(msgspec.convert(cell(note="over l2 balls", by_verifier={"sparse-bab": answers}), SummaryCell))
    assert row is not None
    assert "verified % (95 %)" in row.shares


def test_a_parents_epochs_count(tmp_path: Path) -> None:
    """Of a network that began with another one's, and where that other one isn't there any more."""
    names = ("cnn-small_mtl-ibp_eps2_dense_x1_s0", "cnn-small_mtl-ibp_eps2_lwm-iterative_x100_s0")
    cards = [load_card(ZOO / f"{name}.json") for name in names]
    assert cards[1].recipe["parent"] == names[0]
    assert [of_card(card, ZOO).note.split(",")[0] for card in cards] == ["180", "220"]
    assert of_card(cards[1], tmp_path).note.split(",")[0] == "220"
    gone = replace(cards[1], recipe={**cards[1].recipe, "parent": "gone"})
    assert of_card(gone, tmp_path).note.startswith("40 after gone, ")
    changed = replace(cards[1], parent_sha256="0" * 64)
    assert of_card(changed, ZOO).note.startswith(f"40 after {names[0]}, ")
    with pytest.raises(UserError, match=r"recipe\.parent"):
        of_card(replace(cards[1], recipe={**cards[1].recipe, "parent": 3}))
