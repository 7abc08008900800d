from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench import compare
from prunecert.bench.comparison.request import ComparisonRequest
from prunecert.errors import UserError
from tests.bench.comparison.sidekit import result_of, side


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--verifier", "marabou"), r"Unknown verifier with a command line 'marabou'.*Available: abcrown, neuralsat"),
        (("--sides", "loop"), r"--sides 'loop' is refused; name at least two"),
        (("--sides", "loop,rum"), r"Unknown side 'rum'\. Did you mean 'run'"),
        (("--cells", "cnn-tiny*"), r"Unknown cell 'cnn-tiny\*' of suite"),
        (
            ("--suite", "cifar10-attacked", "--cells", "vgg16*"),
            r"None of the chosen cells of suite 'cifar10-attacked' has a checkpoint",
        ),
        (("--abcrown", "/nowhere"), r"--abcrown /nowhere is refused"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare.main(["--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_a_contradiction_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = result_of([side("run", 4.0, i1="sat"), side("loop", 40.0, i1="unsat")], 1)
    monkeypatch.setattr(compare, "run_comparison", lambda _: result)
    assert compare.main(["--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "CONTRADICTION: x" in printed
    assert f"wrote {tmp_path / 'instances.csv'}" in printed
    result["contradictions"] = []
    assert compare.main(["--out", str(tmp_path)]) == 0


def test_a_command_line_becomes_a_request() -> None:
    words = ["--suite", "s", "--verifier", "abcrown", "--loop-sample", "5", "--sides", "run,loop", "--data-root", "d"]
    request = compare.request_of(compare.parser().parse_args(words), words)
    assert request == ComparisonRequest(
        suite="s", verifier="abcrown", loop_sample=5, sides="run,loop", data_root=Path("d"), argv=tuple(words)
    )
