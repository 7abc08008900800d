from __future__ import annotations

import io
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.bench.report.labels import literal

NAMES = ["$\\frac{1}{$", "$x$", "\\$x$", "a$b", "_hidden", "plain", "a_b^c{d}"]


def drawn(text: str) -> str:
    """Returns the SVG of a figure with a text as its title and in its legend."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = Figure()
        axes = figure.subplots()
        axes.set_title(literal(text))
        axes.plot([0, 1], [1, 2], label=literal(text))
        axes.set_yscale("log")
        axes.legend()
        stream = io.StringIO()
        figure.savefig(stream, format="svg")
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_names_stand_in_figures_as_they_are(name: str) -> None:
    assert drawn(name).count(f">{name}<") == 2 or drawn(name).count(f"> {name}<") == 2


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.text(st.sampled_from("$\\{}_^ab"), min_size=1, max_size=8))
def test_no_name_ends_the_drawing(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(f"a{name}")
