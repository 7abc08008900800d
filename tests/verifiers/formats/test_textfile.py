from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import pytest

from prunecert.errors import UserError
from prunecert.verifiers.formats import textfile
from prunecert.verifiers.formats.textfile import read_bytes, read_text


def test_plain_and_gzipped_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"hello")
    (tmp_path / "b").write_bytes(gzip.compress(b"hel") + gzip.compress(b"lo"))
    assert read_text(tmp_path / "a.gz", "note") == read_text(tmp_path / "b", "note") == "hello"


@pytest.mark.slow
def test_what_unpacks_to_more_than_allowed_is_not_unpacked(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"(assert (<= X_0 0.6))\n" * 48_000
    with (tmp_path / "bomb.gz").open("wb") as stream:
        for _ in range(200):
            stream.write(packer.compress(block))
        stream.write(packer.flush())
    with pytest.raises(UserError, match=r"over 128 MiB \(unpacked\)"):
        read_text(tmp_path / "bomb.gz", "VNN-LIB")


def test_a_limit_counts_for_plain_files_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", "note", 5) == b"12345"
    with pytest.raises(UserError, match="is refused: it has over 0 MiB"):
        read_bytes(tmp_path / "a", "note", 4)


@pytest.mark.parametrize("name", ["x" * 5_000, "a\0b", "none"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        read_text(tmp_path / name, "VNN-LIB")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> BinaryIO:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(textfile, "open_regular", refused)
    with pytest.raises(UserError, match="may not be read by this user"):
        read_text(tmp_path / "a", "VNN-LIB")


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not text"):
        read_text(tmp_path / "a", "VNN-LIB")
    assert textfile.MAX_TEXT < textfile.MAX_BYTES


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe is no plain file .*; wanted is a VNN-LIB file"):
        read_bytes(tmp_path / "pipe", "VNN-LIB")
