from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from prunecert.bench.leaderboard.check import check_entry
from prunecert.bench.leaderboard.entry import Entry
from prunecert.bench.leaderboard.imagesets import images_sha256
from prunecert.bench.leaderboard.proofs import (
    FOLDER,
    RECORDS,
    check_proofs,
    columns_of,
    copy_proofs,
    judge_proofs,
    read_record,
    write_records,
)
from prunecert.bench.planning.plan import CellPlan, property_text
from prunecert.bench.results.proofs import certificate_path, save_certificate
from prunecert.bench.running.proof_checks import ProvedRun
from prunecert.bench.schema.cell import parse_eps
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from prunecert.verifiers.sparse.certificates import Certifier
from tests.bench import boards, proofkit
from tests.verifiers.checker import kit

EPS = "8/255"
COUNT = 4


def dataset() -> Dataset:
    """Returns images of the tiny network's size with its own labels."""
    net = kit.questions("conv-pruned-70")[0].question.net
    images = np.random.default_rng(3).random((COUNT, *net.shape), dtype=np.float32)
    labels = np.array([int(np.argmax(net.evaluate(image.reshape(-1).astype(np.float64)))) for image in images])
    return Dataset(images, labels, np.arange(COUNT), "test", "f", True, False, "made up", net.classes, "tiny")


@pytest.fixture(scope="module")
def submission(tmp_path_factory: pytest.TempPathFactory) -> tuple[Entry, Path]:
    """Returns what `check_proofs` looks at of an entry, with a certificate of every image, and the entries' folder."""
    folder, run = tmp_path_factory.mktemp("board"), tmp_path_factory.mktemp("run")
    onnx, data = kit.questions("conv-pruned-70")[0].onnx, dataset()
    certifier = Certifier(onnx)
    proofs: dict[str, list[Any]] = {"image": [], "status": [], "sha256": [], "size": []}
    for image in range(COUNT):
        written, content = certifier.certify(property_text(data, image, parse_eps(EPS)).encode(), 20.0)
        row = image, written.status, save_certificate(run, content), len(content)
        for key, value in zip(proofs, row, strict=True):
            proofs[key].append(value)
    verdicts = {"x": {"image": proofs["image"], "status": proofs["status"]}}
    entry = {
        "name": "tiny.0",
        "digest": "0" * 64,
        "files": {"onnx_sha256": hashlib.sha256(onnx.read_bytes()).hexdigest()},
        "cell": {"eps": EPS},
        "data": {"images": COUNT, "images_sha256": images_sha256(data, COUNT)},
        "verdicts": verdicts,
        "proofs": proofs,
    }
    copy_proofs(entry, run, onnx, folder)
    return entry, folder


def check(entry: Entry, folder: Path, **how: Any) -> tuple[dict[str, Any], list[str]]:
    records, problems = check_proofs(folder, {entry["name"]: entry}, dataset, exports=(), **how)
    assert all((problem.name, problem.field) == (entry["name"], "proofs") for problem in problems)
    return records, [problem.what for problem in problems]


def test_certificates_are_checked_with_the_network_that_came_with_them(submission: tuple[Entry, Path]) -> None:
    entry, folder = submission
    assert set(entry["proofs"]["status"]) == {"unsat", "sat"}
    records, problems = check(entry, folder)
    assert problems == []
    assert records["tiny.0"].words == f"{COUNT} of {COUNT} checked by us, of {COUNT} answers"
    records, problems = check(entry, folder, sample=2, seed=7)
    assert problems == []
    assert records["tiny.0"].words == f"2 of {COUNT} checked by us, drawn with seed 7, of {COUNT} answers"


def test_a_refused_certificate_is_named_by_its_image(submission: tuple[Entry, Path]) -> None:
    entry, folder = submission
    forged = copy.deepcopy(entry)
    hashes = forged["proofs"]["sha256"]
    hashes[1] = hashes[2]
    records, (problem,) = check(forged, folder)
    assert records == {}
    assert problem.startswith("image 1, ")
    assert "refused" in problem


def test_what_is_not_at_hand_is_a_problem(submission: tuple[Entry, Path], tmp_path: Path) -> None:
    entry, folder = submission
    other = copy.deepcopy(entry)
    other["data"]["images_sha256"] = "0" * 64
    assert "the images at hand are others" in check(other, folder)[1][0]
    other = copy.deepcopy(entry)
    other["files"]["onnx_sha256"] = "1" * 64
    assert "isn't in" in check(other, folder)[1][0]
    gone = copy.deepcopy(entry)
    gone["proofs"]["sha256"][0] = "2" * 64
    assert "can't be checked" in check(gone, folder)[1][0]
    # Without certificates nothing is loaded.
    without = {key: value for key, value in entry.items() if key != "proofs"}
    assert check_proofs(tmp_path, {"tiny.0": without}, lambda: pytest.fail("loaded"), exports=()) == ({}, [])


def test_a_record_holds_for_its_own_edition_alone(submission: tuple[Entry, Path], tmp_path: Path) -> None:
    entry, folder = submission
    records, _ = check(entry, folder)
    write_records(tmp_path, records)
    assert read_record(tmp_path, entry) == records["tiny.0"]
    assert read_record(tmp_path, {**entry, "digest": "1" * 64}) is None
    assert read_record(tmp_path, {**entry, "name": "other"}) is None
    path = tmp_path / RECORDS / "tiny.0.json"
    for damage in (b"{", b"[]", path.read_bytes().replace(b'"checked": 4', b'"checked": 5')):
        path.write_bytes(damage)
        assert read_record(tmp_path, entry) is None


def test_a_record_goes_when_its_certificates_do_not_hold(submission: tuple[Entry, Path], tmp_path: Path) -> None:
    entry, folder = submission
    records, _ = check(entry, folder)
    write_records(tmp_path, records)
    forged = copy.deepcopy(entry)
    forged["proofs"]["sha256"][1] = forged["proofs"]["sha256"][2]
    assert read_record(tmp_path, forged) is not None
    records, problems = check_proofs(folder, {"tiny.0": forged}, dataset, exports=())
    assert write_records(tmp_path, records, problems) == []
    assert read_record(tmp_path, forged) is None


def test_a_record_stays_where_images_or_network_are_not_at_hand(submission: tuple[Entry, Path], tmp_path: Path) -> None:
    entry, folder = submission
    records, _ = check(entry, folder)
    write_records(tmp_path, records)
    for part, key in (("data", "images_sha256"), ("files", "onnx_sha256")):
        other = copy.deepcopy(entry)
        other[part][key] = "0" * 64
        none, problems = check_proofs(folder, {"tiny.0": other}, dataset, exports=())
        assert none == {}
        assert [problem.elsewhere for problem in problems] == [True]
        assert write_records(tmp_path, none, problems) == ["tiny.0"]
        assert read_record(tmp_path, entry) == records["tiny.0"]


def test_a_counterexample_in_a_box_says_nothing_of_a_ball(submission: tuple[Entry, Path]) -> None:
    entry, folder = submission
    ball = copy.deepcopy(entry)
    ball["cell"]["norm"] = "l2"
    broken = [image for image, s in zip(ball["proofs"]["image"], ball["proofs"]["status"], strict=True) if s == "sat"]
    records, problems = check(ball, folder)
    assert records == {}
    assert len(problems) == len(broken) > 0
    assert all("l2" in problem for problem in problems)


def test_a_certificate_that_is_gone_is_not_submitted(submission: tuple[Entry, Path], tmp_path: Path) -> None:
    entry, folder = submission
    names = {path.name for path in (folder / FOLDER / "tiny.0").iterdir()}
    assert names == {"network.onnx.gz", *(f"{sha256}.cert" for sha256 in entry["proofs"]["sha256"])}
    with pytest.raises(UserError):
        copy_proofs(entry, tmp_path, kit.questions("conv")[0].onnx, tmp_path / "board")
    assert certificate_path(tmp_path, "0" * 64).name == f"{'0' * 64}.cert"


@pytest.mark.slow
def test_a_runs_certificates_become_an_entrys(proved_run: Path, tmp_path: Path) -> None:
    run, plan = ProvedRun(proved_run), cast("CellPlan", SimpleNamespace(name=proofkit.CELL))
    columns = columns_of(run, plan)
    assert columns is not None
    assert sorted(columns["image"]) == list(range(proofkit.IMAGES))
    entry = {"name": "tiny.0", "proofs": columns}
    copy_proofs(entry, proved_run, proved_run.parent / "tiny.onnx", tmp_path)
    sizes = [(tmp_path / FOLDER / "tiny.0" / f"{sha256}.cert").stat().st_size for sha256 in columns["sha256"]]
    assert sizes == columns["size"]
    assert columns_of(run, cast("CellPlan", SimpleNamespace(name="another"))) is None


def test_an_entry_may_have_certificates_of_its_answers_and_of_nothing_else() -> None:
    entry = boards.with_proofs()
    assert check_entry(entry) == []
    assert entry["digest"] != boards.make()["digest"]
    for columns, field in (
        ({"status": ["sat"]}, "proofs.status"),
        ({"image": [0]}, "proofs.status"),
        ({"sha256": ["../../x"]}, "proofs.sha256"),
        ({"size": []}, "proofs"),
        ({"size": [-1]}, "proofs.size[0]"),
        ({"size": ["90"]}, "proofs.size[0]"),
    ):
        assert [problem.field for problem in check_entry(boards.with_proofs(**columns))] == [field]
    twice = {key: 2 * column for key, column in entry["proofs"].items()}
    assert [field for field, _ in judge_proofs(boards.with_proofs(**twice))] == ["proofs.image"]
