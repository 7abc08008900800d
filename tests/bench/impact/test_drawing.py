"""Figures of recorded networks are those of a run's report, and what can't be drawn is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.impact.drawing import draw
from prunecert.bench.report import figures
from prunecert.bench.retention import main
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO

NAMES = ("kept-accuracy", "verified-accuracy", "time")


def test_entries_are_drawn_as_a_run_is(
    entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[dict[str, object]] = []

    def kept(summary: dict[str, object], folder: Path) -> list[Path]:
        drawn.append(summary)
        return [folder / "one.svg"]

    monkeypatch.setattr(figures, "save", kept)
    main([str(entries), "--figures", str(tmp_path / "new" / "folder"), "--compression", "100", "--cells", "*hydra*"])
    assert capsys.readouterr().out.endswith(f"\nwrote {tmp_path / 'new' / 'folder' / 'one.svg'}\n")
    ((summary,), cells) = drawn, drawn[0]["cells"]
    assert isinstance(cells, list)
    assert [cell["name"] for cell in cells] == ["cnn-small_ibp_eps2_dense_x1_s0", "cnn-small_ibp_eps2_hydra_x100_s0"]
    assert cells[0]["verified"]["value"] == pytest.approx(0.432)
    assert figures.caption(summary, "time").endswith("n = 1,000 images")


@pytest.mark.slow
def test_files_are_written(entries: Path, tmp_path: Path) -> None:
    paths = draw(entries, tmp_path)
    assert {path.name for path in paths} == {f"{name}.{end}" for name in NAMES for end in ("png", "svg")}
    assert all(path.is_file() for path in paths)


def test_what_cannot_be_drawn_is_refused(entries: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("mine")
    with pytest.raises(UserError, match=r"--figures .*file can't be written to \(File exists\)"):
        draw(entries, occupied)
    assert occupied.read_text() == "mine"
    with pytest.raises(UserError, match="Did you mean"):
        draw(entries, tmp_path / "figures", patterns="cnn-small_ipb_eps2_hydra_x100_s0")
    assert not (tmp_path / "figures").exists()
    with pytest.raises(UserError, match="nothing to be drawn"):
        draw(entries, tmp_path / "figures", only=["other"])
    with pytest.raises(UserError, match="holds checkpoints, whose cards have no verified accuracy"):
        draw(ZOO, tmp_path / "figures")
    for options in ([], [str(entries), "--about", "networks"]):
        with pytest.raises(UserError, match="--figures goes with a run"):
            main([*options, "--figures", str(tmp_path / "figures")])
    with pytest.raises(UserError, match="--proved goes without --figures"):
        main(["--proved", str(entries), "--figures", str(tmp_path / "figures")])
