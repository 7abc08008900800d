"""Questions about two networks become files for any verifier; a counterexample counts on both networks, or not."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from prunecert.bench.results.vnncomp import Task
from prunecert.bench.running.pairs import PairFiles, on_both, pair_tasks
from prunecert.bench.running.properties import prepare, solve
from prunecert.bench.running.properties_request import PropertiesRequest
from prunecert.bench.verify import main
from prunecert.errors import EXIT_OK, UserError
from prunecert.onnx.io import identity
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status, Verdict
from prunecert.verifiers.formats.vnnlib import read_property
from prunecert.verifiers.formats.vnnlib_pairs import write_pair
from prunecert.verifiers.process.child import encode
from prunecert.verifiers.process.judge import judge
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.sparse.pairs.specification import difference
from tests.bench.propertykit import BOX, HOLDS, log, spec
from tests.soundness.networks import Network


def scaled(name: str, factor: float) -> Network:
    """y = factor * x."""
    net = Network(name, (2,))
    net.gemm(0, factor * np.eye(2), np.zeros(2))
    return net


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> tuple[Path, Path, Path]:
    (tmp_path / "box.vnnlib").write_text(HOLDS)
    return (
        scaled("one", 1.0).save(tmp_path / "one.onnx"),
        scaled("other", 1.25).save(tmp_path / "other.onnx"),
        tmp_path / "box.vnnlib",
    )


def test_files_say_what_was_asked(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    ((task, pair),) = pair_tasks(*files, "class:0.5", "cat", 9.0, tmp_path / "out")
    assert task.name == "one-with-other_box_class-0.5"
    assert (task.onnx.name, task.timeout) == ("one-with-other.onnx", 9.0)
    (case,) = read_property(task.vnnlib).cases
    assert case.lower.tolist() == [0.0, 0.25]
    rng = np.random.default_rng(0)
    for outputs in rng.integers(-2, 3, (200, 4)) / 2:
        assert case.spec.violated_by(outputs) == pair.spec.violated_by(outputs)


def test_the_question_is_written_as_a_query_over_both_files_too(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    ((task, pair),) = pair_tasks(*files, "class:0.5", "cat", 9.0, tmp_path / "out")
    query = task.vnnlib.with_suffix(".query.vnnlib")
    assert "(isomorphic-to f)" in query.read_text()
    ((again, same),) = pair_tasks(files[0], files[1], query, None, "cat", 9.0, tmp_path / "again")
    assert np.array_equal([same.case.lower, same.case.upper], [pair.case.lower, pair.case.upper])
    assert read_property(again.vnnlib).cases[0].spec.disjuncts[0][0].tolist() == pair.spec.disjuncts[0][0].tolist()
    # Nothing is said about how networks are related that are not.
    other = Network("deeper", (2,))
    other.gemm(other.relu(other.gemm(0, np.eye(2), np.zeros(2))), np.eye(2), np.zeros(2))
    pair_tasks(files[0], other.save(tmp_path / "deeper.onnx"), files[2], "class", "cat", 9.0, tmp_path / "none")
    assert sorted(path.suffixes for path in (tmp_path / "none").iterdir()) == [[".onnx"], [".vnnlib"]]


def test_questions_in_one_folder_never_share_a_file(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    queries = []
    for kind in ("difference:0.1", "difference:0.00001"):
        ((task, _),) = pair_tasks(*files, kind, "cat", 9.0, out)
        queries.append(task.vnnlib.with_name(f"{task.name}.query.vnnlib"))
    tasks = [pair_tasks(files[0], files[1], query, None, "cat", 9.0, out)[0][0] for query in queries]
    assert [task.name.rpartition("_")[2] for task in tasks] == ["difference-0.1", "difference-0.00001"]
    # Two properties of one name, and two networks.
    (tmp_path / "elsewhere").mkdir()
    box = tmp_path / "elsewhere" / "box.vnnlib"
    box.write_text(HOLDS.replace("0.25", "0.125"))
    other = scaled("one", 0.5).save(tmp_path / "elsewhere" / "one.onnx")
    for first, vnnlib in ((files[0], box), (other, files[2])):
        ((task, _),) = pair_tasks(first, files[1], vnnlib, "difference:0.1", "cat", 9.0, out)
        tasks.append(task)
    assert len({task.name for task in tasks}) == len({task.vnnlib for task in tasks}) == 4
    assert len({task.onnx for task in tasks}) == 2
    ((again, _),) = pair_tasks(*files, "difference:0.1", "cat", 9.0, out)
    assert again == replace(tasks[0], vnnlib=again.vnnlib, name=again.name)


def test_each_box_is_a_question(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    boxes = "(or (and (<= X_0 0.1) (>= X_0 0) (>= Y_0 9)) (and (<= X_0 1) (>= X_0 0.9) (>= Y_0 9)))"
    files[2].write_text(spec(boxes, "(>= X_1 0)", "(<= X_1 1)"))
    tasks = pair_tasks(*files, "class", "cat", 9.0, tmp_path / "out")
    assert [task.name[-2:] for task, _ in tasks] == ["_0", "_1"]
    assert [pair.case.upper[0] for _, pair in tasks] == [0.1, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize(("tolerance", "status"), [(0.24, "sat"), (0.26, "unsat")])
def test_the_command_compares_two_networks(
    files: tuple[Path, Path, Path], tmp_path: Path, tolerance: float, status: str
) -> None:
    """The outputs differ by up to a quarter, where x is 1."""
    one, other, box = map(str, files)
    words = ["--onnx", one, "--with", other, "--vnnlib", box, "--alike", f"difference:{tolerance}"]
    code = main([*words, "--verifier", "sparse-pair", "--timeout", "20", "--out", str(tmp_path / "out")])
    assert code == EXIT_OK
    (row,) = [row for row in log(tmp_path / "out") if row["type"] == "property"]
    assert row["status"] == status
    assert ("replayed on both networks" in str(row.get("detail"))) == (status == "sat")


def test_a_counterexample_of_the_merged_network_alone_is_none(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    ((_, pair),) = pair_tasks(*files, "difference:0.2", "cat", 9.0, tmp_path / "out")

    def judged(point: list[float], pair: PairFiles = pair) -> Verdict:
        return on_both(Verdict(Status.SAT, witness=np.array(point, dtype=np.float32), stage="attack"), pair)

    assert judged([0.5, 1.0]).status is Status.SAT
    # The outputs are alike there; and outside of the box nothing counts.
    for point in ([0.5, 0.5], [0.75, 1.0]):
        refused = judged(point)
        assert refused.status is Status.UNKNOWN
        assert refused.witness is None
        assert "none for the two networks themselves" in refused.detail
    assert on_both(Verdict(Status.UNSAT), pair).status is Status.UNSAT


class Answers:
    """A worker that claims one counterexample."""

    name, device, identity = "claims", "cpu", {"version": "1", "settings": {}}

    def __init__(self, point: list[float]) -> None:
        self._point = np.array(point, dtype=np.float32)

    def verify(self, instances: Sequence[Instance]) -> list[Verdict]:
        return [judge(VERIFIERS.get("sparse-pair"), one, encode(Verdict(Status.SAT, witness=self._point)))
                for one in instances]  # fmt: skip


def test_a_counterexample_lies_in_the_box_that_was_given(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """No float32 number is 0.7: the box of the question is a little larger than the file's, and no witness is."""
    files[2].write_text(HOLDS.replace("(<= X_1 1)", "(<= X_1 0.7)"))
    ((task, pair),) = pair_tasks(*files, "difference:0.17", "cat", 9.0, tmp_path / "out")
    problem = replace(prepare(task, tmp_path, {}), pair=pair)
    corner = float(np.float32(0.7))
    above, below = sorted((corner, float(np.nextafter(np.float32(0.7), np.float32(1 if corner < 0.7 else 0)))))[::-1]
    verdict = solve(problem, cast("Worker", Answers([0.5, above])))
    assert (verdict.status, verdict.detail) == (Status.SAT, "replayed on both networks")
    assert verdict.witness is not None
    assert verdict.witness.tolist() == [0.5, below]
    assert verdict.witness_check is not None
    assert verdict.witness_check["outputs"][1] == below
    # The same float32 box round another one is another question, and its answer isn't this one's.
    files[2].write_text(files[2].read_text().replace("0.7", repr(above)))
    ((other, _),) = pair_tasks(*files, "difference:0.17", "cat", 9.0, tmp_path / "other")
    assert prepare(other, tmp_path, {}).key != problem.key
    assert read_property(other.vnnlib).cases[0].upper.tolist() == read_property(task.vnnlib).cases[0].upper.tolist()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--alike", "class"], "--alike needs --with"),
        (["--with", "other.onnx"], "speaks of one network; say with --alike"),
        (["--with", "other.onnx", "--alike", "class", "--compact"], "--with goes without --compact"),
        (["--with", "none.onnx", "--alike", "class"], r"none\.onnx"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    files: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=reason):
        main(["--onnx", str(files[0]), "--vnnlib", str(files[2]), "--verifier", "sparse-pair", *more])


def test_a_query_over_two_networks_is_read(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    lower, upper = np.array([0.0, 0.25]), np.array([0.5, 1.0])
    files[2].write_text(write_pair(lower, upper, difference(0.2, 2), 2))
    ((task, pair),) = pair_tasks(*files, None, "cat", 9.0, tmp_path / "out")
    assert task.name == "one-with-other_box"
    (case,) = read_property(task.vnnlib).cases
    assert (case.lower.tolist(), case.upper.tolist()) == ([0.0, 0.25], [0.5, 1.0])
    rng = np.random.default_rng(0)
    for outputs in rng.integers(-2, 3, (200, 4)) / 10:
        assert (
            case.spec.violated_by(outputs) == difference(0.2, 2).violated_by(outputs) == pair.spec.violated_by(outputs)
        )
    with pytest.raises(UserError, match="says itself what is asked of them; leave --alike out"):
        pair_tasks(*files, "class", "cat", 9.0, tmp_path / "out")
    files[2].write_text(files[2].read_text().replace("isomorphic-to", "equal-to"))
    with pytest.raises(UserError, match="speaks of two equal networks"):
        pair_tasks(*files, None, "cat", 9.0, tmp_path / "out")
    assert pair_tasks(files[0], files[0], files[2], None, "cat", 9.0, tmp_path / "out")
    files[2].write_text(write_pair(lower, upper, difference(0.2, 3), 3))
    with pytest.raises(UserError, match="has 3 outputs, but each of the networks has 2"):
        pair_tasks(*files, None, "cat", 9.0, tmp_path / "out")


def test_a_query_over_two_networks_needs_the_second(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    files[2].write_text(write_pair(np.zeros(2), np.ones(2), difference(0.2, 2), 2))
    problem = prepare(Task("cat", files[0], files[2], 9.0, "one"), tmp_path, {})
    assert "box.vnnlib speaks of two networks" in problem.refusal
    assert "name the second with bench.verify --with" in problem.refusal


def test_a_property_of_other_networks_is_named_and_so_are_these(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    files[2].write_text(spec(*BOX, "(>= X_2 0)", "(<= X_2 0)", "(<= Y_0 0)", inputs=3))
    with pytest.raises(UserError, match=r"box\.vnnlib has 3 inputs, but each of .*one\.onnx and .*other\.onnx has 2"):
        pair_tasks(*files, "class", "cat", 9.0, tmp_path / "out")


def test_a_property_without_a_box_is_refused(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    files[2].write_text(spec(*BOX, "false"))
    with pytest.raises(UserError, match="has no box over which to compare networks"):
        pair_tasks(*files, "class", "cat", 9.0, tmp_path / "out")


def test_packed_networks_are_compared_and_keep_their_names(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, second, vnnlib = files
    packed = [path.with_suffix(".onnx.gz") for path in (first, second)]
    for path, target in zip((first, second), packed, strict=True):
        target.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    out = tmp_path / "out"
    request = PropertiesRequest(
        verifiers={}, onnx=packed[0], second=packed[1], vnnlib=vnnlib, alike="difference:0.1", out=out
    )
    ((task, pair),) = request.tasks()
    assert pair is not None
    assert task.name == "one-with-other_box_difference-0.1"
    assert identity(pair.second) == identity(scaled("other", 1.25).save(tmp_path / "again.onnx"))
    packed[1].write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(UserError, match=r"^[^\n]*other\.onnx\.gz is refused because it is no ONNX network"):
        request.tasks()
