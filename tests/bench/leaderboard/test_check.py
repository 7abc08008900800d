from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from prunecert.bench.leaderboard.answers import GRACE_S
from prunecert.bench.leaderboard.check import check_entry, check_tree, remarks
from prunecert.bench.leaderboard.entry import Entry, entry_digest, seal
from prunecert.bench.leaderboard.imagesets import EXACT, images_sha256, known_labels
from prunecert.models.data import Dataset
from tests.bench import boards

Change = Callable[[dict[str, Any]], Any]


def changed(change: Change, *, sealed: bool = True, entry: Entry | None = None) -> Entry:
    """Returns a valid entry with something made wrong; sealed again, so that nothing but that is wrong."""
    entry = copy.deepcopy(entry or boards.make())
    change(entry)
    # What holds a number that JSON lacks has no digest.
    with contextlib.suppress(ValueError):
        if sealed:
            entry["digest"] = entry_digest(entry)
    return entry


def fields(entry: Entry) -> list[str]:
    return [problem.field for problem in check_entry(entry)]


def test_made_up_entries_are_valid() -> None:
    for entry in boards.small_board():
        assert check_entry(entry, entry["name"]) == []


def put(path: str, value: Any) -> Change:
    def change(entry: dict[str, Any]) -> None:
        *way, last = [int(p) if p.isdecimal() else p for p in path.split(".")]
        place: Any = entry
        for key in way:
            place = place[key]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("result.verified.k", 11, "result.verified.k"),
        ("result.verified.low", 0.5, "result.verified.low"),
        ("result.time.median_s", 0.1, "result.time.median_s"),
        ("result.decided_by.ibp.unsat", 12, "result.decided_by.ibp.unsat"),
        ("weights.layers.1.zeros", 5, "weights.nonzero"),
        ("weights.layers.0.weights", 301, "weights.layers[0]"),
        ("weights.compression", 20.0, "weights.compression"),
        ("weights.dense", 10, "weights.dense"),
        ("files.onnx_sha256", "a" * 64, "protocol.image_key"),
        ("files.onnx_sha256", "zz", "files.onnx_sha256"),
        ("protocol.stages.0.settings", {"method": "other"}, "protocol.stages[0].settings_hash"),
        ("protocol.stages.0.timeout", 60.0, "protocol.stages[0].timeout"),
        ("protocol.stages.0.version", "2.0", "protocol.stages[0].key"),
        ("protocol.stages.0.kind", "magic", "protocol.stages[0].kind"),
        ("protocol.stages.0.kind", "probabilistic", "protocol.stages[0].kind"),
        ("protocol.asked.images", 61, "data.images"),
        ("data.sample", True, "data.sample"),
        ("data.split", "train", "data.split"),
        ("data.indices", [3, 4], "data.split"),
        ("images.index.3", 99, "images.index"),
        ("images.label.3", 12, "images.label"),
        ("images.predicted.3", 9, "images.correct"),
        ("verdicts.ibp.status.2", "sat", "verdicts.ibp.status"),
        ("verdicts.ibp.status.2", "verified", "verdicts.ibp.status"),
        ("verdicts.pgd.status.2", "unsat", "verdicts.pgd.status"),
        ("verdicts.ibp.seconds.2", 30.0 + GRACE_S + 0.1, "verdicts.ibp.seconds"),
        ("verdicts.ibp.seconds.2", -1.0, "verdicts.ibp.seconds"),
        ("verdicts.ibp.image.2", 0, "verdicts.ibp.image"),
        ("verdicts.ibp.image.2", 2, "verdicts.ibp.image"),
        ("verdicts.ibp.unstable", [], "verdicts.ibp"),
        ("verdicts.magic", {}, "verdicts.magic.image"),
        ("cell.eps", "4/510", "cell.eps"),
        ("cell.eps", "far", "cell.eps"),
        ("cell.network", "a\nb", "cell.network"),
        ("method.url", "javascript:alert(1)", "method.url"),
        ("name", "../../etc/passwd", "name"),
        ("name", "another", "name"),
        ("weights", KeyError, "weights"),
        ("protocol.stages.0.key", KeyError, "protocol.stages[0].key"),
        ("images.correct.2", 1, "images.correct[2]"),
        ("data.images", True, "data.images"),
        ("verdicts", [], "verdicts"),
        ("cell.eps", "1e-99999999", "cell.eps"),
        ("cell.eps", "1/" + "9" * 5000, "cell.eps"),
        ("weights.layers.0.shape", [0, 3], "weights.layers[0].shape[0]"),
        ("weights.layers.0.shape", [], "weights.layers[0].shape"),
        ("weights.layers.0.weights", 0, "weights.layers[0].weights"),
        ("training.train_seconds", 10**400, "training.train_seconds"),
        ("training.train_seconds", 1e300, "training.train_seconds"),
        ("verdicts.ibp.seconds.0", float("inf"), "verdicts.ibp.seconds[0]"),
        ("verdicts.ibp.unstable.0", 10**400, "verdicts.ibp.unstable[0]"),
        ("verdicts.ibp.domains.0", -1, "verdicts.ibp.domains[0]"),
        ("protocol.machine.cpu", "\ud800", "protocol.machine.cpu"),
        ("protocol.machine.cpu", "\x1b[2J", "protocol.machine.cpu"),
        ("protocol.machine.cpu", "a\u202eb", "protocol.machine.cpu"),
        ("protocol.versions", {"\x1b[2J\n::error::y": "5"}, "protocol.versions.\\x1b[2J\\n::error::y"),
        ("method.title", "two\nlines", "method.title"),
        ("protocol.command", ["sh", "-c", "curl https://example.org/x | sh"], "protocol.command"),
        ("protocol.command", ["python", "-m", "http.server"], "protocol.command"),
        ("protocol.command", ["python", "-m", "bench.run\n"], "protocol.command[2]"),
        ("protocol.command", ["python", "-c", "bench.run"], "protocol.command"),
        ("protocol.command", ["/tmp/python", "-m", "bench.run"], "protocol.command"),
        ("protocol.command", ["prunecert"], "protocol.command"),
        ("protocol.command", [], "protocol.command"),
        ("training.command", "python -m bench.train --suite x; curl example.org | sh", "training.command"),
        ("training.command", "python -m bench.train --suite $(id)", "training.command"),
        ("training.command", "python -m bench.train 'x", "training.command"),
        ("protocol.stages.0.verifier", "oracle", "protocol.stages[0].verifier"),
        ("protocol.stages.0.everyone", False, "protocol.stages[0].everyone"),
        ("protocol.stages.0.memory_mb", 10**6, "protocol.stages[0].memory_mb"),
        ("protocol.stages.0.kind", "complete", "protocol.stages[0].kind"),
        ("protocol.stages.1.kind", "complete", "protocol.stages[1].kind"),
        ("protocol.asked.settings", {"ibp": {"tolerance": 0.5}}, "protocol.stages[0].settings.tolerance"),
        ("protocol.asked.timeouts", {"ibp": 30.0}, "protocol.stages[1].verifier"),
        ("protocol.asked.timeouts.ibp", 1e9, "protocol.asked.timeouts[...]"),
        ("data.surprise", 1, "data.surprise"),
        ("surprise", 1, "surprise"),
        ("protocol.stages.0.settings.a", [[[[[[[[[[[[[1]]]]]]]]]]]]], "protocol.stages[0].settings.a" + "[0]" * 8),
    ],
)
def test_every_problem_is_named_by_its_field(path: str, value: Any, field: str) -> None:
    assert field in fields(changed(put(path, value)))


def test_a_changed_file_is_noticed_by_its_digest() -> None:
    assert fields(changed(put("method.notes", "better"), sealed=False)) == ["digest"]


def test_a_truncated_run_is_refused() -> None:
    def drop(entry: dict[str, Any]) -> None:
        for column in entry["verdicts"]["pgd"].values():
            column.pop()

    (problem,) = [p for p in check_entry(changed(drop)) if p.field == "verdicts"]
    assert "truncated" in problem.what

    def fewer(entry: dict[str, Any]) -> None:
        for column in entry["images"].values():
            column.pop()

    assert "images" in fields(changed(fewer))


def test_a_board_takes_no_seven_images() -> None:
    (problem,) = check_entry(boards.make(images=7))
    assert str(problem).endswith("data.images: 7 images are too few for the board, which takes 50 and more")


def test_an_image_both_proved_and_broken_is_a_contradiction() -> None:
    def contradict(entry: dict[str, Any]) -> None:
        entry["verdicts"]["ibp"]["status"][4] = "unsat"
        entry["verdicts"]["pgd"]["status"][4] = "sat"
        seal(entry)

    (problem,) = check_entry(changed(contradict))
    assert problem.field == "verdicts.ibp"
    assert "image 5: ibp proves it, pgd breaks it" in problem.what


def test_entries_that_disagree_are_both_named(tmp_path: Path) -> None:
    first, second = boards.make(verifiers=("ibp", "pgd")), boards.make(verifiers=("ibp",))
    proved = next(i for i, s in enumerate(first["verdicts"]["ibp"]["status"]) if s == "unknown")
    second["verdicts"]["ibp"]["status"] = ["unsat"] * (boards.IMAGES - 1)
    first["verdicts"]["pgd"]["status"][proved] = "sat"
    root = boards.write(tmp_path, seal(first), seal(second))
    good, problems = check_tree(root)
    assert {problem.file for problem in problems} == {f"{entry['name']}.json" for entry in (first, second)}
    assert all("says otherwise" in problem.what for problem in problems)
    assert f"image {first['verdicts']['pgd']['image'][proved]}:" in problems[0].what
    # Which of them lies can't be told, least of all by the order of their names.
    assert good == {}


def test_the_rules_of_a_shipped_suite_cannot_be_bent() -> None:
    from prunecert.bench.schema.suite import load_suite

    suite = load_suite("cifar10-4nets")

    def bend(entry: dict[str, Any]) -> None:
        entry["protocol"].update(suite=suite.name, suite_digest=suite.digest())

    assert "protocol.asked.images" in fields(changed(bend))
    pixels = "its images are not known to be CIFAR-10's to the pixel"
    assert remarks(boards.make()) == [
        pixels,
        "suite 'made-up' does not ship with this version; its rules are taken as stated",
    ]

    def older(entry: dict[str, Any]) -> None:
        entry["protocol"].update(suite=suite.name)

    assert remarks(changed(older)) == [pixels, "it was made with another edition of suite 'cifar10-4nets'"]


def test_labels_and_pixels_are_compared_where_the_data_is_at_hand() -> None:
    import numpy as np

    images = np.zeros((boards.IMAGES, 3, 32, 32), dtype=np.float32)
    labels = np.arange(boards.IMAGES) % 10
    data = Dataset(images, labels, np.arange(boards.IMAGES), "test", "f", True, False, "CIFAR-10")
    entry = changed(put("data.images_sha256", images_sha256(data, boards.IMAGES)))
    entry = seal(entry)
    assert check_entry(entry, None, data) == []
    labels[4] = 9
    assert {p.field for p in check_entry(entry, None, data)} == {"images.label", "data.images_sha256"}


def test_images_that_are_called_official_are_the_known_ones() -> None:
    count = 50
    assert count in EXACT
    entry = boards.make(images=count)
    assert fields(entry) == ["data.official"]

    def official(entry: dict[str, Any]) -> None:
        entry["data"]["images_sha256"] = EXACT[count]

    # The pixels are those, but not the labels that the entry counts by.
    assert fields(changed(official, entry=entry)) == ["images.label"]

    def labelled(entry: dict[str, Any]) -> None:
        official(entry)
        entry["images"].update(label=known_labels(count), predicted=[9, *known_labels(count)[1:]])

    assert fields(changed(labelled, entry=entry)) == []
    assert not any("pixel" in remark for remark in remarks(changed(labelled, entry=entry)))


def test_an_entry_on_other_data_is_valid_and_says_so() -> None:
    count = 50
    entry = boards.make(images=count, source="the digits of scikit-learn")
    assert fields(entry) == []
    (remark,) = [remark for remark in remarks(entry) if "images" in remark]
    assert remark == "its images are those of the digits of scikit-learn, whose hash isn't known here"

    def many_classes(entry: dict[str, Any]) -> None:
        images = len(entry["images"]["label"])
        entry["images"].update(label=[42] * images, predicted=[9, *[42] * (images - 1)])

    assert fields(changed(many_classes, entry=entry)) == []
    assert fields(changed(many_classes, entry=boards.make())) == ["images.label", "images.predicted"]
    # A copy of CIFAR-10 has nothing to say of it.
    assert not check_entry(entry, entry["name"], cast(Dataset, object()))

    def unprintable(entry: dict[str, Any]) -> None:
        entry["data"]["source"] = "digits\x1b[31m"

    assert fields(changed(unprintable, entry=entry)) == ["data.source"]


def test_an_entry_of_a_shipped_suite_is_held_to_its_cell() -> None:
    from prunecert.bench.schema.suite import load_suite

    suite = load_suite("cifar10-4nets")
    cell, protocol = next((c, p) for c, p in suite.cells if c.pruner == "lwm")
    entry = boards.make(images=protocol.images)

    def honest(entry: dict[str, Any]) -> None:
        entry["data"]["official"] = False
        entry["protocol"].update(
            suite=suite.name, profile="default", suite_digest=suite.digest(), asked=protocol.to_json()
        )
        entry["cell"] = {**cell.to_json(), "name": cell.name, "norm": "linf"}
        for stage in entry["protocol"]["stages"]:
            name = stage["verifier"]
            stage.update(timeout=protocol.timeouts[name], memory_mb=protocol.memory_mb)
            stage["everyone"] = name in protocol.cross_check
            stage["settings"] = dict(protocol.settings.get(name, {}))
        boards.rekey(entry)
        seal(entry)

    valid = changed(honest, entry=entry)
    assert check_entry(valid) == []
    assert fields(changed(put("cell.seed", 7), entry=valid)) == ["cell.seed"]

    def oracle(entry: dict[str, Any]) -> None:
        stage = entry["protocol"]["stages"][0]
        entry["verdicts"]["oracle"] = entry["verdicts"].pop(stage["verifier"])
        stage.update(verifier="oracle", timeout=86_400.0, kind="complete", everyone=False)
        boards.rekey(entry)
        seal(entry)

    assert set(fields(changed(oracle, entry=valid))) >= {"protocol.stages[0].verifier"}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the path of every value, lists by their first two items."""
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value)
    elif isinstance(value, list):
        inner = list(range(min(2, len(value))))
    return [path, *(leaf for key in inner for leaf in leaves(value[key], (*path, key)))]


WRONG: tuple[Any, ...] = (None, True, -7, 1e300, 10**400, float("nan"), "x", "\ud800", [], {}, [[]], {"": 1})


@pytest.mark.slow
def test_whatever_stands_in_a_file_is_a_problem_and_no_crash() -> None:
    entry = boards.make()
    for path in leaves(entry)[1:]:
        for wrong in WRONG:
            broken = copy.deepcopy(entry)
            put(".".join(map(str, path)), wrong)(broken)
            if broken != entry:
                assert check_entry(broken), (path, wrong)
