"""A short run of each fuzzer; long ones are started by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import entries, harness, yaml_files


@pytest.mark.slow
@pytest.mark.parametrize(("attempts", "count"), [(yaml_files.ATTEMPTS, 150), (entries.ATTEMPTS, 60)])
def test_changed_files_are_read_or_refused_in_a_sentence(
    tmp_path: Path, attempts: dict[str, harness.Try], count: int
) -> None:
    counts = harness.run(attempts, count, 1, tmp_path)
    assert harness.faults(counts) == {}
    # Each kind was tried, and not everything was refused for one and the same slip.
    assert {key.partition(":")[0] for key in counts} == set(attempts)
    assert len({key.rpartition(":")[2] for key in counts}) > 1


def test_the_harness_sees_faults(tmp_path: Path) -> None:
    def crash(rng: object, folder: Path) -> str:
        raise KeyError("x")

    assert harness.faults(harness.run({"crash": crash}, 2, 0, tmp_path)) == {"crash: TRACEBACK": 2}
