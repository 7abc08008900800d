from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.running.properties_request import TIMEOUT_S, PropertiesRequest
from prunecert.compaction import Mode
from prunecert.errors import UserError
from tests.bench.propertykit import HOLDS, identity

A, B, P = Path("a.onnx"), Path("b.onnx"), Path("p.vnnlib")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two networks that are one, a property and a list of it with a limit."""
    for name in ("a", "b"):
        identity().save(tmp_path / f"{name}.onnx")
    (tmp_path / "p.vnnlib").write_text(HOLDS)
    (tmp_path / "list.csv").write_text("a.onnx,p.vnnlib,7\nb.onnx,p.vnnlib,8\n")
    return tmp_path


def test_one_pair_gets_the_limit_and_the_category_that_are_named_or_its_own(folder: Path) -> None:
    files = {"onnx": folder / A, "vnnlib": folder / P}
    ((task, pair),) = PropertiesRequest(verifiers={}, onnx=folder / A, vnnlib=folder / P).tasks()
    assert (task.onnx, task.vnnlib, task.timeout, task.category, pair) == (
        *files.values(),
        TIMEOUT_S,
        folder.name,
        None,
    )
    ((task, _),) = PropertiesRequest(
        verifiers={}, onnx=folder / A, vnnlib=folder / P, timeout=3.0, category="toy"
    ).tasks()
    assert (task.timeout, task.category) == (3.0, "toy")


def test_a_list_has_its_own_limits_unless_one_is_named(folder: Path) -> None:
    rows = folder / "list.csv"
    assert [task.timeout for task, _ in PropertiesRequest(verifiers={}, instances=rows).tasks()] == [7.0, 8.0]
    assert [task.timeout for task, _ in PropertiesRequest(verifiers={}, instances=rows, timeout=2.0).tasks()] == [2, 2]


def test_two_networks_become_one_file_that_remembers_them(folder: Path) -> None:
    request = PropertiesRequest(
        verifiers={}, onnx=folder / A, second=folder / B, vnnlib=folder / P, alike="class", out=folder / "out"
    )
    ((task, pair),) = request.tasks()
    assert pair is not None
    assert (pair.first, pair.second) == (folder / A, folder / B)
    assert task.onnx == folder / "out" / "networks" / "a-with-b.onnx"
    assert task.onnx.is_file()
    assert task.vnnlib.is_file()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "Nothing to verify"),
        ({"onnx": A}, "Nothing to verify"),
        ({"onnx": A, "vnnlib": P}, "a.onnx does not exist"),
        ({"instances": P, "onnx": A}, "give one or the other"),
        ({"onnx": A, "vnnlib": P, "alike": "class"}, "^--alike needs --with, the second"),
        ({"instances": P, "second": B, "alike": "class"}, "^--with and --alike go without --instances"),
        ({"instances": P, "alike": "class"}, "^--with and --alike go without --instances"),
        ({"second": B, "vnnlib": P}, "^--with needs --onnx and --vnnlib"),
        ({"onnx": A, "second": B, "vnnlib": P, "compact": Mode.EXACT}, "goes without --compact"),
        ({"onnx": A, "second": B, "vnnlib": P, "certificate": P}, "goes without --compact and --certificate"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        PropertiesRequest(verifiers={}, **fields).tasks()


def test_a_list_gets_no_certificate(folder: Path) -> None:
    with pytest.raises(UserError, match="written for one pair"):
        PropertiesRequest(verifiers={}, instances=folder / "list.csv", certificate=P).tasks()
