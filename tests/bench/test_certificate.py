from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from prunecert.bench.certificate import main
from prunecert.errors import UserError
from tests.verifiers.checker import kit


def arguments(files: kit.Files, verb: str, proof: Path) -> list[str]:
    return [verb, str(proof), "--onnx", str(files.onnx), "--vnnlib", str(files.vnnlib)]


def test_what_is_written_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = tmp_path / "new" / "proof"
    for files, answer in ((kit.questions("conv-skip")[3], "unsat"), (kit.questions("conv-skip")[-1], "sat")):
        assert main([*arguments(files, "write", proof), "--timeout", "20"]) == 0
        assert main(arguments(files, "check", proof)) == 0
        written, checked = capsys.readouterr().out.splitlines()
        assert written.startswith(f"{answer}, certified by ")
        assert f": {answer}, checked" in checked
        assert checked.endswith("float32 (onnxruntime) agrees") == (answer == "sat")


def test_a_proof_of_another_question_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof, files = tmp_path / "proof", kit.questions("conv-skip")
    assert main(arguments(files[0], "write", proof)) == 0
    assert main(arguments(files[1], "check", proof)) == 1
    assert "refused: the certificate is for another property" in capsys.readouterr().out


def test_where_there_is_no_proof_the_line_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = tmp_path / "proof"
    assert main([*arguments(kit.questions("conv-skip")[3], "write", proof), "--timeout", "0.000001"]) == 1
    assert ", uncertified: " in capsys.readouterr().out
    assert not proof.exists()


def test_what_is_no_certificate_is_refused_in_one_sentence(tmp_path: Path) -> None:
    files, proof = kit.questions("conv-skip")[0], tmp_path / "proof"
    with pytest.raises(UserError, match="certificate"):
        main(arguments(files, "check", proof))
    proof.write_bytes(b"no certificate")
    with pytest.raises(UserError, match="begins otherwise"):
        main(arguments(files, "check", proof))


def test_all_files_that_are_missing_are_named_at_once(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("proof.cert", "net.onnx", "prop.vnnlib")]
    with pytest.raises(UserError) as caught:
        main(["check", str(names[0]), "--onnx", str(names[1]), "--vnnlib", str(names[2])])
    assert all(str(name) in str(caught.value) for name in names)


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    files, proof = kit.questions("conv-skip")[-1], tmp_path / "proof"
    onnx, vnnlib = tmp_path / "n.onnx.gz", tmp_path / "p.vnnlib.gz"
    onnx.write_bytes(gzip.compress(files.onnx.read_bytes()))
    vnnlib.write_bytes(gzip.compress(files.vnnlib.read_bytes()))
    packed = kit.Files(files.question, onnx, vnnlib)
    assert main(arguments(packed, "write", proof)) == 0
    assert main(arguments(packed, "check", proof)) == 0
    assert main(arguments(files, "check", proof)) == 0


@pytest.mark.slow
def test_a_runs_certificates_are_checked_together(proved_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = proved_run.parent
    words = ["check", "--run", str(proved_run), "--exports", str(folder), "--data-root", str(folder)]
    assert main([*words, "--suite", str(folder / "proved.yaml"), "--sample", "3", "--seed", "5"]) == 0
    assert "3 certificates checked and accepted (3 of 6, drawn with seed 5), 0 not" in capsys.readouterr().out
    with pytest.raises(UserError, match="--run goes without FILE"):
        main([*words, "--onnx", "net.onnx"])
    with pytest.raises(UserError, match="Give FILE with --onnx and --vnnlib, or --run"):
        main(["check", "proof"])
