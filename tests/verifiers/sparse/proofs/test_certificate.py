from __future__ import annotations

import io

import numpy as np
import pytest

from prunecert.verifiers.checker.files import Stream
from prunecert.verifiers.checker.proof import LEAF, SPLIT
from prunecert.verifiers.sparse.proofs.certificate import (
    CaseProof,
    Leaf,
    SiteBounds,
    Slopes,
    Split,
    Walk,
    encode_sat,
    encode_unsat,
)


@pytest.mark.parametrize(("precision", "error"), [(0, 1 / 510), (1, 1 / 131070), (2, 0.0)])
def test_slopes_are_rounded_to_what_is_read(precision: int, error: float) -> None:
    values = np.random.default_rng(0).random((2, 7)).astype(np.float32)
    slopes = Slopes(values, precision)
    assert np.abs(slopes.rounded() - values).max() <= error + 1e-7
    assert len(slopes.encoded()) == 1 + 14 * (1, 2, 4)[precision]


def test_a_certificate_is_read_in_the_order_of_its_parts() -> None:
    one, none = np.ones(1, dtype=np.float32), np.zeros(0, dtype=np.float32)
    site = SiteBounds(
        (Walk(), Walk(np.array([4]), Slopes(np.full((2, 1), 0.5, dtype=np.float32)), 3)), np.array([2, 9])
    )
    proof = CaseProof([site], [[Split(1, 7), Leaf(one, one), Leaf(one, 2 * one)], [Leaf(one, none, None, 5)]])
    file = Stream(io.BytesIO(encode_unsat(b"n" * 32, b"p" * 32, [proof])))
    assert (file.answer, file.network, file.property) == (0, b"n" * 32, b"p" * 32)
    assert file.take("<u4", 5).tolist() == [2, 0, 0, 1, 3]
    assert file.take("<u4", 2).tolist() == [1, 4]
    assert (file.take("u1").tolist(), file.take("<f4", 2).tolist()) == ([4], [0.5, 0.5])
    assert file.take("<u4", 3).tolist() == [2, 2, 9]
    assert (file.take("u1").tolist(), file.take("<u4", 2).tolist()) == ([SPLIT], [1, 7])
    for stop, beta in ((0, [1.0]), (0, [2.0]), (5, [])):
        assert (file.take("u1").tolist(), file.take("<u4").tolist()) == ([LEAF], [stop])
        assert (file.take("<f4").tolist(), file.take("u1").tolist()) == ([1.0], [0])
        assert file.take("<f4", len(beta)).tolist() == beta
    file.end()


def test_a_witness_is_written_as_it_is() -> None:
    witness = np.array([0.1, -3.5], dtype=np.float32)
    file = Stream(io.BytesIO(encode_sat(bytes(32), bytes(32), witness)))
    assert file.answer == 1
    assert np.array_equal(file.take("<f4", 2), witness)
    file.end()
