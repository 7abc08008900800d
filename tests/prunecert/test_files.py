from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest

from prunecert.errors import UserError
from prunecert.files import read_regular, replacing, scratch_beside, unpack_tar, write_bytes, write_text


def test_each_process_has_a_name_of_its_own_in_the_same_folder(tmp_path: Path) -> None:
    scratch = scratch_beside(tmp_path / "net.onnx")
    assert scratch.parent == tmp_path
    assert scratch.name.startswith(".net.onnx.")
    assert f".{os.getpid()}." in scratch.name


def test_plain_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(UserError, match="it has 5 bytes; at most 4 are read"):
        read_regular(path, 4)


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, said in [
        ("pipe", "no plain file"),
        ("zero", "no plain file"),
        ("circle", "lead in a circle"),
        (".", "is a folder"),
        ("none", "no such file"),
        ("n" * 300, "longer than the file system"),
        ("a\0b", "no name of a file"),
    ]:
        with pytest.raises(UserError, match=said):
            read_regular(tmp_path / name, 100)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / ("n" * 255)
    assert write_text(target, "é\udcff\n") == target
    assert target.read_bytes() == "é\\udcff\n".encode()

    def fail(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        write_bytes(target, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == "é\\udcff\n".encode()


def test_many_writers_of_one_file_leave_one_of_their_texts(tmp_path: Path) -> None:
    target = tmp_path / "x"
    texts = [f"{number}" * 5000 for number in range(8)]
    threads = [
        threading.Thread(target=lambda text=text: [write_text(target, text) for _ in range(20)]) for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_others_may_read_a_file_as_far_as_the_umask_lets_them(tmp_path: Path, umask: int, mode: int) -> None:
    """Also one that a library writes through a temporary file of its own, which only its owner may read."""
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "net") as scratch:
            private = tempfile.NamedTemporaryFile(dir=tmp_path, delete=False)  # noqa: SIM115
            private.write(b"weights")
            private.close()
            Path(private.name).replace(scratch)
        write_text(tmp_path / "card", "{}")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("net", "card")] == [mode, mode]
    assert (tmp_path / "net").read_bytes() == b"weights"


@pytest.mark.parametrize("old", [False, True])
def test_an_archive_is_unpacked_by_every_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    """The first releases of 3.11 have no filters; where there are some, nothing lands outside of the folder."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("inner/file.txt", *(() if old else ("../outside.txt",))):
            member = tarfile.TarInfo(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"words"))
    if old:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        unpack_tar(data.getvalue(), tmp_path / "folder")
    elif hasattr(tarfile, "data_filter"):
        with pytest.raises(tarfile.TarError):
            unpack_tar(data.getvalue(), tmp_path / "folder")
        assert not (tmp_path / "outside.txt").exists()
    else:
        pytest.skip("this Python has no filters")
    assert (tmp_path / "folder" / "inner" / "file.txt").read_bytes() == b"words"
