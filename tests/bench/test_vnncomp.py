"""The competition's scripts, as it calls them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prunecert.bench import vnncomp
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.formats.vnnlib import read_counterexample
from prunecert.verifiers.process.worker import Worker
from tests import house
from tests.verifiers import onnxnets

SCRIPTS = house.ROOT / "vnncomp"
TEMPLATE = "{inputs}\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n{box}\n(assert (<= Y_0 Y_1))\n"


def write_property(path: Path, eps: float, center: float = 0.5) -> Path:
    """Unsafe is a first output that isn't the larger one, for inputs round `center`."""
    inputs = "\n".join(f"(declare-const X_{i} Real)" for i in range(12))
    box = "\n".join(f"(assert (>= X_{i} {center - eps}))\n(assert (<= X_{i} {center + eps}))" for i in range(12))
    path.write_text(TEMPLATE.format(inputs=inputs, box=box))
    return path


@pytest.fixture(name="net")
def _net(tmp_path: Path) -> Path:
    """A network of two outputs, of which the first is the larger one in the middle."""
    for seed in range(20):
        path = onnxnets.linear(tmp_path / "net.onnx", outputs=2, seed=seed)
        first, second = outputs(path, np.full((1, 3, 2, 2), 0.5, dtype=np.float32))[0]
        if first > second + 0.1:
            return path
    raise AssertionError("no such network")


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PRUNECERT_PYTHON": sys.executable, "PYTHONPATH": str(house.ROOT)}
    return subprocess.run([str(SCRIPTS / name), *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_scripts_answer_in_the_competitions_form(net: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.txt"
    # As install_tool.sh does: kernels are not compiled within an instance's limit.
    with Worker("sparse-bab", start_limit_s=900) as worker:
        worker.verify([onnxnets.instance(net, 1e-3)])
    safe = write_property(tmp_path / "safe.vnnlib", 1e-3)
    unsafe = write_property(tmp_path / "unsafe.vnnlib", 100.0)
    assert script("prepare_instance.sh", "v1", "tests", str(net), str(safe)).returncode == 0
    run = script("run_instance.sh", "v1", "tests", str(net), str(safe), str(results), "300")
    assert (run.returncode, results.read_text()) == (0, "unsat\n"), run.stderr
    run = script("run_instance.sh", "v1", "tests", str(net), str(unsafe), str(results), "300")
    assert run.returncode == 0, run.stderr
    word, _, text = results.read_text().partition("\n")
    assert word == "sat"
    (tmp_path / "found.counterexample").write_text(text)
    x, y = read_counterexample(tmp_path / "found.counterexample")
    assert np.allclose(outputs(net, x.reshape(1, 3, 2, 2))[0], y)
    assert y[0] <= y[1]


def test_what_cannot_be_read_leaves_an_error_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.txt"
    (tmp_path / "p.vnnlib").write_text("(")
    (tmp_path / "n.onnx").write_bytes(b"no network")
    assert vnncomp.main([str(tmp_path / "n.onnx"), str(tmp_path / "p.vnnlib"), str(results), "5"]) == 2
    assert results.read_text() == "error\n"
    assert "no ONNX network" in capsys.readouterr().err


def test_another_version_and_missing_files_are_refused(tmp_path: Path) -> None:
    assert script("run_instance.sh", "v2").returncode == 1
    assert script("install_tool.sh").returncode == 1
    run = script("prepare_instance.sh", "v1", "tests", str(tmp_path / "n.onnx"), str(tmp_path / "p.vnnlib"))
    assert (run.returncode, "There is no file" in run.stderr) == (1, True)


def test_scripts_are_executable_and_shell() -> None:
    for path in SCRIPTS.glob("*.sh"):
        assert os.access(path, os.X_OK)
        assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert len(list(SCRIPTS.glob("*.sh"))) == 3
