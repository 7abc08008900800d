"""Joined files whose activations are rounded are taken apart again, and others are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.onnx.merge import PAIR_KEY, merge
from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.pairs.reading import enclose, read_rounded_pair
from prunecert.verifiers.sparse.quantised.question import Quantised, read_quantised
from tests.soundness.test_quantised import fixed
from tests.verifiers.sparse.quantised.networks import network, unrounded


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> tuple[Path, Path]:
    model = fixed(network("signed", 1))
    paths = tmp_path / "plain.onnx", tmp_path / "rounding.onnx"
    onnx.save(unrounded(model), paths[0])
    onnx.save(model, paths[1])
    return paths


def test_each_network_is_read_as_what_it_is(files: tuple[Path, Path], tmp_path: Path) -> None:
    both = tmp_path / "both.onnx"
    for order, types in (
        (files, (Network, Quantised)),
        (files[::-1], (Quantised, Network)),
        ((files[1],) * 2, (Quantised,) * 2),
    ):
        onnx.save(merge(*order), both)
        members = read_rounded_pair(both)
        assert members is not None
        assert tuple(map(type, members)) == types
        point = np.full((2, 4, 4), 0.3, dtype=np.float32)
        lower, upper = enclose(members, point)
        (values,) = outputs(both, point[None])
        assert ((lower <= values) & (values <= upper)).all()
        assert (upper - lower < 0.2 * np.abs(values).max() + 0.2).all()
    onnx.save(merge(files[0], files[0]), both)
    assert read_rounded_pair(both) is None


def test_a_file_that_somebody_else_joined_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = merge(*files)
    (record,) = [item for item in model.metadata_props if item.key == PAIR_KEY]
    model.metadata_props.remove(record)
    onnx.save(model, tmp_path / "both.onnx")
    with pytest.raises(UnsupportedError, match=r"both\.onnx rounds its activations"):
        read_rounded_pair(tmp_path / "both.onnx")


def test_who_takes_no_such_pair_says_who_does(files: tuple[Path, Path], tmp_path: Path) -> None:
    onnx.save(merge(*files), tmp_path / "both.onnx")
    with pytest.raises(UnsupportedError, match=r"both\.onnx joins .* such a pair is taken by sparse-pair"):
        read_quantised(tmp_path / "both.onnx")
