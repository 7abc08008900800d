"""What `pip install` puts into site-packages: `prunecert` alone, with all that its commands read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What of a checkout a wheel is made of.
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "bench", "models", "prunecert", "verifiers")


@pytest.fixture(name="installed", scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, made from a copy: a build leaves files beside its sources."""
    copy, wheels, installed = (tmp_path_factory.mktemp(name) for name in ("copy", "wheels", "installed"))
    without = shutil.ignore_patterns("__pycache__", ".work", "*.safetensors")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=without)
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / "models" / "checkpoints" / "small.safetensors").write_bytes(b"x")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    return installed


@pytest.mark.slow
def test_nothing_but_prunecert_is_installed(installed: Path) -> None:
    names = {path.name.partition("-")[0] for path in installed.iterdir()}
    assert names == {"prunecert"}
    (entry_points,) = installed.glob("prunecert-*.dist-info/entry_points.txt")
    assert "prunecert = prunecert.__main__:command" in entry_points.read_text()
    package = installed / "prunecert"
    for name in (
        "bench/suites/cifar10-4nets.yaml",
        "bench/report/report.html.j2",
        "bench/site/style.css",
        "models/checkpoints/small.safetensors",
        "verifiers/adapters/abcrown/default.yaml",
        "py.typed",
    ):
        assert (package / name).is_file(), name
    here = {path.relative_to(ROOT) for top in ("bench", "models", "verifiers") for path in (ROOT / top).rglob("*.py")}
    there = {path.relative_to(package) for path in package.rglob("*.py")}
    assert here <= there


@pytest.mark.slow
def test_commands_run_from_anywhere_by_the_packages_name(installed: Path, tmp_path: Path) -> None:
    """The child processes, too: a verifier answers from where there is no checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "prunecert.bench.ls", "suites"]
    listed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "cifar10-4nets" in listed.stdout
    program = (
        "import numpy as np, onnx\n"
        "from pathlib import Path\n"
        "import prunecert\n"
        f"assert Path(prunecert.__file__).is_relative_to({str(installed)!r})\n"
        "from prunecert.models.checkpoint_folders import CHECKPOINTS, ZOO, places\n"
        "assert places(CHECKPOINTS) == (Path('checkpoints'), ZOO)\n"
        f"assert ZOO.is_relative_to({str(installed)!r}) and prunecert.available() == ['small']\n"
        "from onnx import TensorProto, helper, numpy_helper\n"
        "weights = [numpy_helper.from_array(np.float32([[1, 0], [0, 1]]), 'w'),"
        " numpy_helper.from_array(np.float32([1, 0]), 'b')]\n"
        "graph = helper.make_graph([helper.make_node('Gemm', ['x', 'w', 'b'], ['y'], transB=1)], 'g',"
        " [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 2])],"
        " [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, 2])], weights)\n"
        "onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=7), 'net.onnx')\n"
        "from prunecert.onnx.io import identity\n"
        "from prunecert.verifiers.base import Instance, OutputSpec\n"
        "from prunecert.verifiers.process.worker import Worker\n"
        "box = np.float32([0.4, 0.4]), np.float32([0.6, 0.6])\n"
        "path = Path('net.onnx')\n"
        "question = Instance(path, identity(path), *box, OutputSpec.robustness(0, 2), 60.0, classes=2)\n"
        "with Worker('ibp') as worker:\n"
        "    print(worker.verify([question])[0].status)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.stdout.split() == ["unsat"], run.stderr
