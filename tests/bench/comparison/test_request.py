from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.comparison.request import ComparisonRequest
from prunecert.errors import UserError


def test_the_folder_is_named_after_suite_and_verifier_unless_one_is_given() -> None:
    assert ComparisonRequest(suite="mine/own.yaml").folder == Path("results/comparisons/own-neuralsat")
    assert ComparisonRequest(suite="own", out=Path("x")).folder == Path("x")


def test_sides_keep_their_order_and_stand_once() -> None:
    assert ComparisonRequest(suite="s", sides="loop, run,loop,").chosen_sides() == ("loop", "run")
    assert ComparisonRequest(suite="s").chosen_sides() == ("run", "alone", "loop")


def test_the_record_has_what_was_asked_for() -> None:
    options = ComparisonRequest(suite="s", images=3, argv=("--images", "3")).options()
    assert options["images"] == 3
    assert options["sides"] == "run,alone,loop"
    assert "argv" not in options


def test_the_cascade_ends_in_the_verifier_that_is_compared() -> None:
    cells = "cnn-small_ibp_eps2_dense_x1_s0"
    protocol = ComparisonRequest(suite="cifar10-4nets", cells=cells).protocol()
    assert (protocol.suite, protocol.cells) == ("cifar10-4nets", (cells,))
    assert "neuralsat" in protocol.cascade
    assert protocol.limit > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"verifier": "marabou"}, r"Unknown verifier with a command line 'marabou'.*Available: abcrown, neuralsat"),
        ({"sides": "loop"}, r"--sides 'loop' is refused; name at least two"),
        ({"sides": "loop,rum"}, r"Unknown side 'rum'\. Did you mean 'run'"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ComparisonRequest(suite="cifar10-4nets", **fields).chosen_sides()


def test_cells_without_checkpoints_or_without_a_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"None of the chosen cells of suite 'cifar10-4nets' has a checkpoint"):
        ComparisonRequest(suite="cifar10-4nets", checkpoints=tmp_path).protocol()
    with pytest.raises(UserError, match=r"give 'marabou' no limit"):
        ComparisonRequest(suite="cifar10-4nets", verifier="marabou").protocol()
