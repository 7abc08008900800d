from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.report import figures
from tests.bench.summarykit import cell, pruned, session, summarise


@pytest.mark.slow
def test_figures_are_drawn_and_repeatable(tmp_path: Path) -> None:
    summary = pruned()
    paths = figures.save(summary, tmp_path)
    assert {path.name for path in paths} == {"verified-accuracy.png", "verified-accuracy.svg", "time.png", "time.svg"}
    assert (tmp_path / "time.png").read_bytes().startswith(b"\x89PNG")
    assert figures.inline_svg(summary, "time") == figures.inline_svg(summary, "time")
    nothing = summarise(session(cell()))
    assert figures.save(nothing, tmp_path / "none") == []
    assert figures.inline_svg(nothing, "time") is None
