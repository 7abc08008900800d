from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.checker import check
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Network
from prunecert.verifiers.checker.vnnlibfile import Case, read_property
from prunecert.verifiers.sparse.proofs.boxes import MOST_INPUTS, UnprovedBoxError, cut_boxes, few_inputs
from prunecert.verifiers.sparse.proofs.certificate import Bounded, CaseProof, Cut, Leaf, SiteBounds, Walk
from tests.verifiers.checker import kit


def read(files: kit.Files) -> tuple[Network, Case]:
    network = read_network(files.onnx.read_bytes())
    (case,) = read_property(files.vnnlib.read_bytes(), network.nodes[0].size, network.nodes[network.output].size)
    return network, case


def cut(files: kit.Files, seconds: float = 20.0) -> CaseProof:
    network, case = read(files)
    return cut_boxes(network, case, [SiteBounds((Walk(),)) for _ in network.sites], time.monotonic() + seconds)


@pytest.mark.parametrize(("family", "number"), [("skip", 2), ("skip", 3), ("conv-skip", 1)])
def test_what_holds_is_proved_by_boxes_that_the_checker_accepts(family: str, number: int, tmp_path: Path) -> None:
    files = kit.questions(family)[number]
    proof = cut(files)
    kinds = [type(entry) for tree in proof.trees for entry in tree]
    assert kinds.count(Cut) > 0
    assert kinds.count(Leaf) == kinds.count(Bounded) == kinds.count(Cut) + len(proof.trees)
    (tmp_path / "proof").write_bytes(files.certificate(proof.encoded()))
    report = check(tmp_path / "proof", files.onnx, files.vnnlib)
    assert (report.answer, report.leaves) == ("unsat", kinds.count(Leaf))


def test_what_does_not_hold_has_no_proof() -> None:
    for number in (4, 7):
        with pytest.raises(UnprovedBoxError, match=r"can't be cut any further|parts of the box are open"):
            cut(kit.questions("skip")[number])
    with pytest.raises(UnprovedBoxError, match=r"1 parts of the box are open"):
        cut(kit.questions("skip")[3], seconds=-1.0)


def test_boxes_of_many_inputs_are_not_cut() -> None:
    _, case = read(kit.questions("skip")[0])
    low = np.zeros(MOST_INPUTS + 1)
    wide = case._replace(lower=low, upper=low + 1)
    assert few_inputs(case)
    assert not few_inputs(wide)
    assert few_inputs(wide._replace(upper=np.where(np.arange(len(low)) == 0, 0.0, 1.0)))
