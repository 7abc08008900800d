from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.results.proofs import certificate_path, is_whole, read_certificate, save_certificate
from prunecert.bench.results.summary import Rows, summary_of
from prunecert.errors import UserError
from tests.bench.rowkit import all_typed

STAGES = [{"verifier": "ibp", "key": "a"}, {"verifier": "sparse-bab", "key": "b", "everyone": False}]
SESSION = {"type": "session", "cells": [{"name": "c", "images": 3, "stages": STAGES}]}
IMAGES = [{"type": "image", "image": image} for image in range(3)]


def verdict(image: int, status: str, key: str = "b", **more: Any) -> dict[str, Any]:
    verifier = "ibp" if key == "a" else "sparse-bab"
    question = f"q{image}"
    return {"type": "verdict", "image": image, "status": status, "key": key, "verifier": verifier, "question": question}


def proof(image: int, status: str, key: str = "b", **more: Any) -> dict[str, Any]:
    row = {"type": "proof", "image": image, "status": status, "key": key, "cell": "c", "question": f"q{image}"}
    return {**row, "verifier": "x", **more}


def summary(*rows: dict[str, Any]) -> dict[str, Any]:
    log = Rows()
    log.add(all_typed([SESSION, *IMAGES, *rows]))
    return summary_of(log)


def test_files_are_named_by_their_content_and_not_written_twice(tmp_path: Path) -> None:
    sha256 = save_certificate(tmp_path, b"proof")
    path = certificate_path(tmp_path, sha256)
    assert sha256 == hashlib.sha256(b"proof").hexdigest()
    before = path.stat().st_mtime_ns
    assert save_certificate(tmp_path, b"proof") == sha256
    assert path.stat().st_mtime_ns == before
    assert [item.name for item in path.parent.iterdir()] == [f"{sha256}.cert"]
    path.write_bytes(b"proof!")
    assert not is_whole(tmp_path, sha256)
    with pytest.raises(UserError, match="was changed after it was written"):
        read_certificate(tmp_path, sha256)
    save_certificate(tmp_path, b"proof")
    assert read_certificate(tmp_path, sha256) == b"proof"
    for name in ("../escape", "A" * 64, ""):
        with pytest.raises(UserError, match="is no SHA-256"):
            certificate_path(tmp_path, name)


def test_answers_and_certificates_are_counted_together() -> None:
    answers = [verdict(0, "unsat", "a"), verdict(1, "unknown", "a"), verdict(1, "unsat"), verdict(2, "sat")]
    rows = [proof(0, "unsat", "a", sha256="0" * 64, size=10, seconds=1.0, check_s=0.5), proof(1, "unsat", detail="why")]
    (cell,) = summary(*answers, *rows)["proofs"]
    assert cell["unsat"] == {"decided": 2, "certified": 1}
    assert cell["sat"] == {"decided": 1, "certified": 0}
    assert cell["sparse"] == {"decided": 2, "certified": 0}
    assert (cell["size"], cell["seconds"], cell["check_s"]) == (10, 1.0, 0.5)
    assert [(item["image"], item["detail"]) for item in cell["uncertified"]] == [(1, "why"), (2, "")]


def test_a_certificate_of_another_answer_counts_for_nothing() -> None:
    stale = proof(0, "sat", sha256="0" * 64)
    result = summary(verdict(0, "unsat"), stale, proof(0, "unsat", "of another network", sha256="0" * 64))
    assert result["proofs"][0]["unsat"] == {"decided": 1, "certified": 0}
    # The checker has accepted it: one of the two is wrong.
    assert [item["unsat_by"] for item in result["contradictions"]] == ["sparse-bab"]


def test_runs_without_certificates_say_nothing() -> None:
    assert "proofs" not in summary(verdict(0, "unsat"))
