from __future__ import annotations

from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from prunecert.bench.planning import select
from prunecert.bench.planning.select import describe_missing
from prunecert.bench.planning.stages import Installed
from prunecert.bench.results.protocol_types import Missing
from prunecert.bench.schema.cell import Cell
from prunecert.bench.schema.suite import load_suite
from prunecert.bench.schema.timing import Timing
from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models import checkpoint_folders
from prunecert.models.checkpoint import load_model, save
from tests.bench.conftest import CELLS, SUITE, Zoo


def test_what_leaves_the_pixels_range_gets_networks_for_all_inputs(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    protocol = load_suite(str(path)).cells[0][1]
    assert select.compact_mode(replace(protocol, timing=Timing())) is Mode.OFF
    noisy = replace(protocol, certify=object())  # type: ignore[arg-type]
    assert select.compact_mode(noisy) is Mode.ALL_INPUTS
    assert select.compact_mode(replace(noisy, compact=Mode.OFF)) is Mode.OFF


def test_what_verifiers_dont_ask_is_said(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        SUITE.replace("  images: 40\n", "  images: 40\n  pair: dense\n").replace("ibp: 30,", "sparse-pair: 9,")
    )
    suite, lines = load_suite(str(path)), list[str]()
    (name, *_) = suite.cells[0][1].cascade
    cells = select.choose(suite, None, name, None, lines.append)
    assert all(protocol.pair is None for _, protocol in cells)
    assert lines == [
        "pairs are left out: --verifiers names none of those that compare them (sparse-pair); add one to keep them."
    ]
    lines.clear()
    assert all(protocol.pair for _, protocol in select.choose(suite, None, f"{name},sparse-pair", 5, lines.append))
    assert all(protocol.pair for _, protocol in select.choose(suite, None, None, 5, lines.append))
    assert lines == []


def test_cells_without_a_checkpoint_are_named_in_groups_with_what_trains_them() -> None:
    cells = [
        Cell(network, objective, Fraction(eps, 255), pruner, ratio, 0)
        for network, objective, eps, pruner, ratio in (
            ("cnn-large", "ibp", 2, "dense", 1),
            ("cnn-large", "ibp", 2, "lwm", 2),
            ("vgg16", "pgd", 8, "dense", 1),
        )
    ]
    missing = [
        Missing(name=cell.name, command=f"train --cells {cell.name}", family=cell.family, member=cell.member)
        for cell in cells
    ]
    assert describe_missing(missing) == [
        "cnn-large_ibp_eps2: dense_x1_s0, lwm_x2_s0; train with: train --cells 'cnn-large_ibp_eps2_*'",
        "vgg16_pgd_eps8: dense_x1_s0; train with: train --cells vgg16_pgd_eps8_dense_x1_s0",
    ]
    # What an older run has written down is no more than a name, and nothing is read out of it.
    old = [Missing(name=cell.name, command=f"train --cells {cell.name}") for cell in cells[:2]]
    assert describe_missing(old) == [f"{cell.name}; train with: train --cells {cell.name}" for cell in cells[:2]]


def test_checkpoints_of_one_radius_are_found_for_all_at_which_they_are_verified(tmp_path: Path, zoo: Zoo) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE.replace("eps: [2/255]", "eps: [1/255, 2/255, 4/255]\n    trained_eps: 2/255"))
    suite = load_suite(str(path))
    present, missing = select.find_checkpoints(suite, suite.cells, zoo.checkpoints)
    assert [cell.name for cell, _ in present][:3] == [
        "cnn-small_ibp_eps2-at1_dense_x1_s0",
        "cnn-small_ibp_eps2-at1_lwm_x10_s0",
        "cnn-small_ibp_eps2_dense_x1_s0",
    ]
    assert len(present) == 6
    assert [cell.name for cell in missing] == ["cnn-small_ibp_eps2_lwm_x20_s0"]
    assert missing[0].command.endswith(f" --out {zoo.checkpoints} --cells cnn-small_ibp_eps2_lwm_x20_s0")


@pytest.mark.parametrize(("key", "value"), [("eps", "8/255"), ("compression", 20.0), ("seed", 3)])
def test_a_card_of_another_cell_is_refused(zoo: Zoo, tmp_path: Path, key: str, value: object) -> None:
    """Renamed files, whose network would be shown under a radius or compression that it doesn't have."""
    suite = load_suite(str(zoo.suite))
    cell, protocol = next(pair for pair in suite.cells if pair[0].compression == 10)
    export = select.export_of(suite, cell, protocol, zoo.checkpoints, tmp_path, None)
    select.check_card(cell, export)
    other = replace(export, card={**export.card, key: value})
    with pytest.raises(UserError, match=f"its card says {key} {value!r}, the suite .*; the files were mixed up"):
        select.check_card(cell, other)


def test_bits_of_another_number_of_layers_are_refused_where_they_stand(tmp_path: Path, zoo: Zoo) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE.replace("    compression: [1, 10, 20]", "    compression: [1]\n    bits: [8, 7/8]"))
    suite = load_suite(str(path))
    export = select.export_of(suite, *suite.cells[0], zoo.checkpoints, tmp_path, None)
    assert export.path.name == f"{CELLS[0]}_b8.onnx"
    with pytest.raises(
        UserError,
        match=rf"tiny\.yaml, line 9, cells\[0\]\.bits: {CELLS[0]}_b7-8: The bits 7/8 are refused: .* has 4 layers",
    ):
        select.export_of(suite, *suite.cells[1], zoo.checkpoints, tmp_path, None)


def test_from_a_wheel_own_checkpoints_come_first_and_it_is_said(
    tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "checkpoints"
    monkeypatch.setattr(checkpoint_folders, "CHECKPOINTS", own)
    monkeypatch.setattr(checkpoint_folders, "ZOO", zoo.checkpoints)
    suite = load_suite(str(zoo.suite))
    present, missing = select.find_checkpoints(suite, suite.cells, own)
    assert [cell.name for cell, _ in present] == list(CELLS[:2])
    assert [cell.command.partition(" --cells ")[0] for cell in missing] == [f"prunecert train --suite {zoo.suite}"]
    model, masks, card = load_model(zoo.checkpoints / CELLS[1])
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    counted = ("schema_version", "mask_sha256", "sha256", "sparsity", "weights", "kept", "sparsity_by_layer")
    save(own, model, masks, **{key: value for key, value in asdict(card).items() if key not in counted})
    lines: list[str] = []
    data = select.load_data(suite.data, present, zoo.data)
    plans, _ = select.prepare(
        suite, select.set_compact(present, "off"), Installed("cpu"), data, own, tmp_path / "onnx", lines.append
    )
    assert [line for line in lines if "taken from" in line] == [
        f"{CELLS[1]}: taken from {own}; the package ships checkpoints of the same name."
    ]
    assert [plan.export.checkpoint_sha256 for plan in plans] == [
        sha256_file(zoo.checkpoints / f"{CELLS[0]}.safetensors"),
        sha256_file(own / f"{CELLS[1]}.safetensors"),
    ]
