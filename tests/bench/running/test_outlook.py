from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.results.store import Writer
from prunecert.bench.running.outlook import arrays, describe, left, measured_s, workers_of, worst_case_s
from prunecert.bench.running.slurm import Resources
from prunecert.verifiers.base import Status
from tests.bench.rowkit import typed
from tests.bench.timekit import plan, stage

RESOURCES = Resources(chunk=2, minutes=10, cpus=2)


@given(st.integers(1, 300), st.integers(1, 40))
def test_arrays_hold_all_tasks_and_differ_by_one_at_most(tasks: int, most: int) -> None:
    sizes = arrays(tasks, most)
    assert sum(sizes) == tasks
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


@given(
    st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, 4)), st.sampled_from(Status)),
    st.sets(st.integers(0, 4)),
)
def test_every_further_answer_leaves_no_more_to_be_asked(
    statuses: dict[tuple[int, int], Status], misclassified: set[int]
) -> None:
    one = plan(2, [stage("a", 1), stage("b", 1)], 5)
    correct = {(one.image_key, 3 * image): image not in misclassified for image in range(5)}
    verdicts = {(one.keys[s], 3 * image): status for (s, image), status in statuses.items()}
    (count,) = left([one], (correct, verdicts))
    assert 0 <= count <= 5 - len(misclassified)
    for key in verdicts:
        fewer = {other: status for other, status in verdicts.items() if other != key}
        assert left([one], (correct, fewer))[0] >= count


def test_the_worst_case_is_every_limit_on_every_image() -> None:
    one = plan(2, [stage("a", 1), stage("b", 1)], 5)
    assert worst_case_s([one, one], [5, 1], tasks=3, workers=2) == (5 + 1) * 2.0 / 3 / 2
    assert worst_case_s([], [], tasks=0, workers=1) == 0


def test_what_is_measured_is_of_the_same_network(tmp_path: Path) -> None:
    one = plan(2, [stage("a", 1)], 5)
    assert measured_s(tmp_path, [one], [5], 1, 1) is None
    with Writer(tmp_path) as writer:
        writer.append(typed({"type": "session"}))
        for image, seconds in ((0, 2.0), (3, 4.0)):
            times = {"wall_s": seconds, "start_s": 1.0}
            writer.append(typed({"type": "verdict", "cell": one.name, "image": image, "times": times}))
        writer.append(typed({"type": "verdict", "cell": "another", "times": {"wall_s": 1e6}}))
    # (2 + 1) + (4 + 1) seconds on two images; four are left, for two tasks of one process.
    assert measured_s(tmp_path, [one], [4], tasks=2, workers=1) == pytest.approx(8.0)
    assert measured_s(tmp_path, [one], [0], tasks=2, workers=1) == 0


def test_a_submission_is_described_before_it_is_sent(tmp_path: Path) -> None:
    one = plan(2, [stage("a", 1)], 5)
    assert workers_of(RESOURCES, None) == 2
    assert workers_of(RESOURCES, 3) == 3
    assert describe(tmp_path, [one], [0], RESOURCES, None, 10) == [
        "Slurm: nothing is left to be asked; no task would be sent."
    ]
    lines = describe(tmp_path, [one], [5], RESOURCES, None, 2)
    assert lines[0].startswith(
        "Slurm: 5 images have something left to be asked: 3 tasks of about 2 images, in 2 arrays"
    )
    assert "2 verifier processes" in lines[1]
    assert lines[2].startswith("sbatch ")
