from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.results.vnncomp import RESULT_WORDS, Key, category_of, read_instances, read_keys, write_keys
from prunecert.errors import UserError
from prunecert.verifiers.base import Status
from tests.bench.propertykit import HOLDS, identity


def test_every_status_has_a_word_of_the_scorer() -> None:
    assert set(RESULT_WORDS) == set(Status)
    assert set(RESULT_WORDS.values()) <= {"sat", "unsat", "unknown", "timeout", "error"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "has no instance"),
        ("net.onnx,good.vnnlib\n", "line 1: has 2 fields"),
        ("\nnet.onnx,good.vnnlib,soon\n", "line 2: the timeout 'soon'"),
        ("net.onnx,good.vnnlib,-1\n", "line 1: the timeout '-1'"),
        ("net.onnx,none.vnnlib,1\n", "line 1: The VNN-LIB file"),
        ("a,b,c\nnet.onnx,good.vnnlib,1\nnet.onnx,good.vnnlib\n", "line 3: has 2 fields"),
        # One row of column names at most, and none that names files.
        ("net.onnx,good.vnnlib,10 s\nnet.onnx,good.vnnlib,1\n", "line 1: the timeout '10 s'"),
        ("gone.onnx,good.vnnlib,hard\nnet.onnx,good.vnnlib,1\n", "line 1: the timeout 'hard'"),
        ("a,b,c\nd,e,f\nnet.onnx,good.vnnlib,1\n", "line 2: the timeout 'f'"),
        ("net.onnx,good.vnnlib,1e300\n", "line 1: the timeout '1e300'"),
        ("x" * 131_073, "line 1: is not understood"),
        ("a.onnx," + "p/" * 60_000 + ",1", "line 1: The ONNX file .* does not exist"),
        ("net.onnx," + "p" * 5_000 + ",1", "line 1: The VNN-LIB file .* can't be reached"),
    ],
)
def test_bad_instances_are_refused(tmp_path: Path, content: str, why: str) -> None:
    identity().save(tmp_path / "net.onnx")
    (tmp_path / "good.vnnlib").write_text(HOLDS)
    (tmp_path / "instances.csv").write_text(content)
    with pytest.raises(UserError, match=why):
        read_instances(tmp_path / "instances.csv")


def test_equal_names_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    for part in ("medical", "robot"):
        (tmp_path / "onnx" / part).mkdir(parents=True)
        identity().save(tmp_path / "onnx" / part / "net.onnx")
    (tmp_path / "p.vnnlib").write_text(HOLDS)
    (tmp_path / "instances.csv").write_text("onnx/medical/net.onnx,p.vnnlib,1\nonnx/robot/net.onnx,p.vnnlib,2.5\n")
    tasks = read_instances(tmp_path / "instances.csv", "safe")
    assert [(task.name, task.timeout) for task in tasks] == [("medical_net_p", 1.0), ("robot_net_p", 2.5)]
    assert tasks[0].counterexample(tmp_path) == tmp_path / "safe/medical_net_p.counterexample.gz"


def test_categories_are_named_by_their_folder(tmp_path: Path) -> None:
    assert category_of(tmp_path / "acasxu_2023") == "acasxu_2023"
    assert category_of(tmp_path / "acasxu_2023" / "2.0") == "acasxu_2023"


@given(st.lists(st.builds(Key, st.text("abc,_-\"' 0", min_size=1), st.integers(0, 10_000)), max_size=5))
def test_cells_and_images_are_read_as_they_were_written(keys: list[Key]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_keys(Path(folder), keys)
        assert read_keys(Path(folder)) == keys


@pytest.mark.parametrize("line", ["cnn", "cnn,x", "cnn,-1", ",1", "cnn,1,2", "cnn,²", ""])
def test_a_damaged_list_of_cells_is_refused_by_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "cells.csv").write_text(f"cnn,1\n{line}\n")
    with pytest.raises(UserError, match=r"cells\.csv, line 2: is not understood; allowed are cell,image"):
        read_keys(tmp_path)
    with pytest.raises(UserError, match="cells"):
        read_keys(tmp_path / "nowhere")
