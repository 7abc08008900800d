"""After the warm-up a question compiles nothing more, and no clock runs before it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse import certify, live
from prunecert.verifiers.sparse.bab import ascent, box_bounds, box_clipping, point_batch
from prunecert.verifiers.sparse.crown.rows import walk as row_walk
from prunecert.verifiers.sparse.crown.units import walk as unit_walk
from prunecert.verifiers.sparse.warmup import warm_up
from tests.verifiers.checker import kit
from tests.verifiers.sparse.searching import search
from tests.verifiers.sparse.test_network import residual


def compiled() -> dict[str, int]:
    """Returns how many signatures each kernel of the search is compiled for."""
    kernels: dict[str, Any] = {
        "ascent": ascent.walk,
        "attack": point_batch.descend,
        "boxes": box_bounds.bound_boxes,
        "clipping": box_clipping.clip_boxes,
        "certify": certify.back,
        "live": live.pick,
        "rows": row_walk.bound_image,
        "units": unit_walk.advance,
    }
    return {name: len(kernel.signatures) for name, kernel in kernels.items()}


def test_all_kernels_are_compiled_and_a_question_needs_no_other() -> None:
    warm_up()
    before = compiled()
    assert min(before.values()) > 0
    spec = OutputSpec.robustness(0, 4)
    for split in ("input", "relu"):
        _, outcome = search(residual(0), np.zeros(5), np.ones(5), spec, split=split)
        assert outcome.status in (Status.SAT, Status.UNSAT)
    assert compiled() == before


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
