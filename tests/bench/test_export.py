from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from prunecert.bench import export
from prunecert.bench.planning import select
from prunecert.bench.results.vnncomp import read_keys
from prunecert.compaction import Compaction
from prunecert.models import quantise
from prunecert.models.data import Dataset, Split
from prunecert.models.datasets import source
from prunecert.models.datasets.source import DataSource
from tests.bench.conftest import CELLS, Zoo


def exported(zoo: Zoo, out: Path, *more: str) -> int:
    return export.main(
        [
            *("--suite", str(zoo.suite), "--checkpoints", str(zoo.checkpoints), "--data-root", str(zoo.data)),
            *("--out", str(out), "--images", "8", *more),
        ]
    )


@pytest.mark.slow
def test_export_names_compact_networks_and_keeps_the_masked_ones(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(zoo, tmp_path / "a") == 0
    printed = capsys.readouterr().out
    assert "removed before verification" in printed
    text = (tmp_path / "a" / "instances.csv").read_text()
    # The dense network loses nothing and stays what it was.
    assert {line.split(",")[0] for line in text.splitlines()} == {
        f"onnx/{CELLS[0]}.onnx",
        f"onnx/{CELLS[1]}.compact.onnx",
    }
    assert (tmp_path / "a" / "onnx" / f"{CELLS[1]}.onnx").is_file()
    # What each row is about stands beside it, and is not read out of its names.
    keys = read_keys(tmp_path / "a")
    for key, line in zip(keys, text.splitlines(), strict=True):
        assert key.cell in line
        assert f"vnnlib/test{key.image}_eps" in line
    assert Compaction.of(onnx.load(tmp_path / "a" / "onnx" / f"{CELLS[1]}.compact.onnx").metadata_props) is not None
    assert exported(zoo, tmp_path / "b", "--no-compact") == 0
    assert "compact" not in (tmp_path / "b" / "instances.csv").read_text()
    assert "removed before" not in capsys.readouterr().out


@pytest.mark.slow
def test_export_quantises_the_networks_that_are_verified(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The data set has no training images.
    monkeypatch.setattr(source, "load_split", held_out(zoo))
    monkeypatch.setattr(quantise, "spread", lambda images: images[:4])
    assert exported(zoo, tmp_path, "--int8") == 0
    printed = capsys.readouterr().out
    assert f"{CELLS[0]}: int8: " in printed
    assert "8 bits each" in printed
    names = {line.split(",")[0] for line in (tmp_path / "instances.csv").read_text().splitlines()}
    assert names == {f"onnx/{CELLS[0]}.int8.onnx", f"onnx/{CELLS[1]}.compact.int8.onnx"}
    for name in names:
        assert any(node.op_type == "QuantizeLinear" for node in onnx.load(tmp_path / name).graph.node)


def test_export_shows_shapes_layer_by_layer(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(zoo, tmp_path, "--shapes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{CELLS[0]}: nothing to remove") for line in lines)
    assert any(line.startswith(f"{CELLS[1]}: 214,760 to") for line in lines)
    rows = [line.split("\t") for line in lines if "\t" in line]
    assert rows[0] == ["layer", "operator", "masked", "compact", "kept %"]
    assert [row[2] for row in rows[1:]] == ["16×3×4×4", "32×16×4×4", "100×2048", "10×100"]
    assert not (tmp_path / "instances.csv").exists()
    assert exported(zoo, tmp_path, "--shapes", "--no-compact") == 0
    assert f"{CELLS[1]}: not compacted" in capsys.readouterr().out


@pytest.mark.slow
def test_export_compares_outputs(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The data set has 10,000 images.
    monkeypatch.setattr(select, "load_data", lambda *_: {"test": cut(load_some(zoo), 5)})
    assert exported(zoo, tmp_path, "--check", "9") == 0
    printed = capsys.readouterr().out
    assert f"{CELLS[0]}: nothing was removed" in printed
    assert f"{CELLS[1]}: 5 images and 4 random inputs: outputs of up to" in printed
    assert "0 predictions differ" in printed


def held_out(zoo: Zoo) -> Callable[[DataSource, Split, Path | None], Dataset]:
    """Returns what reads the test images in place of those that are held out of the training set, and nothing else."""

    def read(_: DataSource, split: Split, root: Path | None) -> Dataset:
        assert split == "val"
        assert root == zoo.data
        return load_some(zoo)

    return read


def load_some(zoo: Zoo) -> Dataset:
    from prunecert.models.data import load

    return load("test", zoo.data)


def cut(data: Dataset, count: int) -> Dataset:
    return replace(data, images=data.images[:count], labels=data.labels[:count], indices=data.indices[:count])
