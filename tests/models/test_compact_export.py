"""A compact file is written only if something went, and only if it computes what the masked network does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from prunecert.compaction import Compaction, Mode
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models import compact_export
from prunecert.models.compact import compact_file
from prunecert.models.compact_export import check_inputs, export_compact, largest_difference
from tests.models.compact_networks import Builder, points, run


def masked(path: Path, dead: bool = True) -> Path:
    """Two convolutions and a linear layer, no weight of which is zero but those of one channel."""
    builder = Builder(np.random.default_rng(0), zeros=0, rows=0, columns=0)
    x = builder.relu(builder.conv(builder.start(2, 6, 6), 4, 3))
    x = builder.relu(builder.conv(x, 3, 3))
    model = builder.model(builder.linear(builder.flatten(x), 3, transB=1))
    for item in model.graph.initializer:
        values = numpy_helper.to_array(item).copy()
        values[values == 0] = 0.25
        if dead and item.name == "c0":
            values[2] = 0
        item.CopyFrom(numpy_helper.from_array(values, item.name))
    onnx.save(model, path)
    return path


def test_what_is_left_is_written_with_its_record(tmp_path: Path) -> None:
    path = masked(tmp_path / "masked.onnx")
    info = export_compact(path, tmp_path / "folder" / "compact.onnx")
    model = onnx.load(info.path)
    assert info.path == tmp_path / "folder" / "compact.onnx"
    assert info.sha256 == sha256_file(info.path)
    assert info.record.shrank
    assert next(numpy_helper.to_array(item).shape for item in model.graph.initializer) == (3, 2, 3, 3)
    record = Compaction.of(model.metadata_props)
    assert record is not None
    assert record.masked_sha256 == sha256_file(path)
    assert record.domain == (0.0, 1.0)
    # The arithmetic of these weights is exact on such inputs, but not on random ones.
    inputs = points(model, 8, np.random.default_rng(1))
    np.testing.assert_array_equal(run(path, inputs), run(info.path, inputs))
    assert 0 <= info.max_difference < 1e-3
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["compact.onnx"]


@pytest.mark.parametrize(("mode", "domain", "exact"), [("all-inputs", None, False), ("exact", (0.0, 1.0), True)])
def test_modes(mode: str, domain: tuple[float, float] | None, exact: bool, tmp_path: Path) -> None:
    record = export_compact(masked(tmp_path / "masked.onnx"), tmp_path / "c.onnx", Mode(mode)).record
    assert (record.domain, record.exact) == (domain, exact)


def test_where_nothing_goes_an_older_file_goes(tmp_path: Path) -> None:
    path, out = masked(tmp_path / "masked.onnx", dead=False), tmp_path / "compact.onnx"
    out.write_bytes(b"of another network")
    info = export_compact(path, out)
    assert info.path == path
    assert info.sha256 == sha256_file(path)
    assert not info.record.shrank
    assert [file.name for file in tmp_path.iterdir()] == ["masked.onnx"]


def spoilt(kind: str) -> object:
    """Compaction that goes wrong: a bias is off by a little, or an operator is there that no export has."""

    def spoil(source: Path, target: Path, **options: object) -> Compaction:
        record = compact_file(source, target, **options)  # type: ignore[arg-type]
        model = onnx.load(target)
        if kind == "bias":
            bias = model.graph.initializer[-1]
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.02), bias.name))
        elif kind == "operator":
            model.graph.node[-1].output[0] = "before"
            model.graph.node.append(helper.make_node("Identity", ["before"], [model.graph.output[0].name]))
        onnx.save(model, target)
        return record

    return spoil


@pytest.mark.parametrize(("kind", "why"), [("bias", "outputs differ"), ("operator", r"operators \['Identity'\]")])
def test_what_fails_a_check_leaves_everything_as_it_was(
    kind: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = masked(tmp_path / "masked.onnx"), tmp_path / "compact.onnx"
    out.write_bytes(b"older")
    monkeypatch.setattr(compact_export, "compact_file", spoilt(kind))
    with pytest.raises(ValueError, match=why):
        export_compact(path, out)
    assert out.read_bytes() == b"older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["compact.onnx", "masked.onnx"]
    monkeypatch.setattr(compact_export, "compact_file", spoilt("nothing"))
    export_compact(path, out)


def test_a_network_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(UserError, match="no ONNX network"):
        export_compact(tmp_path / "junk.onnx", tmp_path / "c.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["junk.onnx"]


def test_inputs_have_the_network_s_shape_and_corners_among_them(tmp_path: Path) -> None:
    inputs = check_inputs(masked(tmp_path / "n.onnx"), 9)
    assert inputs.shape == (9, 2, 6, 6)
    assert inputs.dtype == np.float32
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    corners = [bool(np.isin(x, (0, 1)).all()) for x in inputs]
    assert corners == [index % 4 == 0 for index in range(9)]
    assert len(np.unique(inputs[0])) == 2
    np.testing.assert_array_equal(inputs, check_inputs(tmp_path / "n.onnx", 9))
    assert not np.array_equal(inputs, check_inputs(tmp_path / "n.onnx", 9, seed=1))


def test_differences_are_the_largest_of_all_inputs_and_outputs(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.onnx" for name in "ab"]
    for path, factor in zip(paths, (1.0, 1.5), strict=True):
        builder = Builder(np.random.default_rng(0))
        names = [builder.start(2), builder.constant([[1.0, 0.0], [0.0, -4 * factor]]), builder.constant([0, 0])]
        onnx.save(builder.model(builder.node("Gemm", names, (2,))), path)
    inputs = np.array([[1, 0.25], [0.5, 1], [1, 0.5]], dtype=np.float32)
    # Outputs (x, -4 y) and (x, -6 y).
    assert largest_difference(paths[0], paths[1], inputs) == (2.0, 4.0)
