from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prunecert.bench.results.vnncomp import read_instances, read_keys
from prunecert.bench.running.exporting import ExportRequest, compare_outputs, export_suite, show_shapes
from prunecert.errors import UserError
from tests.bench.conftest import CELLS, Zoo


@pytest.fixture
def request_(zoo: Zoo, tmp_path: Path) -> ExportRequest:
    """The pruned cell alone, on four images."""
    return ExportRequest(
        suite=str(zoo.suite), checkpoints=zoo.checkpoints, data_root=zoo.data, cells=CELLS[1], images=4, out=tmp_path
    )


def test_instances_are_questions_about_images_that_are_classified_correctly(
    request_: ExportRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_suite(replace(request_, timeout=7.0))
    tasks, keys = read_instances(tmp_path / "instances.csv"), read_keys(tmp_path)
    assert [key.cell for key in keys] == [CELLS[1]] * len(tasks)
    assert {task.timeout for task in tasks} <= {7.0}
    assert all(task.onnx.is_file() and task.vnnlib.is_file() for task in tasks)
    assert f"{len(tasks)} of 4 images classified correctly" in capsys.readouterr().out


def test_shapes_need_no_data_and_equal_files_nothing_to_compare(
    request_: ExportRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_shapes(replace(request_, data_root=tmp_path / "none"))
    assert f"{CELLS[1]}: 214,760 to" in capsys.readouterr().out
    assert compare_outputs(replace(request_, compact="off"), 3) == 0
    assert f"{CELLS[1]}: nothing was removed" in capsys.readouterr().out


def test_cells_without_checkpoints_are_named_with_how_to_train_them(
    request_: ExportRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = replace(request_, checkpoints=tmp_path)
    with pytest.raises(UserError, match=r"None of the 1 cells has a checkpoint in .*; nothing to export"):
        export_suite(bare)
    assert f"{CELLS[1]}: no checkpoint yet; train it with: prunecert train" in capsys.readouterr().out
