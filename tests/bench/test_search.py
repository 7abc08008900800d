from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench import search
from prunecert.errors import UserError
from tests.bench.trainkit import SUITE, command, written


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cells", "*"], None),
        (["--cells", "nothing*"], "fits 0 cells of no network"),
        (["--criterion", "verified", "--rungs", "2"], "last rung only"),
        (["--criterion", "speed"], "Unknown measure 'speed'"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, more: list[str], message: str | None) -> None:
    options = [*command(tmp_path), *more, "--dry-run"]
    if message is None:
        assert search.main(options) == 0
        return
    with pytest.raises(UserError, match=message):
        search.main(options)


def test_a_trial_that_is_no_recipe_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    options = command(tmp_path)
    written(tmp_path, "objective.kappa_end: [0.5]\n")
    with pytest.raises(UserError, match=r"the space \(objective\.kappa_end=0\.5\): objective: Unknown setting"):
        search.main([*options, "--dry-run"])


def test_a_dry_run_refuses_what_training_would(tmp_path: Path) -> None:
    options = command(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SUITE.replace("default: {", "default: {allocation: 2of4, "))
    options[options.index("--cells") + 1] = "*drop-grow_x10_s?"
    with pytest.raises(UserError, match="this pruner keeps to no pattern"):
        search.main([*options, "--dry-run"])
