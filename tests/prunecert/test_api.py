"""The Python interface as its documentation shows it: what `import prunecert` costs, and the examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import prunecert
from prunecert.api import zoo
from prunecert.errors import UserError
from prunecert.models import checkpoint_folders

#: Modules of which some examples start verifiers.
STARTING = ("asking", "critical", "evaluation")
QUIET = ("exporting", "inputs", "zoo")


def test_importing_the_package_imports_nothing_else() -> None:
    program = (
        "import sys; before = set(sys.modules); import prunecert; "
        "print(sorted({n.partition('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)), "
        "sorted(n for n in sys.modules if n.startswith('prunecert.')))"
    )
    root = Path(prunecert.__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['prunecert'] []"


def test_every_name_is_there_for_programs_and_for_type_checkers() -> None:
    tree = ast.parse(Path(prunecert.__file__).read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    homes = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert homes == prunecert._HOMES
    assert set(prunecert.__all__) == {*homes, "__version__"}
    assert set(prunecert.__all__) <= set(dir(prunecert))
    for name in prunecert.__all__:
        assert getattr(prunecert, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'verifi'"):
        _ = prunecert.verifi


@pytest.mark.parametrize("name", [*QUIET, *(pytest.param(name, marks=pytest.mark.slow) for name in STARTING)])
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"prunecert.api.{name}")
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_own_checkpoints_come_before_shipped_ones_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, name = tmp_path / "checkpoints", "cnn-small_ibp_eps2_lwm_x10_s0"
    monkeypatch.setattr(checkpoint_folders, "CHECKPOINTS", own)
    own.mkdir()
    for suffix in ("json", "safetensors"):
        shutil.copy(checkpoint_folders.ZOO / f"{name}.{suffix}", own)
        shutil.copy(checkpoint_folders.ZOO / f"{name}.{suffix}", own / f"mine.{suffix}")
    assert {"mine", name, "cnn-small_ibp_eps2_dense_x1_s0"} <= set(zoo.available())
    assert zoo.checkpoint_file("mine") == own / "mine.safetensors"
    with pytest.warns(UserWarning, match="ships checkpoints of the same name"):
        assert zoo.checkpoint_file(name) == own / f"{name}.safetensors"


def test_checkpoints_are_found_by_name_and_by_path() -> None:
    name = "cnn-small_ibp_eps2_lwm_x10_s0"
    assert name in zoo.available()
    file = zoo.checkpoint_file(name)
    assert zoo.checkpoint_file(file.with_suffix(".json")) == file
    for wrong, why in (("cnn-small_ibp_eps2_lwm_x11_s0", "Did you mean"), ("nowhere.safetensors", "no checkpoint")):
        with pytest.raises(UserError, match=why):
            zoo.load(wrong)
