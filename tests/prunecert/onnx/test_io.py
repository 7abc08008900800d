"""Files: read within limits and inside of their folder, and known by all that decides their function."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.onnx.io import external_files, identity, load_model, reason_of
from tests.prunecert.onnx.graphs import N, build, weights


def plain(path: Path, seed: int = 0) -> Path:
    """A network of one layer, all in one file."""
    model = build([N("Gemm", ["x", "w"], ["y"])], {"w": weights(5, 3, seed=seed)}, (1, 5))
    for size in (1, 3):
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_value=size)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def external(path: Path, seed: int = 0, location: str = "w.data") -> Path:
    """The same with its weights beside it."""
    model = onnx.load(plain(path, seed))
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def edited(path: Path, edit: Callable[[TensorProto], None]) -> Path:
    """Changes what the network says of its weights."""
    model = onnx.load(path, load_external_data=False)
    edit(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    return path


def say(key: str, value: str) -> Callable[[TensorProto], None]:
    def edit(tensor: TensorProto) -> None:
        kept = [(item.key, item.value) for item in tensor.external_data if item.key != key]
        del tensor.external_data[:]
        for name, text in [*kept, (key, value)]:
            tensor.external_data.add(key=name, value=text)

    return edit


def test_a_network_in_one_file_is_known_by_that_file(tmp_path: Path) -> None:
    path = plain(tmp_path / "net.onnx")
    assert identity(path) == sha256_file(path)
    assert external_files(path) == ()


def test_networks_that_differ_beside_the_graph_differ(tmp_path: Path) -> None:
    one, two = external(tmp_path / "a" / "net.onnx", 1), external(tmp_path / "b" / "net.onnx", 2)
    assert one.read_bytes() == two.read_bytes()
    assert identity(one) != identity(two)
    assert external_files(one) == (tmp_path / "a" / "w.data",)
    again = external(tmp_path / "c" / "net.onnx", 1)
    assert identity(again) == identity(one)
    np.testing.assert_array_equal(numpy_helper.to_array(load_model(one).graph.initializer[0]), weights(5, 3, seed=1))


def test_an_identity_changes_with_the_file_beside(tmp_path: Path) -> None:
    path = external(tmp_path / "net.onnx")
    before = identity(path)
    data = tmp_path / "w.data"
    changed = bytearray(data.read_bytes())
    changed[3] ^= 1
    stat = data.stat()
    data.write_bytes(bytes(changed))
    # A file that is written anew with its old time and size is seen, too.
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identity(path) != before


def test_every_tensor_counts(tmp_path: Path) -> None:
    """Attributes of nodes and of subgraphs may lie beside the graph as well as initialisers."""
    identities = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "w.data").write_bytes(weights(5, 3, seed=seed).tobytes())
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[5, 3], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="w.data")
        model = build([N("Constant", [], ["w"], value=tensor), N("Gemm", ["x", "w"], ["y"])], {}, (1, 5))
        (folder / "net.onnx").write_bytes(model.SerializeToString())
        assert external_files(folder / "net.onnx") == (folder / "w.data",)
        identities.append(identity(folder / "net.onnx"))
    assert identities[0] != identities[1]


@pytest.mark.parametrize(
    "location", ["../w.data", "/etc/hostname", "a/../../w.data", "", ".", "missing", "a\0b", "link"]
)
def test_data_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.data").write_bytes(bytes(60))
    path = external(tmp_path / "in" / "net.onnx")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "w.data")
    edited(path, say("location", location))
    for reader in (identity, load_model):
        with pytest.raises(UserError, match="is refused because the external data of tensor 'w'"):
            reader(path)


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "-4"), ("offset", "x"), ("length", "61"), ("offset", "9" * 30), ("length", "-1")]
)
def test_segments_that_do_not_fit_are_refused(tmp_path: Path, key: str, value: str) -> None:
    path = edited(external(tmp_path / "net.onnx"), say(key, value))
    with pytest.raises(UserError, match="external data of tensor 'w'"):
        load_model(path)


def test_data_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "net.onnx")
    (tmp_path / "w.data").write_bytes(bytes(10))
    with pytest.raises(UserError, match=r"bytes 0 to 60 of w\.data, which has 10"):
        load_model(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("no network")
    (tmp_path / "empty").write_bytes(b"")
    cut = tmp_path / "cut"
    cut.write_bytes(plain(tmp_path / "net.onnx").read_bytes()[:-9])
    for name, words in (
        ("pipe", "no regular file"),
        ("missing", "can't be read"),
        (".", "no regular file"),
        ("text", "no ONNX network or is cut off"),
        ("empty", "no ONNX network or is cut off"),
        ("cut", "no ONNX network or is cut off"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            load_model(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ir_version: 8", "ir_version: 99", "has the IR version 99; read are files of at most"),
        ('"": 13', '"": 9', r"isn't valid as ONNX of opset 9 \(No Op registered for QuantizeLinear"),
        (
            " (x, s, z)",
            " (nowhere, s, z)",
            "however input 'nowhere' of node: name: OpType: QuantizeLinear is not output of",
        ),
    ],
)
def test_what_the_checker_refuses_is_said_with_the_reason(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
        <float s = {0.5}, uint8 z = {0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"""
    assert text.count(old) == 1
    onnx.save(onnx.parser.parse_model(text.replace(old, new)), tmp_path / "net.onnx")
    with pytest.raises(UserError, match=message) as refused:
        load_model(tmp_path / "net.onnx")
    assert "\n" not in str(refused.value)
    assert "cut off" not in str(refused.value)


def test_long_names_in_a_reason_hold_nobody_up() -> None:
    reason = reason_of(RuntimeError("/onnxruntime_src/a( was false" * 100_000 + "\x1b[31m the end."))
    assert len(reason) < 500
    assert reason.isprintable()
    assert reason.endswith("the end")


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = plain(tmp_path / "net.onnx")
    with pytest.raises(UserError, match="bytes; allowed are 100"):
        load_model(path, limit=100)
    path = external(tmp_path / "e" / "net.onnx")
    with pytest.raises(UserError, match=r"its external data exceed"):
        load_model(path, limit=path.stat().st_size + 10)
