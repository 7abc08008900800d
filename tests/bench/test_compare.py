from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunecert.bench import compare
from prunecert.bench.results.vnncomp import Key
from prunecert.errors import UserError
from tests.bench.comparison.sidekit import CELL, result_of, side, task


def test_samples_are_drawn_by_the_seed(tmp_path: Path) -> None:
    questions = [(Key(CELL, image), task(tmp_path, image)) for image in range(9)]
    assert compare._sample(questions, None, 0) == questions
    assert compare._sample(questions, 4, 1) == compare._sample(questions, 4, 1)
    assert len({tuple(key for key, _ in compare._sample(questions, 4, seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--verifier", "marabou"), r"Unknown verifier with a command line 'marabou'.*Available: abcrown, neuralsat"),
        (("--sides", "loop"), r"--sides 'loop' is refused; name at least two"),
        (("--sides", "loop,rum"), r"Unknown side 'rum'\. Did you mean 'run'"),
        (("--cells", "cnn-tiny*"), r"Unknown cell of suite"),
        (("--cells", "vgg16*"), r"None of the chosen cells of suite 'cifar10-4nets' has a checkpoint"),
        (("--abcrown", "/nowhere"), r"--abcrown /nowhere is refused"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare.main(["--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_the_result_is_written_and_a_contradiction_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = result_of([side("run", 4.0, i1="sat"), side("loop", 40.0, i1="unsat")], 1)
    assert compare._write(result, tmp_path) == 1
    assert "CONTRADICTION: x" in capsys.readouterr().out
    assert json.loads((tmp_path / "comparison.json").read_text())["kind"] == "comparison"
    assert (tmp_path / "instances.csv").read_text().splitlines()[1].startswith(f"{CELL},1,sat,2.0,run,unsat")
    assert compare._write({**result, "contradictions": []}, tmp_path) == 0
