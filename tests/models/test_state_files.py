"""State dictionaries in foreign files are read as they are there, or refused in the caller's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prunecert.errors import UserError
from prunecert.models.state_files import read_tensors


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "a.pt")
    return folder / "a.pt"


def test_names_and_tensors_come_in_the_files_order(tmp_path: Path) -> None:
    state = {"z": torch.arange(3), "a": torch.ones(2, dtype=torch.float64)}
    for content in (state, {"net": state}, {"outer": {"net": state}}):
        tensors = read_tensors(saved(tmp_path, content), ("outer", "net"), unlike="", without="")
        assert [name for name, _ in tensors] == ["z", "a"]
        assert [value.dtype for _, value in tensors] == [torch.int64, torch.float64]


@pytest.mark.parametrize("content", [[1], {}, {"net": 3}, {"a": torch.ones(1), "epoch": 7}])
def test_what_holds_none_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match=r"holds no state dictionary of tensors, alone\.$"):
        read_tensors(saved(tmp_path, content), ("net",), unlike="", without=", alone")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(UnpicklingError\); .* without other objects: ask for it\.$"):
        read_tensors(saved(tmp_path, {"a": Path("b")}), (), unlike=": ask for it", without="")
