"""After the warm-up a question compiles nothing more, and no clock runs before it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numba
import pytest

from prunecert.verifiers.sparse.warmup import warm_up
from tests import house
from tests.verifiers.checker import kit


@pytest.mark.slow
def test_no_question_needs_a_kernel_that_warming_up_does_not(tmp_path: Path) -> None:
    """Each would be compiled in a question's time, and make a `timeout` of it that is kept."""
    warm_up()
    kept = Path(numba.config.CACHE_DIR)
    shutil.copytree(kept, tmp_path / kept.name)
    for file in tmp_path.rglob("*.compiled"):
        file.unlink()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    words = [sys.executable, "-m", "tests.verifiers.sparse.late_kernels", str(tmp_path)]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, cwd=house.ROOT)
    lines = run.stdout.splitlines()
    assert [line for line in lines if line.startswith("late")] == []
    assert int(next(line for line in lines if line.startswith("branched")).split()[1]) > 3


#: Writes a certificate, and says in which order kernels are compiled and the search begins.
PROGRAM = """
import sys
from numba.core import event
from prunecert.bench.certificate import main
from prunecert.verifiers.sparse.bab.search import Search

class Compilations(event.Listener):
    def on_start(self, happening):
        print("compiles", happening.data["dispatcher"].py_func.__name__, file=sys.stderr)
    def on_end(self, happening):
        pass

run = Search.run
def told(self):
    print("searches", file=sys.stderr)
    return run(self)
Search.run = told
with event.install_listener("numba:compile", Compilations()):
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_missing_kernel_is_compiled_before_the_clock_starts(tmp_path: Path) -> None:
    """As in an empty cache, but that there is one kernel to compile and not all of them."""
    warm_up()
    kept = Path(numba.config.CACHE_DIR)
    shutil.copytree(kept, tmp_path / kept.name)
    for file in (*tmp_path.rglob("*.compiled"), *tmp_path.rglob("certify.back-*.nbi")):
        file.unlink()
    files, proof = kit.questions("conv-skip")[3], tmp_path / "proof"
    words = ["write", str(proof), "--onnx", str(files.onnx), "--vnnlib", str(files.vnnlib), "--timeout", "60"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for first in (True, False):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stdout.startswith("unsat, certified by bab")
        lines = run.stderr.splitlines()
        searches = [index for index, line in enumerate(lines) if line == "searches"]
        compiled_at = [index for index, line in enumerate(lines) if line.startswith("compiles")]
        said = Counter(line.startswith("prunecert: compiling kernels, once for this machine") for line in lines)
        assert bool(compiled_at) == first, lines
        assert said[True] == first, lines
        # The warm-up searches, too; the last search is the property's.
        assert max(compiled_at, default=-1) < searches[-1]
        assert len(searches) >= 2
