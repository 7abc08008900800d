"""Exports are made once, and again when what they are made of has changed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from prunecert.bench.planning.exports import (
    Calibration,
    Export,
    cell_export,
    compact_export,
    export_cell,
    rounded_export,
)
from prunecert.bench.planning.select import bit_sizes
from prunecert.bench.schema.cell import Cell
from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models.checkpoint import load_model, save
from prunecert.models.masks import Masks
from prunecert.models.networks.factorised import factorise
from prunecert.onnx.count import count_layers, totals
from prunecert.verifiers.formats.counterexample import outputs
from tests.bench.conftest import CELLS, Zoo


def test_exports_are_made_once_and_again_when_something_changed(zoo: Zoo, tmp_path: Path) -> None:
    checkpoint = zoo.checkpoints / f"{CELLS[1]}.safetensors"
    first = export_cell(checkpoint, tmp_path)
    assert first.sha256 == sha256_file(first.path)
    assert first.compression == pytest.approx(10, rel=1e-4)
    stamp = first.path.stat().st_mtime_ns
    assert export_cell(checkpoint, tmp_path) == first
    assert first.path.stat().st_mtime_ns == stamp
    first.path.write_bytes(first.path.read_bytes()[:-10])
    assert export_cell(checkpoint, tmp_path) == first
    assert sha256_file(first.path) == first.sha256
    record = tmp_path / f"{CELLS[1]}.export.json"
    record.write_text(record.read_text()[:20])
    assert export_cell(checkpoint, tmp_path) == first
    with pytest.raises(UserError, match="There is no card"):
        export_cell(zoo.checkpoints / "nothing.safetensors", tmp_path)


def test_multiply_adds_are_counted_in_the_file_where_a_kept_place_may_hold_a_zero(zoo: Zoo, tmp_path: Path) -> None:
    model, masks, card = load_model(zoo.checkpoints / f"{CELLS[1]}.safetensors")
    before = export_cell(zoo.checkpoints / f"{CELLS[1]}.safetensors", tmp_path).multiply_adds
    weight = model.get_parameter("0.weight")
    kept = int(masks["0.weight"][0].sum())
    assert kept
    with torch.no_grad():
        weight[0] = 0.0
    fields = ("name", "network", "objective", "eps", "seed", "pruner", "compression", "recipe", "accuracy", "measured")
    more = ("data_fingerprint", "versions", "device", "train_seconds", "command")
    save(tmp_path, model, masks, **{key: getattr(card, key) for key in (*fields, *more)})
    after = export_cell(tmp_path / f"{CELLS[1]}.safetensors", tmp_path / "onnx")
    # A filter of the first convolution is used at 16 x 16 places; what reads it still has its weights.
    assert before is not None
    assert after.multiply_adds == before - kept * 16 * 16
    assert Export(tmp_path / "none.onnx", "", 0.0, 1.0, "", {}).multiply_adds is None


def test_rounded_weights_are_a_file_of_their_own_and_counted(zoo: Zoo, tmp_path: Path) -> None:
    whole = export_cell(zoo.checkpoints / f"{CELLS[0]}.safetensors", tmp_path)
    assert rounded_export(whole, tmp_path, ()) is whole
    cell = Cell("cnn-small", "ibp", Fraction(2, 255), "dense", 1.0, 0, bits=(2,))
    small = cell_export(cell, zoo.checkpoints, tmp_path, Mode.OFF)
    assert small.path.name == f"{CELLS[0]}_b2.onnx"
    assert small.sha256 == sha256_file(small.path) != whole.sha256
    assert small.compression > whole.compression, "some weights become zero"
    assert 1 / (1 - small.sparsity) == pytest.approx(small.compression)
    compact = cell_export(cell, zoo.checkpoints, tmp_path, Mode.PIXELS)
    assert compact.masked_path == small.path
    sizes = bit_sizes(small.path)
    assert sizes["bits"] == [2] * 4
    assert sizes["kilobytes"] < bit_sizes(whole.path)["kilobytes"] / 4
    assert sizes["compression"] == pytest.approx(16 * small.compression)


def test_int8_networks_are_made_once_and_again_when_something_changed(zoo: Zoo, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((6, 3, 32, 32), dtype=np.float32)
    calibration = Calibration(lambda: images)
    cell = Cell("cnn-small", "ibp", Fraction(2, 255), "dense", 1.0, 0, int8=True)
    first = cell_export(cell, zoo.checkpoints, tmp_path, Mode.PIXELS, calibration)
    assert first.path.name == f"{CELLS[0]}_int8.onnx"
    assert first.sha256 == sha256_file(first.path)
    assert (first.masked_path, first.compaction) == (first.path, None)
    stamp = first.path.stat().st_mtime_ns
    assert cell_export(cell, zoo.checkpoints, tmp_path, Mode.PIXELS, calibration) == first
    assert first.path.stat().st_mtime_ns == stamp
    other = cell_export(cell, zoo.checkpoints, tmp_path, Mode.PIXELS, Calibration(lambda: 0.5 * images))
    assert other.sha256 != first.sha256
    whole = bit_sizes(export_cell(zoo.checkpoints / f"{CELLS[0]}.safetensors", tmp_path).path)
    sizes = bit_sizes(first.path)
    assert sizes["bits"] == [8] * 4
    # Of biases as many, and a scale for each of four activations.
    assert sizes["others"] == whole["others"] + 4
    assert sum(sizes["kept"]) <= sum(whole["kept"])
    assert 0.2 < sizes["kilobytes"] / whole["kilobytes"] < 0.27
    with pytest.raises(UserError, match="int8 networks are made where images are at hand"):
        cell_export(cell, zoo.checkpoints, tmp_path, Mode.PIXELS)


@pytest.mark.parametrize("mode", [Mode.PIXELS, Mode.ALL_INPUTS, Mode.EXACT])
def test_compact_exports_are_made_once_and_again_when_something_changed(
    masked: Export, tmp_path: Path, mode: Mode
) -> None:
    first = compact_export(masked, tmp_path, mode)
    assert first.path.parent == tmp_path
    assert first.sha256 == sha256_file(first.path) != masked.sha256
    assert (first.masked_path, first.masked_sha256) == (masked.path, masked.sha256)
    assert (first.sparsity, first.compression) == (masked.sparsity, masked.compression)
    stamp = first.path.stat().st_mtime_ns
    again = compact_export(masked, tmp_path, mode)
    assert first.path.stat().st_mtime_ns == stamp
    assert again.record == first.record
    assert first.compaction is not None
    assert first.compaction.layers[0].after == (13, 3, 4, 4)
    first.path.write_bytes(b"cut")
    assert compact_export(masked, tmp_path, mode).sha256 == first.sha256 == sha256_file(first.path)
    record = next(tmp_path.glob("*.json"))
    record.write_text(record.read_text()[:100])
    assert compact_export(masked, tmp_path, mode).sha256 == first.sha256
    points = np.random.default_rng(1).random((8, 3, 32, 32), dtype=np.float32)
    np.testing.assert_allclose(outputs(masked.path, points), outputs(first.path, points), atol=1e-5)


def test_a_network_that_loses_nothing_stays_the_masked_file(zoo: Zoo, tmp_path: Path) -> None:
    dense = export_cell(zoo.checkpoints / f"{CELLS[0]}.safetensors", tmp_path)
    compact = compact_export(dense, tmp_path, Mode.ALL_INPUTS)
    assert (compact.path, compact.sha256) == (dense.path, dense.sha256)
    assert compact_export(dense, tmp_path, Mode.ALL_INPUTS).sha256 == dense.sha256
    assert compact_export(dense, tmp_path, Mode.OFF) is dense
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".onnx"]


def test_factors_are_counted_as_stored_and_multiplied_for_verifiers(zoo: Zoo, tmp_path: Path) -> None:
    model, _, card = load_model(zoo.checkpoints / f"{CELLS[0]}.safetensors")
    surgery = {"0": [3, 9], "2": [5, 4], "5": [9]}
    factorise(model, surgery)
    follows = ("sparsity", "weights", "kept", "sparsity_by_layer", "mask_sha256", "sha256", "schema_version")
    fields = {key: value for key, value in vars(card).items() if key not in follows}
    fields |= {"name": "low", "pruner": "cstar", "compression": 10.0, "surgery": {"factorised": surgery}}
    save(tmp_path, model, Masks.dense(model), **fields)
    export = export_cell(tmp_path / "low.safetensors", tmp_path)
    assert export_cell(tmp_path / "low.safetensors", tmp_path) == export
    weights, kept = totals(count_layers(export.path))
    # What a leaderboard entry's compression follows from.
    assert export.card["dense_weights"] == 214_760
    assert weights == kept == 21_445
    assert export.compression == pytest.approx(214_760 / 21_445)
    compact = compact_export(export, tmp_path)
    assert compact.path != export.path
    assert (compact.masked_path, compact.masked_sha256) == (export.path, export.sha256)
    assert compact_export(export, tmp_path).path == compact.path
    assert len(count_layers(compact.path)) == 4
    assert compact_export(export, tmp_path, Mode.OFF) == export
    points = np.random.default_rng(1).random((4, 3, 32, 32), dtype=np.float32)
    np.testing.assert_allclose(outputs(export.path, points), outputs(compact.path, points), atol=1e-5)
