from __future__ import annotations

import sys
from pathlib import Path

import pytest

import prunecert.vision
from prunecert.bench.comparison import launch


def test_a_script_runs_as_itself_with_its_own_folder_first_and_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "beside.py").write_text("WORD = 'neighbour'\n")
    script = folder / "main.py"
    script.write_text("import sys, beside\nprint(__name__, beside.WORD, sys.argv[1:])\n")
    imports: list[bool] = []
    root = str(Path(launch.__file__).absolute().parents[3])
    monkeypatch.setattr(prunecert.vision, "import_torchvision", lambda: imports.append(root in sys.path))
    monkeypatch.setattr(sys, "argv", ["launch.py", str(script), "--net", "a.onnx"])
    monkeypatch.setattr(sys, "path", ["here", *(entry for entry in sys.path if entry != root)])
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    launch.main()
    assert capsys.readouterr().out == "__main__ neighbour ['--net', 'a.onnx']\n"
    # torchvision is put right before the script, with this project on the path for that only.
    assert imports == [True]
    assert sys.path[0] == str(folder)
    assert root not in sys.path


def test_a_script_that_is_not_there_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prunecert.vision, "import_torchvision", lambda: None)
    monkeypatch.setattr(sys, "argv", ["launch.py", str(tmp_path / "none.py")])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(FileNotFoundError):
        launch.main()
