from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError

SUITE = """\
name: clock
description: Times
cells:
  - networks: [cnn-small]
    objectives: [ibp]
    eps: [2/255]
    pruners: [lwm]
    compression: [1, 10]
    verify: {timing: {images: 3}}
verify:
  images: 40
  cascade: [fake-bound, fake-complete]
  timeouts: {fake-bound: 5, fake-complete: 5}
  timing:
    repeats: 2
    chunk: 4
    control: [fake-bound]
    by_verifier: {fake-complete: {repeats: 1, images: 2}, fake-bound: {batch: 2}}
profiles:
  more:
    timing: {repeats: 7, by_verifier: {fake-complete: {images: 9}}}
"""


def suite_file(tmp_path: Path, text: str = SUITE) -> str:
    path = tmp_path / "clock.yaml"
    path.write_text(text)
    return str(path)


def test_a_timing_section_is_merged_from_suite_profile_and_block(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path), "more")
    assert suite.timed
    for _, protocol in suite.cells:
        timing = protocol.timing
        assert timing is not None
        assert protocol.cross_check == protocol.cascade
        assert (timing.images, timing.repeats, timing.chunk, timing.variants) == (3, 7, 4, ("masked", "compact"))
        assert timing.dose("fake-complete").images == 9
        assert timing.dose("fake-complete").repeats == 1
        assert timing.dose("fake-bound").batch == 2
    assert load_suite("cifar10-timing").timed
    assert not load_suite("cifar10-4nets").timed
    assert "timing" not in load_suite("cifar10-4nets").cells[0][1].to_json()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("repeats: 2", "repeats: 0", r"line 15, verify\.timing\.repeats: 0 is refused; it must be within 1"),
        ("chunk: 4", "chunks: 4", r"Unknown key 'chunks'\. Did you mean 'chunk'"),
        ("control: [fake-bound]", "control: [fake-bond]", r"Did you mean 'fake-bound'"),
        ("fake-bound: {batch: 2}", "fake-bond: {batch: 2}", r"Did you mean 'fake-bound'"),
        ("fake-bound: {batch: 2}", "fake-bound: {bath: 2}", r"Did you mean 'batch'"),
        ("chunk: 4", "variants: [filled]", r"Unknown variant 'filled'"),
        ("chunk: 4", "seed: -1", r"-1 is refused"),
    ],
)
def test_slips_in_a_timing_section_are_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_suite(suite_file(tmp_path, SUITE.replace(before, after)))


def test_times_are_taken_of_all_cells_or_of_none(tmp_path: Path) -> None:
    text = SUITE[: SUITE.index("  timing:\n")] + SUITE[SUITE.index("profiles:") :].replace("more", "default", 1)
    text = text[: text.index("profiles:")]
    with pytest.raises(UserError, match="times are taken of all cells or of none"):
        load_suite(suite_file(tmp_path, text))
