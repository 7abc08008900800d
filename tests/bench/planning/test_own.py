from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunecert.bench.planning.own import module_of, prepare_own, split_own
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.bench.schema.own import OwnCell, OwnNetwork
from prunecert.errors import UserError
from prunecert.models.datasets.source import DataSource
from prunecert.onnx.count import count_layers, totals
from prunecert.verifiers.formats.counterexample import outputs
from tests.verifiers import onnxnets

DATA = DataSource("small", (3, 8, 8), 10, "npz")
EPS = Fraction(2, 255)


def make() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 10))
    with torch.no_grad():
        net[1].get_parameter("weight")[:, ::2] = 0
    return net


def cell(kind: str, target: str, folder: Path, dense: str = "") -> OwnCell:
    control = OwnNetwork(kind, dense, folder) if dense else None
    return OwnCell("mine", "own", EPS, "pruned", 1.0, 0, OwnNetwork(kind, target, folder), control)


def test_files_are_counted_against_their_dense_network_and_made_compact(tmp_path: Path) -> None:
    onnxnets.convolutional(tmp_path / "p.onnx", sparsity=0.9)
    onnxnets.convolutional(tmp_path / "d.onnx")
    ((counted, _),), exports = prepare_own(
        [(cell("onnx", "p.onnx", tmp_path, "d.onnx"), Protocol())], DATA, tmp_path / "out", lambda line: None
    )
    weights, kept = totals(count_layers(tmp_path / "p.onnx"))
    export = exports["mine_own_eps2_pruned"]
    assert counted.compression == pytest.approx(weights / kept, rel=1e-3)
    assert export.masked_path == tmp_path / "p.onnx"
    assert export.compaction is not None
    points = np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)
    assert np.allclose(outputs(export.path, points), outputs(export.masked_path, points), atol=1e-4)


def test_factories_are_exported_and_the_suites_own_are_told_apart(tmp_path: Path) -> None:
    own = cell("module", "tests.bench.planning.test_own:make", tmp_path)
    named = Cell("cnn-small", "ibp", EPS, "dense", 1.0, 0)
    assert split_own(((own, Protocol()), (named, Protocol()))) == (((named, Protocol()),), ((own, Protocol()),))
    ((counted, _),), exports = prepare_own([(own, Protocol())], DATA, tmp_path / "out", lambda line: None)
    assert counted.compression == pytest.approx((192 * 6 + 60) / (96 * 6 + 60), rel=1e-3)
    points = np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)
    with torch.no_grad():
        expected = make()(torch.from_numpy(points)).numpy()
    assert np.allclose(outputs(exports[own.name].path, points), expected, atol=1e-5)


def test_a_dense_network_that_keeps_less_than_the_pruned_one_is_refused(tmp_path: Path) -> None:
    onnxnets.convolutional(tmp_path / "p.onnx", sparsity=0.9)
    onnxnets.convolutional(tmp_path / "d.onnx")
    with pytest.raises(
        UserError, match=r"the dense network keeps [0-9,]+ weights and the pruned one .*: exchange the two"
    ):
        prepare_own(
            [(cell("onnx", "d.onnx", tmp_path, "p.onnx"), Protocol())], DATA, tmp_path / "out", lambda line: None
        )


def leave() -> nn.Module:
    sys.exit(0)


def test_networks_for_other_inputs_are_refused(tmp_path: Path) -> None:
    onnxnets.linear(tmp_path / "other.onnx", (3, 4, 4))
    onnxnets.linear(tmp_path / "last.onnx", (8, 8, 3))
    for name, why in (
        ("other", r"takes inputs of shape \[3, 4, 4\], and the data set 'small'"),
        ("last", "channels last"),
    ):
        with pytest.raises(UserError, match=why):
            prepare_own([(cell("onnx", f"{name}.onnx", tmp_path), Protocol())], DATA, tmp_path, lambda line: None)


def test_what_cannot_be_imported_is_one_sentence() -> None:
    assert isinstance(module_of("tests.bench.planning.test_own:make"), nn.Module)
    own = "tests.bench.planning.test_own"
    for target in ("nowhere:make", f"{own}:mak", f"{own}:cell", f"{own}:leave"):
        with pytest.raises(UserError, match=r"The network .* can't be (made|imported)"):
            module_of(target)
    with pytest.raises(UserError, match="makes a dict"):
        module_of("builtins:dict")
