from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.verifiers.checker import check
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.witness import _enclosed, _exactly
from prunecert.verifiers.sparse.proofs.certificate import encode_sat
from tests.soundness.networks import Network
from tests.verifiers.checker import kit, test_proof


def tied(folder: Path) -> kit.Files:
    """Returns a network whose two outputs are equal as real numbers at 1/4, whatever the order of summation."""
    net = Network("tie", (1,))
    hidden = net.gemm(0, np.array([[1.0], [1.0]]), np.array([-0.125, -0.125]))
    net.gemm(net.relu(hidden), np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2))
    vnnlib = folder / "tie.vnnlib"
    vnnlib.write_bytes(kit.text([(0.0, 1.0)], 2, "(>= Y_0 Y_1)"))
    return kit.Files(kit.questions("conv")[0].question, kit.network_file(net, "tie"), vnnlib)


def witness(files: kit.Files, values: list[float]) -> bytes:
    certificate = files.certificate(b"", answer=1)
    return encode_sat(certificate[11:43], certificate[43:75], np.array(values, dtype=np.float32))


def test_a_witness_on_a_tie_is_evaluated_exactly(tmp_path: Path) -> None:
    files = tied(tmp_path)
    path = tmp_path / "certificate"
    path.write_bytes(witness(files, [0.25]))
    report = check(path, files.onnx, files.vnnlib)
    assert (report.answer, report.how, report.witness.tolist()) == ("sat", "exactly", [0.25])
    assert "exactly" in report.describe()


def test_a_witness_outside_the_box_or_safe_or_no_number_is_refused(tmp_path: Path) -> None:
    files = tied(tmp_path)
    assert "isn't shown" in test_proof.verdict(files, witness(files, [1.0000001]), tmp_path)
    assert "not finite" in test_proof.verdict(files, witness(files, [float("nan")]), tmp_path)
    assert "cut off" in test_proof.verdict(files, witness(files, []), tmp_path)
    files.vnnlib.write_bytes(kit.text([(0.0, 1.0)], 2, "(> Y_0 Y_1)"))
    assert "isn't shown" in test_proof.verdict(files, witness(files, [0.25]), tmp_path)


def test_a_witness_must_break_all_rows_of_one_alternative(tmp_path: Path) -> None:
    files = tied(tmp_path)
    files.vnnlib.write_bytes(kit.text([(0.0, 1.0)], 2, "(or (and (>= Y_0 0.5) (<= Y_1 0.25)) (<= Y_0 -1.0))"))
    assert "isn't shown" in test_proof.verdict(files, witness(files, [0.75]), tmp_path)
    files.vnnlib.write_bytes(kit.text([(0.0, 1.0)], 2, "(or (<= Y_0 -1.0) (and (>= Y_0 0.5) (<= Y_1 0.75)))"))
    assert test_proof.verdict(files, witness(files, [0.75]), tmp_path) == "sat"


def test_intervals_enclose_the_exact_outputs() -> None:
    for family in ("conv-skip", "fc-deep"):
        files = kit.questions(family)[0]
        network, x = read_network(files.onnx.read_bytes()), files.question.upper.reshape(-1)
        low, high = _enclosed(network, x)
        ends = _exactly(network, x)
        assert ends is not None
        assert all(a < b < c for a, b, c in zip(low, ends[0], high, strict=True))
