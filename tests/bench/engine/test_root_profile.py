"""The root's stages: which are taken, and what the tables say of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prunecert.bench.engine import complete, root_profile
from prunecert.bench.engine.root_profile import RootProfile, as_onnx, main, profile
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO
from prunecert.verifiers.base import Instance, OutputSpec
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return onnxnets.connected(tmp_path / "net.onnx")


def instance(path: Path, eps: float) -> Instance:
    network = read_network(path)
    center = np.random.default_rng(0).random(network.input_shape, dtype=np.float32)
    label = int(network.evaluate(center[None])[0].argmax())
    spec = OutputSpec.robustness(label, 10)
    return Instance(
        path, "0" * 64, center - np.float32(eps), center + np.float32(eps), spec, 60.0, "image", label, 10, eps
    )


def ticking() -> object:
    ticks = itertools.count()
    return lambda: float(next(ticks))


@pytest.mark.parametrize("few", [0, 10**9])
def test_what_crown_proves_needs_no_more(path: Path, few: int) -> None:
    root = RootProfile(read_network(path), few)
    proved = root.run(instance(path, 1e-5), ticking())  # type: ignore[arg-type]
    assert not proved.open
    assert proved.after == (1.0, 0.0, 0.0)
    left = root.run(instance(path, 0.3), ticking())  # type: ignore[arg-type]
    assert left.open
    assert left.after == (1.0, 1.0, 1.0)


def test_tables_have_a_line_for_each_layer_and_stage(path: Path) -> None:
    root = RootProfile(read_network(path))
    clock = ticking()
    by_layer, by_stage = profile(root, [instance(path, 0.3), instance(path, 1e-5)], 2, clock)  # type: ignore[arg-type]
    assert [row[1] for row in by_layer.rows] == ["12", "12", "10"]
    assert {tuple(row[2:5]) for row in by_layer.rows} == {("1000.000",) * 3}
    stages = {row[0]: row[1:] for row in by_stage.rows}
    assert stages["intervals"][:2] == stages["relaxing"][:2] == ["3000.000", "25.0%"]
    # One image of two is left open.
    assert stages["first attack"][0] == stages["composing what is left"][0] == "500.000"
    assert stages["all"] == ["12000.000", "100.0%", "", ""]
    walked = sum(float(row[5]) for row in by_layer.rows)
    assert 0 < walked < sum(float(row[6]) for row in by_layer.rows)


def test_checkpoints_are_exported_and_files_taken_as_they_are(path: Path, tmp_path: Path) -> None:
    assert as_onnx(path, tmp_path / "x", compact=False) == path
    checkpoint = ZOO / "cnn-small_ibp_eps2_lwm_x100_s0.safetensors"
    whole, small = (as_onnx(checkpoint, tmp_path, compact) for compact in (False, True))
    assert read_network(small).nonzeros < read_network(whole).nonzeros
    with pytest.raises(UserError):
        as_onnx(tmp_path / "none.safetensors", tmp_path, compact=False)


def test_the_command_prints_both_tables_of_right_images(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).random((2, 3, 2, 2), dtype=np.float32)
    labels = outputs(path, images).argmax(axis=1)
    data = SimpleNamespace(images=images, labels=labels)
    monkeypatch.setattr(complete, "load", lambda *_: data)
    monkeypatch.setattr(root_profile, "warm_up", lambda: None)
    words = [str(path), "--images", "2", "--repeats", "1", "--clock", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "net.onnx: 2 of 2 images are classified correctly" in printed
    assert "| layer | neurons |" in printed
    assert "| bounds and charges in float64 |" in printed
    data.labels = (labels + 1) % 10
    assert main(words) == 0
    assert "net.onnx: nothing to profile" in capsys.readouterr().out
    with pytest.raises(UserError, match="does not exist"):
        main([str(path.with_name("none.onnx"))])
