from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.engine.revision_script import Answering
from tests.verifiers import onnxnets

ROOT = Path(__file__).resolve().parents[3]


def test_this_state_answers(tmp_path: Path) -> None:
    """With the verifiers that it has, by the names that the script asks for."""
    path = onnxnets.normal_form(onnxnets.linear(tmp_path / "net.onnx"))
    question = onnxnets.instance(path, 0.0)
    adapter: Any = Answering()
    assert adapter.answer({"verifier": "sparse-ibp", "tree": str(ROOT)}) == {}
    assert adapter.answer({"load": str(path)}) == {}
    np.savez(tmp_path / "box.npz", lower=question.lower, upper=question.upper)
    reply = adapter.answer({"box": str(tmp_path / "box.npz"), "label": question.label, "classes": 10, "timeout": 5.0})
    assert reply["status"] == "unsat"
    assert set(reply) == {"status", "domains", "detail", "cpu", "wall"}
    assert reply["wall"] > 0


def run(folder: Path) -> dict[str, Any]:
    """Asks the state in a folder that stands first on the path, as `revisions` does, with this one behind it."""
    script = ROOT / "bench" / "engine" / "revision_script.py"
    result = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps({"verifier": "told", "tree": str(folder)}) + "\n",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    reply: dict[str, Any] = json.loads(result.stdout)
    return reply


def old_state(folder: Path, package: str) -> None:
    """Writes a state whose verifiers lie in a package of that name."""
    (folder / "prunecert").mkdir()
    (folder / "prunecert" / "__init__.py").write_text("")
    place = folder.joinpath(*package.split("."))
    place.mkdir()
    text = "class Told:\n    def start(self): pass\nVERIFIERS = {'told': Told}\n"
    (place / "__init__.py").write_text(text)
    (place / "base.py").write_text("")


@pytest.mark.parametrize("package", ["verifiers", "prunecert.verifiers"])
def test_verifiers_of_an_older_state_are_its_own(package: str, tmp_path: Path) -> None:
    old_state(tmp_path, package)
    assert run(tmp_path) == {}


def test_verifiers_that_a_state_lacks_are_not_taken_from_another(tmp_path: Path) -> None:
    old_state(tmp_path, "elsewhere")
    (tmp_path / "prunecert" / "__init__.py").write_text("")
    assert "rror: " in run(tmp_path)["error"]


def test_another_tree_than_the_one_on_the_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="was imported from"):
        Answering().answer({"verifier": "pgd", "tree": str(tmp_path)})
