"""Archives of cells: the same whenever they are written, whole or refused; what they hold is held to plain files."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prunecert.bench.running.cell_archives import (
    Archiver,
    Label,
    archive_file,
    cell_files,
    read_archive,
    work_files,
    write_archive,
)
from prunecert.errors import UserError

LABEL = Label(kind="cell", name="cnn_s0", key="k" * 64)


def checkpoint(folder: Path, *, history: bool = True) -> list[Path]:
    folder.mkdir(exist_ok=True)
    (folder / "cnn_s0.safetensors").write_bytes(bytes(range(256)) * 10)
    (folder / "cnn_s0.json").write_text("{}")
    if history:
        (folder / "cnn_s0.history.jsonl").write_text("row\n")
    return cell_files(folder, "cnn_s0")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    files = checkpoint(tmp_path / "zoo")
    path = tmp_path / "out" / "cnn_s0.tar"
    assert write_archive(path, LABEL, files)
    archive = read_archive(path)
    assert (archive.label.kind, archive.label.name, archive.label.key) == ("cell", "cnn_s0", "k" * 64)
    assert archive.members == {file.name: file.read_bytes() for file in files}
    (tmp_path / "again").mkdir()
    archive.unpack(tmp_path / "again")
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == archive.members
    before = path.stat().st_mtime_ns
    assert not write_archive(path, LABEL, files), "the same files are the same archive"
    assert path.stat().st_mtime_ns == before
    files[2].write_text("row\nrow\n")
    assert write_archive(path, LABEL, files)
    assert [file.name for file in path.parent.iterdir()] == ["cnn_s0.tar"]


def test_a_cell_without_a_history_has_two_files(tmp_path: Path) -> None:
    files = checkpoint(tmp_path / "zoo", history=False)
    assert [file.name for file in files] == ["cnn_s0.safetensors", "cnn_s0.json"]


def test_unfinished_work_is_that_of_the_stems_alone(tmp_path: Path) -> None:
    assert work_files(tmp_path / "none", ["a"]) == []
    names = ["a_s0.pretrained.pt", "a_s0.pretrain.pt", "a_s0.history.jsonl", "b_s0.finetune.pt"]
    for name in [*names, "a_s0.lock", "a_s01.pretrained.pt", ".a_s0.pt", "a_s0.pt.part", "c_s0.pt"]:
        (tmp_path / name).touch()
    (tmp_path / "a_s0.folder.pt").mkdir()
    assert [file.name for file in work_files(tmp_path, ["a_s0", "b_s0"])] == sorted(names)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_archive(tmp_path / "good.tar", LABEL, checkpoint(tmp_path / "zoo"))
    return tmp_path / "good.tar"


@pytest.mark.parametrize("cut", [0, 100, 600, 1400, 3000, 4700, 5700])
def test_an_archive_that_is_cut_off_is_refused(good: Path, cut: int) -> None:
    good.write_bytes(good.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"good\.tar is no whole archive of a cell .*fetch it again"):
        read_archive(good)


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = (len(data) if kind == tarfile.REGTYPE else 0), kind, link
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        member("../outside"),
        member("/etc/passwd"),
        member("sub/file"),
        member(".hidden"),
        member("link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("link", kind=tarfile.LNKTYPE, link="archive.json"),
        member("pipe", kind=tarfile.FIFOTYPE),
        member("device", kind=tarfile.CHRTYPE),
        member("folder", kind=tarfile.DIRTYPE),
        member("archive.json"),
        member("a" * 300),
    ],
    ids=lambda info: f"{info.name[:12]}-{info.type.decode()}",
)
def test_members_that_are_no_plain_files_are_refused(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    path = tmp_path / "hostile.tar"
    sums = {name: hashlib.sha256(b"x").hexdigest() for name in ("x", hostile.name)}
    label = json.dumps({"kind": "cell", "name": "a", "key": "k", "files": sums}).encode()
    with tarfile.open(path, "w") as archive:
        archive.addfile(member("archive.json", label), io.BytesIO(label))
        archive.addfile(member("x"), io.BytesIO(b"x"))
        archive.addfile(hostile, io.BytesIO(b"x") if hostile.isreg() else None)
    with pytest.raises(UserError, match=r"hostile\.tar is no whole archive of a cell"):
        read_archive(path)


def test_files_that_are_others_than_the_label_says_are_refused(good: Path) -> None:
    data = good.read_bytes()
    assert data.count(bytes(range(256))) == 10
    good.write_bytes(data.replace(bytes(range(256)), bytes(256), 1))
    with pytest.raises(UserError, match=r"'cnn_s0\.safetensors' isn't the file that its label says"):
        read_archive(good)


def test_a_member_that_says_to_be_larger_than_its_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    huge = member("huge")
    huge.size = 1 << 40
    path.write_bytes(huge.tobuf() + b"\0" * 2048)
    with pytest.raises(UserError, match="is no whole archive of a cell"):
        read_archive(path)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"{}", "missing required field"),
        (b'{"kind":"other","name":"a","key":"k"}', "Invalid enum value"),
        (b'{"kind":"cell","name":"a","key":"k","schema_version":2,"more":1}', "schema version 2, newer than"),
        (b'{"kind":"cell","name":"a","key":"k","more":1}', "unknown field"),
    ],
)
def test_labels_that_say_something_else_are_refused(tmp_path: Path, label: bytes, message: str) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(member("archive.json", label), io.BytesIO(label))
    with pytest.raises(UserError, match=message):
        read_archive(path)


@pytest.fixture
def archiver(tmp_path: Path) -> Callable[[], Archiver]:
    """Returns an archiver of a pipeline whose cells begin with one network, but for those that have none."""
    checkpoint(tmp_path / "zoo")
    (tmp_path / "zoo" / ".work").mkdir()
    pipeline = SimpleNamespace(
        folder=tmp_path / "zoo",
        work=tmp_path / "zoo" / ".work",
        key=lambda job: f"key of {job.name}",
        stems=lambda job: ("shared", job.name) if job.pretrains else (job.name,),
    )
    return lambda: Archiver(tmp_path / "out", cast(Any, pipeline))


def job(name: str, *, pretrains: bool = True) -> Any:
    return SimpleNamespace(name=name, pretrains=pretrains)


def test_a_finished_cell_brings_the_network_that_others_begin_with(
    archiver: Callable[[], Archiver], tmp_path: Path
) -> None:
    work, out = tmp_path / "zoo" / ".work", tmp_path / "out"
    (work / "shared.pretrained.pt").write_bytes(b"network")
    archiver().finish(job("cnn_s0"), [job("scratch_s0", pretrains=False)])
    assert [file.name for file in out.iterdir()] == ["cnn_s0.tar"], "nobody else begins with it"
    label = read_archive(archive_file(out, "cnn_s0")).label
    assert (label.kind, label.name, label.key) == ("cell", "cnn_s0", "key of cnn_s0")
    archiver().finish(job("cnn_s0"), [job("other_s0")])
    assert sorted(file.name for file in out.iterdir()) == ["cnn_s0.tar", "shared.work.tar"]
    archive = read_archive(out / "shared.work.tar")
    assert (archive.label.kind, archive.label.name, archive.label.key) == ("work", "cnn_s0", "key of cnn_s0")
    assert archive.members == {"shared.pretrained.pt": b"network"}


def test_what_is_interrupted_brings_its_states_and_its_history(
    archiver: Callable[[], Archiver], tmp_path: Path
) -> None:
    archiver().interrupt(job("nothing_s0"))
    assert not (tmp_path / "out").exists()
    work = tmp_path / "zoo" / ".work"
    for name in ("shared.pretrain.pt", "cnn_s0.finetune.pt", "another.pt"):
        (work / name).touch()
    archiver().interrupt(job("cnn_s0"))
    names = set(read_archive(tmp_path / "out" / "cnn_s0.work.tar").members)
    assert names == {"shared.pretrain.pt", "cnn_s0.finetune.pt", "cnn_s0.history.jsonl"}
