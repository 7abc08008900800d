from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from prunecert.bench.report import canvas


def drawing(name: str, ink: str) -> Figure:
    with mpl.rc_context(canvas.style(name, ink)):
        figure = Figure(figsize=(2, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=canvas.COLOURS[0])
        axes.set_xlabel("x <&>")
        return figure


def page(name: str = "a") -> str:
    with mpl.rc_context(canvas.style(name, canvas.PAGE_INK)):
        return canvas.page_svg(drawing(name, canvas.PAGE_INK), "A figure")


def test_a_page_has_the_figure_in_its_own_colour_and_without_metadata() -> None:
    svg = page()
    assert svg.startswith('<svg role="img" aria-label="A figure" class="figure" ')
    assert "currentColor" in svg
    assert canvas.PAGE_INK not in svg
    assert "<metadata>" not in svg
    assert "x &lt;&amp;&gt;" in svg
    assert canvas.COLOURS[0].lower() in svg.lower()


def test_the_same_figure_is_the_same_text() -> None:
    assert page() == page()


def test_files_are_written_in_pairs_into_a_folder_that_is_made(tmp_path: Path) -> None:
    paths: list[Path] = []
    save = canvas.saver(paths, tmp_path / "deep" / "figures", "f")
    save(drawing("f", canvas.FILE_INK))
    assert [path.name for path in paths] == ["f.png", "f.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert "<dc:date>" not in paths[1].read_text()


def test_the_colours_are_told_apart() -> None:
    assert len(set(canvas.COLOURS)) == len(canvas.COLOURS) >= 6
    assert canvas.PAGE_INK not in canvas.COLOURS


def test_no_two_lines_of_a_figure_look_alike() -> None:
    looks = [canvas.look(place) for place in range(36)]
    assert len(set(looks)) == 36
    assert len({colour for colour, _ in looks[:6]}) == 6
