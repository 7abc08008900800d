from __future__ import annotations

import os
from pathlib import Path

import pytest

from prunecert.errors import UserError
from prunecert.files import read_regular, scratch_beside


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
