"""A pack holds all that a training needs, says how large it is, and is there whole or not at all."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.running.pack_manifest import read_manifest
from prunecert.bench.running.packing import PackRequest, code_archive, write_pack
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.models.checkpoint_folders import ZOO
from prunecert.models.datasets.packed import read_description
from tests.bench.packkit import DENSE, PRUNED, SUITE, pack, training, use_blobs
from tests.models.conftest import blobs


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    use_blobs(monkeypatch)


@pytest.fixture(scope="module")
def code() -> bytes:
    return code_archive()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, code: bytes) -> None:
    """Spares a test the reading of all sources."""
    monkeypatch.setattr("prunecert.bench.running.packing.code_archive", lambda: code)


def said(folder: Path, **changes: Any) -> list[str]:
    lines: list[str] = []
    own = {key: changes.pop(key) for key in ("limit", "piece", "wheels") if key in changes}
    write_pack(PackRequest(training=training(folder, **changes), folder=folder / "lease", **own), lines.append)
    return lines


def test_the_code_is_the_package_without_checkpoints_and_the_same_each_time(code: bytes) -> None:
    assert code == code_archive()
    with tarfile.open(fileobj=io.BytesIO(code)) as archive:
        names = set(archive.getnames())
    assert {"prunecert/__main__.py", "prunecert/bench/train.py", "prunecert/models/pipeline.py"} <= names
    assert "prunecert/bench/suites/cifar10-4nets.yaml" in names
    assert not [name for name in names if "/checkpoints/" in name or name.endswith((".pyc", ".safetensors"))]
    assert len(code) < 4_000_000


@pytest.mark.usefixtures("quick")
def test_a_pack_says_how_large_it_is_and_what_to_do_with_it(tmp_path: Path) -> None:
    lines = said(tmp_path)
    assert lines[0] == "2 cells, 0 trained already, 2 to pack."
    assert lines[1] == "Packing 40 training images and 10 held-out ones."
    assert lines[2].startswith("The pack has 1.")
    assert "code.tar.gz 1." in lines[2]
    assert "data.packed 0." in lines[2]
    assert lines[3].startswith(f"Bring {tmp_path / 'lease'} to the machine and run there: OUT=results bash run.sh;")
    lease = tmp_path / "lease"
    names = {"SHA256SUMS", "code.tar.gz", "data.packed", "lease.yaml", "pack.json", "run.sh"}
    assert {file.name for file in lease.iterdir()} == names
    assert os.access(lease / "run.sh", os.X_OK)
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=lease).returncode == 0
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    description = read_description(lease / "data.packed")
    assert description.images == {"train": 40, "val": 10}
    assert description.fingerprint == read_manifest(lease).fingerprint == blobs(1).fingerprint
    assert list(read_manifest(lease).cells) == [DENSE, PRUNED], "the control comes first, whatever the suite's order"
    assert f"--cells {DENSE},{PRUNED}" in (lease / "run.sh").read_text()


@pytest.mark.usefixtures("quick")
def test_a_subset_packs_so_many_images_and_says_that_it_is_a_trial(tmp_path: Path) -> None:
    lease = pack(tmp_path, subset=7)
    assert read_description(lease / "data.packed").images == {"train": 7, "val": 7}
    assert read_manifest(lease).unfit == "trained on 7 images only (--subset)"
    assert " --subset 7 " in (lease / "run.sh").read_text()


@pytest.mark.usefixtures("quick")
def test_a_pack_above_its_limit_is_refused_with_its_size_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has 1\.\d MB, and --limit allows 1\.0 MB; allowed are a higher limit"):
        said(tmp_path, limit=1_000_000)
    assert {file.name for file in tmp_path.iterdir()} == {"lease.yaml"}
    assert said(tmp_path, limit=10_000_000)


@pytest.mark.usefixtures("quick")
def test_larger_files_are_cut_into_pieces(tmp_path: Path, code: bytes) -> None:
    lease = pack(tmp_path, piece=400_000)
    assert max(file.stat().st_size for file in lease.iterdir()) == 400_000
    whole = b"".join(file.read_bytes() for file in sorted(lease.glob("code.tar.gz.piece*")))
    assert whole == code
    assert not (lease / "code.tar.gz").exists()
    assert " code.tar.gz\n" in (lease / "SHA256SUMS").read_text()


@pytest.mark.usefixtures("quick")
def test_a_shipped_suite_goes_by_its_name_and_wheels_go_with_it(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    changes: dict[str, Any] = {
        "suite": load_suite("cifar10-4nets"),
        "named": "cifar10-4nets",
        "cells": "resnet-2b*x1_s0",
    }
    with pytest.raises(UserError, match=r"wheels' is refused: there is no \.whl file in it"):
        said(tmp_path, force=True, wheels=tmp_path / "wheels", **changes)
    (tmp_path / "wheels" / "some-1-py3-none-any.whl").write_bytes(b"wheel")
    lease = pack(tmp_path, force=True, wheels=tmp_path / "wheels", **changes)
    assert " --suite cifar10-4nets " in (lease / "run.sh").read_text()
    assert not list(lease.glob("*.yaml"))
    assert (lease / "wheels" / "some-1-py3-none-any.whl").read_bytes() == b"wheel"


@pytest.mark.usefixtures("quick")
def test_parents_and_what_has_begun_go_with_it(tmp_path: Path) -> None:
    parent = "cnn-small_ibp_eps2_dense_x1_s0"
    (tmp_path / "own.yaml").write_text(SUITE.replace("default: {", f"default: {{parent: {parent}, "))
    work = tmp_path / "zoo" / ".work"
    work.mkdir(parents=True)
    for name in (f"{PRUNED}.finetune.pt", f"{PRUNED}.lock", "another_s0.finetune.pt"):
        (work / name).write_text(name)
    for name in (f"{PRUNED}.history.jsonl", f"{DENSE}.history.jsonl"):
        (tmp_path / "zoo" / name).write_text("")
    lease = pack(tmp_path, suite=load_suite(str(tmp_path / "own.yaml")))
    start = {file.relative_to(lease / "start").as_posix() for file in (lease / "start").rglob("*") if file.is_file()}
    began = {f".work/{PRUNED}.finetune.pt", f"{PRUNED}.history.jsonl"}
    assert start == {f"{parent}.safetensors", f"{parent}.json", *began}
    network = f"{parent}.safetensors"
    assert (lease / "start" / network).read_bytes() == (ZOO / network).read_bytes()


@pytest.mark.usefixtures("quick")
def test_what_is_trained_already_is_left_out(tmp_path: Path) -> None:
    lease = pack(tmp_path)
    card = {
        **read_manifest(lease).cells[DENSE].card,
        **json.loads((ZOO / "cnn-small_ibp_eps2_dense_x1_s0.json").read_text()),
        **read_manifest(lease).cells[DENSE].card,
    }
    shutil.rmtree(lease)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / f"{DENSE}.json").write_text(json.dumps(card))
    assert said(tmp_path)[0] == "2 cells, 1 trained already, 1 to pack."
    assert list(read_manifest(lease).cells) == [PRUNED]
    shutil.rmtree(lease)
    assert said(tmp_path, cells=DENSE) == [
        "1 cells, 1 trained already, 0 to pack.",
        "Nothing is written; --force packs cells that are trained already, too.",
    ]
    assert not lease.exists()
    assert said(tmp_path, cells=DENSE, force=True)[0] == "1 cells, 0 trained already, 1 to pack."


@pytest.mark.parametrize(
    ("changes", "old", "new", "message"),
    [
        ({"device": "gpu"}, "", "", "--device 'gpu' is refused; allowed are cpu, cuda and cuda:N"),
        ({"device": "cuda; rm -rf ."}, "", "", "is refused; allowed are"),
        ({"cells": "nothing*"}, "", "", "nothing"),
        ({}, "default: {", "default: {parent: nobody, ", "there is no parent 'nobody'"),
        ({}, "[lwm]\n    compression: [10, 1]", "[lwm-2of4]\n    compression: [1.5]", "a compression of at least 2"),
    ],
)
def test_what_training_would_refuse_is_refused(
    tmp_path: Path, changes: dict[str, Any], old: str, new: str, message: str
) -> None:
    (tmp_path / "own.yaml").write_text(SUITE.replace(old, new))
    with pytest.raises(UserError, match=message):
        said(tmp_path, **{"suite": load_suite(str(tmp_path / "own.yaml")), **changes})
    assert not (tmp_path / "lease").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "mine").touch()
    with pytest.raises(UserError, match="it is there already; name a new or an empty folder"):
        said(tmp_path)
    assert [file.name for file in (tmp_path / "lease").iterdir()] == ["mine"]


def read_own(part: str, root: Path | None = None, download: bool = True) -> None:
    """A reader of data that nobody else has."""


def test_data_whose_reader_is_not_packed_are_refused(tmp_path: Path) -> None:
    reader = "{name: mine, shape: [3, 32, 32], classes: 10, reader: 'tests.bench.running.test_packing:read_own'}"
    (tmp_path / "own.yaml").write_text(SUITE.replace("data: cifar10", f"data: {reader}"))
    with pytest.raises(
        UserError, match=r"its data are read by '.*read_own', which would be missing there; allowed are"
    ):
        said(tmp_path, suite=load_suite(str(tmp_path / "own.yaml")))


@pytest.mark.usefixtures("quick")
def test_plug_ins_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Any module that there is.
    monkeypatch.setenv("PRUNECERT_PLUGINS", "colorsys")
    assert any(line.startswith("plug-ins aren't packed: bring colorsys yourself") for line in said(tmp_path))
