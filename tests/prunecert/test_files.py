from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from prunecert.files import scratch_beside, write_bytes, write_text


def test_each_process_has_a_name_of_its_own_in_the_same_folder(tmp_path: Path) -> None:
    scratch = scratch_beside(tmp_path / "net.onnx")
    assert scratch.parent == tmp_path
    assert scratch.name.startswith(".net.onnx.")
    assert f".{os.getpid()}." in scratch.name


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
