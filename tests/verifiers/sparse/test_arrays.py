"""Lanes are what the kernels are compiled for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.verifiers.sparse import arrays, cache, certify


def test_vectors_fill_whole_registers() -> None:
    register = 64
    assert arrays.LANES32 * np.dtype(np.float32).itemsize == register
    assert arrays.PAIRED_LANES32 == 2 * arrays.LANES32
    assert arrays.CONV_WIDTH * np.dtype(np.float64).itemsize == register
    assert certify.LANES64 * np.dtype(np.float64).itemsize % register == 0


def test_a_change_of_lanes_compiles_every_kernel_anew(tmp_path: Path) -> None:
    package = Path(arrays.__file__).parent
    for source in package.rglob("*.py"):
        copy = tmp_path / source.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    before = cache.key(tmp_path)
    assert before == cache.key(package)
    text = (tmp_path / "arrays.py").read_text()
    (tmp_path / "arrays.py").write_text(text.replace("CONV_WIDTH = 8", "CONV_WIDTH = 4"))
    assert cache.key(tmp_path) != before


def test_the_independent_checker_takes_no_constant_from_the_search() -> None:
    assert "sparse.arrays" not in Path(certify.__file__).read_text()
