from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.schema.own import OwnCell
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from tests.verifiers import onnxnets

SUITE = """
name: own
description: Own networks
cells:
  - {{networks: {networks}, eps: {eps}}}
  - {{networks: [cnn-small], objectives: [ibp], eps: [2/255], compression: [1]}}
verify: {{images: 10, cascade: [sparse-ibp], timeouts: {{sparse-ibp: 5}}}}
"""


def write(folder: Path, networks: str, eps: str = "[2/255]") -> str:
    for name in ("a", "b"):
        onnxnets.linear(folder / f"{name}.onnx")
    (folder / "c.safetensors").write_bytes(b"")
    path = folder / "own.yaml"
    path.write_text(SUITE.format(networks=networks, eps=eps))
    return str(path)


def test_files_factories_and_checkpoints_stand_beside_the_registrys(tmp_path: Path) -> None:
    networks = (
        "[{onnx: a.onnx, dense: b.onnx}, {module: 'my.nets:make', name: mine, pruner: my way}, "
        "{checkpoint: c.safetensors}]"
    )
    suite = load_suite(write(tmp_path, networks, "[1/255, 2/255]"))
    cells = [cell for cell, _ in suite.cells]
    own = [cell for cell in cells if isinstance(cell, OwnCell)]
    assert [cell.name for cell in own] == [
        "a_own_eps1_dense",
        "a_own_eps1_pruned",
        "a_own_eps2_dense",
        "a_own_eps2_pruned",
        "mine_own_eps1_my-way",
        "mine_own_eps2_my-way",
        "c_own_eps1_own",
        "c_own_eps2_own",
    ]
    assert cells[-1].name == "cnn-small_ibp_eps2_dense_x1_s0"
    assert own[0].source.path == tmp_path / "b.onnx"
    assert own[1].source.path == tmp_path / "a.onnx"
    assert own[1].dense == own[0].source
    assert suite.to_json()["cells"][1]["source"] == "a.onnx"
    assert load_suite(write(tmp_path, "{onnx: a.onnx}")).cells[0][0].pruner == "own"


@pytest.mark.parametrize(
    ("networks", "why"),
    [
        ("[{onnx: z.onnx}]", r"own\.yaml, line 5.*there is no file"),
        ("[{onnx: a.onnx, dense: z.onnx}]", "there is no file"),
        ("[{onnx: a.onnx, module: 'x:y'}]", "one of the keys onnx, module, checkpoint"),
        ("[{name: x}]", "one of the keys"),
        ("[{onnx: a.onnx, dens: b.onnx}]", "Did you mean 'dense'"),
        ("[{onnx: c.safetensors}]", r"must end in \.onnx"),
        ("[{module: 'nets'}]", "module:attribute"),
        ("[{onnx: a.onnx, name: 'a b'}]", "letters, digits"),
        ("[{onnx: a.onnx, pruner: 'a_b'}]", "letters, digits, blanks"),
        ("[{onnx: a.onnx}, {onnx: b.onnx, name: a}]", "stands for two networks"),
        ("[{onnx: a.onnx}, cnn-small]", "must be a mapping"),
    ],
)
def test_bad_entries_are_named_by_file_and_line(networks: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        load_suite(write(tmp_path, networks))
