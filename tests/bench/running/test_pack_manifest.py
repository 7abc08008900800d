"""What a pack says of itself is read as it was written, and a card that differs from it is told by its fields."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.running.pack_manifest import Manifest, PackCell, expected_card, read_manifest, write_manifest
from prunecert.errors import UserError
from prunecert.models.checkpoint import Card
from tests.bench.trainkit import SUITE, jobs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    file = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    file.write_text(SUITE)
    cells = {
        job.name: PackCell(key=f"key of {job.name}", stems=("a", "b"), card=expected_card(job, "f" * 64, "a trial"))
        for job in jobs(str(file), "*lwm_x10_s?")
    }
    images = {"train": 60, "val": 20}
    return Manifest(suite="tiny", cells=cells, images=images, fingerprint="f" * 64, unfit="a trial", prunecert="1")


def test_it_is_read_as_it_was_written(manifest: Manifest, tmp_path: Path) -> None:
    file = write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == read_manifest(file) == manifest
    assert list(read_manifest(file).cells) == list(manifest.cells), "the most telling first"


def card_of(cell: PackCell) -> Card:
    rest: dict[str, Any] = {
        "sparsity": 0.9,
        "weights": 10,
        "kept": 1,
        "sparsity_by_layer": {},
        "accuracy": {},
        "measured": "",
        "mask_sha256": "",
        "sha256": "",
        "versions": {},
        "device": "cuda",
        "train_seconds": 1.0,
        "command": "",
    }
    return Card(**{**cell.card, **rest})


def test_cards_that_differ_are_told_by_their_fields(manifest: Manifest) -> None:
    cell = next(iter(manifest.cells.values()))
    card = card_of(cell)
    assert cell.differing(card) == []
    assert cell.differing(replace(card, device="cpu", train_seconds=2.0)) == []
    assert cell.differing(replace(card, seed=1, data_fingerprint="0" * 64)) == ["seed", "data_fingerprint"]
    assert cell.differing(replace(card, recipe={**card.recipe, "lr": 0.5}, unfit="")) == ["recipe", "unfit"]
    assert cell.differing(replace(card, data={"name": "digits"})) == ["data"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"there is no pack\.json; name the folder that prunecert pack wrote"),
        ("no JSON", r"pack\.json is no manifest of a pack"),
        ("[]", r"pack\.json is no manifest of a pack"),
        ("{}", "missing required field"),
        ({"schema_version": 2, "more": 1}, "has schema version 2, newer than"),
        ({"more": 1}, "unknown field"),
        ({"cells": {"a": {}}}, "missing required field"),
    ],
)
def test_what_is_none_is_refused(manifest: Manifest, tmp_path: Path, text: Any, message: str) -> None:
    if isinstance(text, dict):
        data = json.loads(write_manifest(manifest, tmp_path).read_text())
        text = json.dumps({**data, **text})
    if text is not None:
        (tmp_path / "pack.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)
