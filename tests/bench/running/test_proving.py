from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from prunecert.bench.results.proofs import certificate_path
from prunecert.bench.results.row_types import ProofRow
from prunecert.bench.results.store import Log, Writer
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.proving import CERTIFIER, Certificates
from prunecert.errors import UserError
from prunecert.verifiers.base import Status, Verdict
from prunecert.verifiers.certification import Written
from prunecert.verifiers.process.certifying import CertifyingWorker
from tests.bench import proofkit, rowkit
from tests.bench.rowkit import documents
from tests.bench.timekit import plan, stage

PROVED = Written("unsat", "", "bab", 3, 4, 0.5, 0.25)


class FakeWorker:
    """Certifies as it is told."""

    def __init__(self, answer: Callable[[], tuple[Written, bytes]]) -> None:
        self.answer, self.stopped = answer, False

    def certify(self, *_: Any) -> tuple[Written, bytes]:
        return self.answer()

    def closed(self) -> bool:
        return self.stopped

    def close(self) -> None:
        self.stopped = True


def one_answer(
    written: Written,
    content: bytes,
    out: Path,
    *,
    verifier: str = CERTIFIER,
    stopped: bool = False,
    ball: bool = False,
) -> None:
    """Has a certifying verifier answer `unsat` on one image, and a worker certify that."""
    one = plan(2, [stage(verifier, 1)], 1)
    one = replace(one, cell=replace(one.cell, ball=ball))
    worker = FakeWorker(lambda: (written, content))
    worker.stopped = stopped
    with Writer(out) as writer:
        writer.append(rowkit.typed({"type": "session"}))
        certificates = Certificates.going_on(writer, again=False)
        verdicts = [Verdict(Status.UNSAT)]
        answered = Batch(0, 0, (0,)), [one.instance(0, 0)], verdicts, cast("CertifyingWorker", worker)
        certificates.answered(one, *answered)
        # The same answer again is certified once.
        certificates.answered(one, *answered)


def at_the_end(
    written: Written, content: bytes, out: Path, monkeypatch: pytest.MonkeyPatch, *, verifier: str = "sparse-ibp"
) -> list[str]:
    """Has what is left of one `unsat` answer certified at the end of the run; returns what was said."""
    one = plan(2, [stage(verifier, 1)], 1)
    cascade = CellCascade(0, one.stages, [0], {(0, 0): Status.UNSAT})
    worker = FakeWorker(lambda: (written, content))
    monkeypatch.setattr("prunecert.bench.running.proving.CertifyingWorker", lambda *_, **__: worker)
    said: list[str] = []
    with Writer(out) as writer:
        writer.append(rowkit.typed({"type": "session"}))
        certificates = Certificates.going_on(writer, again=False)
        certificates.rest([one], [cascade], workers=1, pinned=False, log_dir=out, tell=said.append)
    assert worker.stopped or not said
    return said


def rows(out: Path) -> list[ProofRow]:
    return [row for row in Log(out).rows() if isinstance(row, ProofRow)]


def test_what_a_search_proved_is_certified_at_once_and_named_by_its_hash(tmp_path: Path) -> None:
    one_answer(PROVED, b"proof", tmp_path / "run")
    (row,) = rows(tmp_path / "run")
    assert (row.status, row.how, row.leaves, row.size, row.detail) == ("unsat", "bab", 3, 5, "")
    assert (row.seconds, row.check_s) == (0.5, 0.25)
    assert certificate_path(tmp_path / "run", row.sha256).read_bytes() == b"proof"


def test_what_is_proved_over_a_ball_has_no_certificate(tmp_path: Path) -> None:
    """A certificate would be about the ball's box, which has points that the ball has not."""
    one_answer(Written("sat", "", "witness", 0, 4, 0.5, 0.25), b"proof", tmp_path / "run", ball=True)
    assert rows(tmp_path / "run") == []
    assert not (tmp_path / "run" / "certificates").exists()


def test_what_cannot_be_certified_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = Written("timeout", "12 subdomains are open")
    # At once nothing is said of it: there is another try at the end.
    one_answer(without, b"", tmp_path / "run")
    assert rows(tmp_path / "run") == []
    assert at_the_end(without, b"", tmp_path / "run", monkeypatch, verifier=CERTIFIER)
    (row,) = rows(tmp_path / "run")
    assert (row.sha256, row.size, row.detail) == ("", None, "12 subdomains are open")
    assert not (tmp_path / "run" / "certificates").exists()
    assert at_the_end(without, b"", tmp_path / "run", monkeypatch, verifier=CERTIFIER) == []


def test_a_proof_of_the_opposite_is_a_contradiction(tmp_path: Path) -> None:
    one_answer(Written("sat", "", "witness"), b"broken", tmp_path / "run")
    broken, without = rows(tmp_path / "run")
    assert (broken.status, broken.verifier, bool(broken.sha256)) == ("sat", CERTIFIER, True)
    assert (without.status, without.sha256) == ("unsat", "")
    assert "accepts a certificate of sat" in without.detail
    assert broken.question == without.question


def test_a_run_that_is_being_stopped_says_nothing(tmp_path: Path) -> None:
    one_answer(Written("error", "the worker was closed"), b"", tmp_path / "run", stopped=True)
    assert rows(tmp_path / "run") == []


def test_answers_of_others_wait_for_the_end_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_answer(PROVED, b"proof", tmp_path / "run", verifier="sparse-ibp")
    assert rows(tmp_path / "run") == []
    said = at_the_end(PROVED, b"proof", tmp_path / "run", monkeypatch)
    assert said == ["writing certificates of 1 answers that have none yet"]
    assert [row.verifier for row in rows(tmp_path / "run")] == ["sparse-ibp"]


def test_what_is_known_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    one_answer(PROVED, b"proof", out)
    (row,) = rows(out)
    place = row.question, row.status

    def known(again: bool) -> bool:
        with Writer(out) as writer:
            return place in Certificates.going_on(writer, again).settled

    assert known(again=True)
    certificate_path(out, row.sha256).write_bytes(b"proof?")
    assert not known(again=False)
    at_the_end(Written("timeout", "12 subdomains are open"), b"", tmp_path / "other", monkeypatch)
    (row,) = rows(tmp_path / "other")
    with Writer(tmp_path / "other") as writer:
        assert (row.question, row.status) in Certificates.going_on(writer, again=False).settled
        assert (row.question, row.status) not in Certificates.going_on(writer, again=True).settled


def test_a_counterexample_that_is_gone_leaves_no_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = plan(2, [stage("pgd", 1)], 1)
    cascade = CellCascade(0, one.stages, [0], {(0, 0): Status.SAT})
    verdict = {"type": "verdict", "key": one.keys[0], "status": "sat", "verifier": "pgd", "witness": "witnesses/x.npy"}
    worker = FakeWorker(lambda: (PROVED, b"proof"))
    monkeypatch.setattr("prunecert.bench.running.proving.CertifyingWorker", lambda *_, **__: worker)
    said: list[str] = []
    with Writer(tmp_path / "run") as writer:
        writer.append(rowkit.typed({"type": "session"}), rowkit.typed(verdict))
        certificates = Certificates.going_on(writer, again=False)
        certificates.rest([one], [cascade], workers=1, pinned=False, log_dir=tmp_path, tell=said.append)
    (row,) = rows(tmp_path / "run")
    assert "its counterexample can't be read" in row.detail
    assert said == ["writing certificates of 1 answers that have none yet"]
    assert worker.stopped


def test_without_the_engine_it_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = SimpleNamespace(availability=lambda: SimpleNamespace(installed=False, hint="needs numba"))
    monkeypatch.setattr("prunecert.bench.running.proving.VERIFIERS", SimpleNamespace(get=lambda _: missing))
    with Writer(tmp_path / "run") as writer, pytest.raises(UserError, match="--certificates is refused: needs numba"):
        Certificates.going_on(writer, again=False)


@pytest.mark.slow
def test_every_decided_answer_of_a_run_has_a_certificate(proved_run: Path) -> None:
    verdicts = {
        (row["question"], row["status"])
        for row in documents(proved_run, "verdict")
        if row["status"] in ("unsat", "sat")
    }
    proofs = documents(proved_run, "proof")
    assert {(row["question"], row["status"]) for row in proofs} == verdicts
    assert len(proofs) == len(verdicts)
    assert {row["status"] for row in proofs} == {"unsat", "sat"}
    assert all(certificate_path(proved_run, row["sha256"]).stat().st_size == row["size"] for row in proofs)
    # Intervals, walks, trees and counterexamples.
    assert {"intervals", "bab", "witness"} <= {row["how"] for row in proofs}
    table = (proved_run / "table.md").read_text()
    assert f"certificates of {proofkit.CELL}: 5 of 5 unsat, 1 of 1 sat (of them 6 of 6 by sparse verifiers)" in table
    assert "NO CERTIFICATE" not in table + (proved_run / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_goes_on_writes_what_is_missing_and_nothing_twice(proved_run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(proved_run, tmp_path / "run"))
    suite = proved_run.parent / "proved.yaml"
    before = documents(out, "proof")
    lost = next(row for row in before if row["how"] == "bab")
    path = certificate_path(out, lost["sha256"])
    path.unlink()
    # A killed run: the answer is there, its certificate's row is not.
    log = out / "instances.main.jsonl"
    cut = next(row for row in before if row["how"] == "witness")
    log.write_text("".join(line for line in log.read_text().splitlines(True) if cut["sha256"] not in line))
    assert proofkit.run(suite, out, "--certificates").exit_code == 0
    after = documents(out, "proof")
    assert len(after) == len(before) + 1
    places = [(row["question"], row["status"]) for row in after]
    again = {(row["question"], row["status"]) for row in (lost, cut)}
    assert {place for place in places if place in again} == again
    assert all(certificate_path(out, row["sha256"]).is_file() for row in after[-2:])
    assert np.all([row["status"] for row in documents(out, "verdict")])
