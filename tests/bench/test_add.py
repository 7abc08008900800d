from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench import add
from prunecert.errors import UserError


def test_bad_input_is_found_before_anything_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, why in (
        (["net.pt", "--eps", "2/255"], "give an .onnx file"),
        (["net.onnx", "--eps", "2"], "at most 1"),
        (["net.onnx", "--eps", "2/255", "--data", "mnst"], "Did you mean 'mnist'"),
        (["net.onnx", "--eps", "2/255"], "there is no such file"),
    ):
        with pytest.raises(UserError, match=why):
            add.main(words)


def test_it_needs_a_radius(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        add.main(["net.onnx"])
    assert stop.value.code == 2
    assert "--eps" in capsys.readouterr().err
