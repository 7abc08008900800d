"""The door for a process of its own: one line of JSON, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from prunecert.onnx.__main__ import main
from prunecert.onnx.normalise import is_normal
from tests.prunecert.onnx.graphs import N, build, weights


def saved(path: Path, operator: str) -> Path:
    model = build([N("MatMul", ["x", "w"], ["h"]), N(operator, ["h"], ["y"])], {"w": weights(5, 3)}, (1, 5))
    for size in (1, 3):
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_value=size)
    onnx.save(model, path)
    return path


def test_a_network_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.onnx"
    assert main(["normalise", str(saved(tmp_path / "net.onnx", "Relu")), str(target)]) == 0
    assert is_normal(onnx.load(target))
    said = json.loads(capsys.readouterr().out)
    assert (said["changed"], said["outputs"], said["last"], said["input_order"]) == (True, 3, "none", None)
    assert main(["normalise", str(target), str(tmp_path / "again.onnx")]) == 0
    assert not json.loads(capsys.readouterr().out)["changed"]
    assert not (tmp_path / "again.onnx").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "out.onnx"]


def test_refusals_say_of_which_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["normalise", str(saved(tmp_path / "net.onnx", "Erf")), str(tmp_path / "out")]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "unsupported"
    assert "(Erf) isn't taken" in said["error"]
    assert main(["normalise", str(tmp_path / "missing"), str(tmp_path / "out")]) == 2
    assert json.loads(capsys.readouterr().out)["kind"] == "refused"
