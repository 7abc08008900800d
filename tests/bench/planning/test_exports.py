"""Exports are made once, and again when what they are made of has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.planning.exports import export_cell
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
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
