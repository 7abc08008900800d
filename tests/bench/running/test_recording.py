from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.row_types import Row
from prunecert.bench.results.store import Writer
from prunecert.bench.running.cascade import Batch
from prunecert.bench.running.recording import LoggedAnswers, predict, read_done, verdict_rows
from prunecert.errors import UserError
from prunecert.verifiers.base import Status, Verdict
from tests.bench.rowkit import documents, typed
from tests.bench.timekit import plan, stage


def test_the_later_answer_counts_and_a_retried_one_is_forgotten(tmp_path: Path) -> None:
    assert read_done(tmp_path / "none", frozenset()) == (LoggedAnswers({}, {}), [])
    with Writer(tmp_path) as writer:
        writer.append(typed({"type": "session"}), typed({"type": "image", "image": 3, "correct": True}))
        for image, status in ((1, "error"), (1, "unsat"), (2, "timeout"), (4, "unsat"), (4, "error")):
            writer.append(typed({"type": "verdict", "image": image, "status": status}))
    answers, notes = read_done(tmp_path, frozenset())
    assert notes == []
    assert answers.correct == {("i", 3): True}
    assert answers.verdicts == {("k", 1): Status.UNSAT, ("k", 2): Status.TIMEOUT, ("k", 4): Status.ERROR}
    answers, _ = read_done(tmp_path, frozenset({Status.ERROR}))
    assert answers.verdicts == {("k", 1): Status.UNSAT, ("k", 2): Status.TIMEOUT}


def test_a_folder_of_another_suite_s_run_is_told_of(tmp_path: Path) -> None:
    def suite(digest: str) -> Row:
        row: Row = typed({"type": "session", "suite": f"suite-{digest}", "suite_digest": digest})
        return row

    with Writer(tmp_path) as writer:
        writer.append(suite("a"), typed({"type": "verdict", "image": 1, "status": "unsat"}))
    answers, _ = read_done(tmp_path, frozenset())
    assert answers.of_another_suite("a", tmp_path) == ""
    warning = answers.of_another_suite("b", tmp_path)
    assert warning.startswith(f"warning: {tmp_path} holds a run of another suite ('suite-a'), or of this one before")
    with Writer(tmp_path) as writer:
        writer.append(suite("b"))
    # To go on with either is to go on.
    answers, _ = read_done(tmp_path, frozenset())
    assert [answers.of_another_suite(digest, tmp_path) for digest in "ab"] == ["", ""]
    assert "'suite-a', 'suite-b'" in answers.of_another_suite("c", tmp_path)
    # Without answers there is nothing to be kept.
    assert LoggedAnswers({}, {}, {"a": "suite-a"}).of_another_suite("b", tmp_path) == ""


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Networks that give class 0 to every image; returns the numbers of images that they were asked about."""
    counts: list[int] = []

    def outputs(path: Path, images: np.ndarray) -> np.ndarray:
        counts.append(len(images))
        return np.eye(10, dtype=np.float32)[np.zeros(len(images), dtype=int)]

    monkeypatch.setattr("prunecert.verifiers.formats.counterexample.outputs", outputs)
    return counts


def cell(images: int = 6) -> CellPlan:
    base = plan(2, [stage("fake-bound", 1)], images)
    pixels = np.random.default_rng(0).random(base.data.images.shape, dtype=np.float32)
    return replace(base, data=replace(base.data, images=pixels, labels=np.arange(images) % 2))


def test_what_the_network_says_of_an_image_is_asked_and_written_once(tmp_path: Path, logits: list[int]) -> None:
    answers = LoggedAnswers({}, {})
    with Writer(tmp_path) as writer:
        writer.append(typed({"type": "session"}))
        assert predict(replace(cell(), images=4), answers, writer, None) == [0, 2]
        assert predict(cell(), answers, writer, None) == [0, 2, 4]
        assert predict(cell(), answers, writer, None) == [0, 2, 4]
    assert logits == [4, 2, 0]
    written = documents(tmp_path, "image")
    assert [(row["image"], row["correct"]) for row in written] == [(3 * i, i % 2 == 0) for i in range(6)]


def test_shards_share_the_images(tmp_path: Path, logits: list[int]) -> None:
    with Writer(tmp_path) as writer:
        parts = [predict(cell(40), LoggedAnswers({}, {}), writer, (number, 3)) for number in (1, 2, 3)]
    assert sorted(place for part in parts for place in part) == list(range(0, 40, 2))
    assert sum(logits) == 40


def test_a_network_without_an_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = np.full((6, 10), np.nan, dtype=np.float32)
    monkeypatch.setattr("prunecert.verifiers.formats.counterexample.outputs", lambda *_: nan)
    with Writer(tmp_path) as writer, pytest.raises(UserError, match="logits that are not finite"):
        predict(cell(), LoggedAnswers({}, {}), writer, None)


def test_a_verdict_becomes_a_row_and_its_counterexample_a_file(tmp_path: Path) -> None:
    one = cell()
    instances = [one.instance(position, 0) for position in (0, 2)]
    point = instances[1].upper
    instances[1] = replace(instances[1], starts={"origin": point})
    verdicts = [Verdict(Status.UNSAT, "proved", version="7"), Verdict(Status.SAT, witness=point)]
    with Writer(tmp_path) as writer:
        first, second = verdict_rows(one, Batch(0, 0, (0, 2)), instances, verdicts, writer)
    assert (first.image, second.image) == (0, 6), "images are called by their indices"
    assert (first.version, second.version) == ("7", "1")
    assert first.id != second.id
    assert first.key == second.key == one.keys[0]
    assert (second.start, first.start) == ("origin", "")
    assert second.witness
    np.testing.assert_array_equal(np.load(tmp_path / second.witness), point)
