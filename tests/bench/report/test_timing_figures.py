from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunecert.bench.report import timing_figures
from prunecert.bench.report.timing_figures import FIGURES, inline_svg, save, slug
from prunecert.bench.results.timing import summarise_times
from tests.bench.timekit import observations

SUMMARY = summarise_times(observations(1.0))
(GROUP,) = SUMMARY["groups"]


def test_lines_go_from_the_dense_network_on() -> None:
    (verifier,) = GROUP["verifiers"]
    lines = list(timing_figures._lines(GROUP, verifier))
    assert [(pruner, variant) for pruner, variant, _ in lines] == [("lwm", "masked"), ("lwm", "compact")]
    for _, _, points in lines:
        assert [sparsity for sparsity, _ in points] == sorted(sparsity for sparsity, _ in points)
    assert lines[0][2] == [(0.0, 8.0), (0.9, 2.0)]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_for_a_page(name: str) -> None:
    svg = inline_svg(GROUP, name)
    assert svg.startswith("<svg ")
    assert "currentColor" in svg
    assert "slow" in svg


def test_names_of_groups_become_names_of_files() -> None:
    assert slug({"name": "cnn-small, ibp, ε = 2/255"}) == "cnn-small-ibp-eps-2-255"
    assert re.fullmatch(r"[a-z0-9-]+", slug({"name": "../../A B%_x"}))


def test_all_figures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(timing_figures, "_draw", lambda group, name, ink, save: names.append(name))
    save(SUMMARY, tmp_path)
    assert names == list(FIGURES)
    save({"groups": [{**GROUP, "verifiers": []}]}, tmp_path)
    assert names == list(FIGURES)
