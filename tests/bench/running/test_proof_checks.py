from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from prunecert.bench.certificate import parser
from prunecert.bench.results.proofs import certificate_path
from prunecert.bench.running import certifying
from prunecert.bench.running.proof_checks import (
    Checked,
    Claim,
    Images,
    Networks,
    ProvedRun,
    check_claim,
    check_claims,
    check_run,
    choose,
    fresh_seed,
    images_of,
)
from prunecert.errors import UserError
from prunecert.models.datasets.source import DataSource
from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.certificates import Certifier
from tests.bench import proofkit
from tests.bench.rowkit import documents
from tests.verifiers.checker import kit


def claim(folder: Path, number: int = 0, answer: str = "unsat") -> Claim:
    """Returns a claim with a certificate of one of the soundness suite's questions."""
    files = kit.questions("conv-skip")[number]
    path = folder / "proof"
    if not path.is_file():
        assert not Certifier(files.onnx).write(files.vnnlib, path, 20.0).reason
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Claim("net", 3, answer, path, digest, files.onnx, files.vnnlib.read_text())


def test_a_proof_is_accepted_for_its_own_question_and_answer_alone(tmp_path: Path) -> None:
    good = claim(tmp_path)
    assert check_claim(good).problem == ""
    other = claim(tmp_path, 1)
    for wrong, why in (
        (good._replace(property=other.property), "for another property"),
        (good._replace(onnx=kit.questions("conv")[0].onnx), "for another network"),
        (good._replace(status="sat"), "it proves unsat"),
        (good._replace(sha256="0" * 64), "the file was changed"),
    ):
        checked = check_claim(wrong)
        assert checked.refused
        assert why in checked.problem
        assert str(checked).startswith("net image 3, ")


def test_what_cannot_be_read_is_told_from_what_is_refused(tmp_path: Path) -> None:
    good = claim(tmp_path)
    good.certificate.write_bytes(b"no certificate")
    checked = check_claim(good._replace(sha256=hashlib.sha256(b"no certificate").hexdigest()))
    assert (checked.refused, "begins otherwise" in checked.problem) == (False, True)
    missing = check_claim(good._replace(certificate=tmp_path / "nothing"))
    assert (missing.refused, "can't be checked" in missing.problem) == (False, True)


@pytest.mark.slow
def test_several_processes_answer_in_order(tmp_path: Path) -> None:
    good = claim(tmp_path)
    claims = [good._replace(image=image, status="unsat" if image % 2 else "sat") for image in range(5)]
    problems = [bool(checked.problem) for checked in check_claims(claims, 2)]
    assert problems == [True, False, True, False, True]


def test_networks_are_known_by_their_content(tmp_path: Path) -> None:
    onnx = kit.questions("conv-skip")[0].onnx
    (tmp_path / "below").mkdir()
    (tmp_path / "net.onnx").write_bytes(b"nonsense")
    shutil.copy(onnx, tmp_path / "below" / "other.onnx")
    networks = Networks([tmp_path])
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    assert networks.find(digest, "net") == tmp_path / "below" / "other.onnx"
    with pytest.raises(UserError, match=r"The network of net \(SHA-256 0000"):
        networks.find("0" * 64, "net")


def test_a_sample_is_drawn_with_a_seed_and_keeps_its_order() -> None:
    places = [("net", image, Status.UNSAT) for image in range(20)]
    drawn = choose(places, 5, 1)
    assert drawn == choose(places, 5, 1) == sorted(drawn)
    assert len(drawn) == 5
    assert drawn != choose(places, 5, 2)
    assert choose(places, None, 0) == choose(places, 20, 0) == places


def test_a_seed_is_new_unless_it_is_told() -> None:
    assert fresh_seed(7) == 7
    assert len({fresh_seed() for _ in range(4)}) > 1
    assert certifying.Checking().seed is None
    assert parser().parse_args(["check", "--run", "x"]).seed is None


def test_a_counterexample_in_a_box_counts_for_nothing_where_the_question_is_a_ball(tmp_path: Path) -> None:
    good = claim(tmp_path)
    places = [("net", 0, Status.SAT), ("net", 1, Status.UNSAT)]
    for norm, accepted in (("linf", 2), ("l2", 1)):
        run = SimpleNamespace(
            cells={"net": SimpleNamespace(norm=norm)},
            proof=lambda *_: SimpleNamespace(sha256=good.sha256),
            claims=lambda chosen, *_: [good._replace(image=image) for _, image, _ in chosen],
        )
        tally = check_run(cast("ProvedRun", run), Networks([]), Images(cast("DataSource", None)), places=places)
        assert (tally.accepted, tally.decided, tally.without) == (accepted, 2, 0)
    (problem,) = tally.problems
    assert (problem.image, problem.status, problem.refused) == (0, "sat", True)
    assert "outside the l2 ball" in problem.problem


def check(run: Path, capsys: pytest.CaptureFixture[str], suite: Path) -> tuple[int, list[str]]:
    code = certifying.check_folder(run, proofkit.checking(suite))
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_a_runs_certificates_are_checked_and_what_does_not_hold_is_named(
    proved_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = proved_run.parent / "proved.yaml"
    count = proofkit.IMAGES
    assert check(proved_run, capsys, suite)[0] == 0
    out = Path(shutil.copytree(proved_run, tmp_path / "run"))
    first, second, *_ = (row for row in documents(out, "proof") if row["status"] == "unsat")
    # One file under another's name; a row that names another's certificate; a file that is gone.
    log = out / "instances.main.jsonl"
    log.write_text(log.read_text().replace(first["sha256"], second["sha256"]))
    broken = next(row for row in documents(out, "proof") if row["status"] == "sat")
    certificate_path(out, broken["sha256"]).unlink()
    code, lines = check(out, capsys, suite)
    assert code == 1
    assert any(line.startswith(f"{first['cell']} image {first['image']}, unsat: refused: ") for line in lines)
    assert any(line.startswith(f"{broken['cell']} image {broken['image']}, sat: can't be checked: ") for line in lines)
    assert lines[-1].startswith(f"{count - 2} certificates checked and accepted, 2 not; 0 of {count} answers have none")


@pytest.mark.slow
def test_other_images_and_other_suites_are_refused(proved_run: Path, tmp_path: Path) -> None:
    run, suite = ProvedRun(proved_run), proved_run.parent / "proved.yaml"
    with pytest.raises(UserError, match="Suite 'proved' doesn't ship"):
        images_of(run, None, None)
    (name, cell), *_ = run.cells.items()
    images = images_of(run, str(suite), proved_run.parent)
    assert "declare-const X_0" in images.property(cell, 0)
    with pytest.raises(UserError, match="was made on other data"):
        images.property(cell, 10_000)
    both = [run.proof(name, 0, status) for status in (Status.SAT, Status.UNSAT)]
    assert both.count(None) == 1


@pytest.mark.slow
def test_a_run_without_certificates_is_told_how_to_get_them(finished_run: Path) -> None:
    with pytest.raises(UserError, match=r"prunecert run --certificates writes them"):
        certifying.check_folder(finished_run, certifying.Checking())


def test_what_is_shown_of_a_check_is_a_line() -> None:
    assert str(Checked("net", 3, "unsat")) == "net image 3, unsat: checked"
