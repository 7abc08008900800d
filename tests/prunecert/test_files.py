from __future__ import annotations

import os
from pathlib import Path

from prunecert.files import scratch_beside


def test_each_process_has_a_name_of_its_own_in_the_same_folder(tmp_path: Path) -> None:
    scratch = scratch_beside(tmp_path / "net.onnx")
    assert scratch.parent == tmp_path
    assert scratch.name.startswith(".net.onnx.")
    assert f".{os.getpid()}." in scratch.name
