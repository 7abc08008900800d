"""Two states of the program are asked in turns, in processes of their own; here they are small stand-ins."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest

from prunecert.bench.engine import revisions
from prunecert.bench.engine.complete import BenchmarkRequest
from prunecert.bench.engine.revisions import find_tree, main, summary
from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, OutputSpec
from tests.verifiers import onnxnets

#: A state whose verifier works for so many milliseconds of the processor, and answers with so many domains.
STATE = """
    import time, types

    class Subject:
        def start(self): print("a word of a library")
        def load(self, onnx): self.onnx = onnx
        def solve(self, questions):
            (question,) = questions
            assert question.label == 2 and question.spec == ("robustness", 2, 10) and question.lower.shape == (3,)
            end = time.process_time() + {milliseconds} / 1000
            while time.process_time() < end:
                pass
            {extra}
            return [types.SimpleNamespace(status="{status}", domains={milliseconds}, detail="")]

    VERIFIERS = {{"sparse-bab": Subject}}
"""
BASE = """
    import types
    Instance = lambda **content: types.SimpleNamespace(**content)
    OutputSpec = types.SimpleNamespace(robustness=lambda label, classes: ("robustness", label, classes))
"""


def state(folder: Path, milliseconds: int, status: str = "unsat", extra: str = "pass") -> Path:
    package = folder / "prunecert" / "verifiers"
    package.mkdir(parents=True)
    (folder / "prunecert" / "__init__.py").write_text("")
    text = textwrap.dedent(STATE).format(milliseconds=milliseconds, status=status, extra=extra)
    (package / "__init__.py").write_text(text)
    (package / "base.py").write_text(textwrap.dedent(BASE))
    return folder


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of which two images are open."""
    path = onnxnets.linear(tmp_path / "net.onnx")
    corner, spec = np.zeros(3, np.float32), OutputSpec.robustness(2, 10)
    question = Instance(path, "", corner, corner + 1, spec, 9.0, "q", 2, 10)
    monkeypatch.setattr(revisions, "open_images", lambda onnx, request: {3: question, 8: question})
    return path


def test_ratios_are_those_of_both_states_in_turns(
    tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = [str(state(tmp_path / "slow", 60)), str(state(tmp_path / "fast", 20))]
    out = tmp_path / "out" / "answers.json"
    assert main([*trees, "--onnx", str(network), "--repeats", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "image 3: before (slow) unsat 0.06" in printed
    assert "now (fast) unsat 0.02" in printed
    last = printed.strip().splitlines()[-1]
    assert last.startswith("ratio an image, before (slow) over now (fast): median ")
    assert last.endswith("2 images")
    assert 2.0 < float(last.split("median ")[1].split(",")[0]) < 4.0
    assert out.read_text().count('"network"') == 8


def test_a_contradiction_fails(tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees = [str(state(tmp_path / "one", 1)), str(state(tmp_path / "two", 1, "sat"))]
    assert main([*trees, "--onnx", str(network), "--clock", "wall"]) == 1
    assert "CONTRADICTION net.onnx, image 3: sat by now (two) and unsat by before (one)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "said"),
    [("raise ValueError('no such thing')", "ValueError: no such thing"), ("import os; os._exit(4)", "exit code 4")],
)
def test_a_state_that_fails_is_said(extra: str, said: str, tmp_path: Path, network: Path) -> None:
    trees = [str(state(tmp_path / "one", 1)), str(state(tmp_path / "two", 1, extra=extra))]
    with pytest.raises(UserError, match=rf"now \(two\): .*{said}"):
        main([*trees, "--onnx", str(network)])


def test_another_verifier_s_name_is_refused_by_the_state(tmp_path: Path, network: Path) -> None:
    trees = [str(state(tmp_path / "one", 1)), str(state(tmp_path / "two", 1))]
    with pytest.raises(UserError, match=r"before \(one\): "):
        main([*trees, "--onnx", str(network), "--verifier", "nobody"])


def test_a_revision_is_unpacked_once_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("there is no git")
    folder = state(tmp_path / "repository", 1)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"], ["tag", "v1"]):
        subprocess.run([git, "-C", str(folder), *words], check=True)
    monkeypatch.setattr(revisions, "ROOT", folder)
    tree = find_tree("v1", tmp_path / "trees")
    assert tree.folder == tmp_path / "trees" / tree.commit
    assert len(tree.commit) == 12
    assert (tree.folder / "prunecert" / "verifiers" / "base.py").is_file()
    (tree.folder / "mark").write_text("")
    assert (find_tree("HEAD", tmp_path / "trees").folder / "mark").exists()
    assert find_tree(str(folder), tmp_path).commit == tree.commit
    (folder / "prunecert" / "__init__.py").write_text("changed = True")
    assert find_tree(str(folder), tmp_path).commit == f"{tree.commit}+changes"
    for text in ("nobody", "--help"):
        with pytest.raises(UserError, match="is refused in"):
            find_tree(text, tmp_path)


def test_a_folder_without_the_program_and_a_missing_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no prunecert"):
        find_tree(str(tmp_path), tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        main([".", ".", "--onnx", str(tmp_path / "none.onnx")])
    assert BenchmarkRequest(onnx=()).images == 200


def test_where_nothing_is_open_there_is_nothing_to_compare() -> None:
    assert summary([]) == ["no image is open: there is nothing to compare"]
