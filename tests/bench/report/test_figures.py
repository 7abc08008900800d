from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.report import figures
from tests.bench.summarykit import cell, pruned, session, summarise


@pytest.mark.slow
def test_figures_are_drawn_and_repeatable(tmp_path: Path) -> None:
    summary = pruned()
    paths = figures.save(summary, tmp_path)
    names = ("kept-accuracy", "verified-accuracy", "time")
    assert {path.name for path in paths} == {f"{name}.{end}" for name in names for end in ("png", "svg")}
    assert (tmp_path / "time.png").read_bytes().startswith(b"\x89PNG")
    assert figures.inline_svg(summary, "time") == figures.inline_svg(summary, "time")
    nothing = summarise(session(cell()))
    assert figures.save(nothing, tmp_path / "none") == []
    assert figures.inline_svg(nothing, "time") is None


def test_captions_say_how_many_images_and_warn_of_few() -> None:
    for name in ("kept-accuracy", "verified-accuracy", "time"):
        assert figures.caption(pruned(), name).endswith("; n = 6 images; below 50 images, mind the intervals")
    assert "attacked" not in figures.caption(pruned(), "verified-accuracy")


def test_without_a_dense_control_there_is_no_figure_of_what_is_kept() -> None:
    summary = pruned()
    summary["cells"] = [cell for cell in summary["cells"] if cell["pruner"] != "dense"]
    assert figures.inline_svg(summary, "kept-accuracy") is None
