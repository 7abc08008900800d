from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.results.vnncomp import RESULT_WORDS, category_of, read_instances
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
