"""What figures share: colours, their style, and how a drawing becomes files or a part of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours: told apart by colour-blind readers, on white and on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
#: Stands for the page's text colour in inline SVG, so that a figure fits a light and a dark page.
PAGE_INK = "#010203"
#: The text colour of files, whose ground is white.
FILE_INK = "#222222"


def look(place: int) -> tuple[str, str]:
    """Returns colour and marker of a line; no two of the first 36 lines have both in common.

    Args:
        place: The line's number, from 0.

    >>> look(0), look(6)
    (('#0072B2', 'o'), ('#0072B2', 's'))
    """
    turn, colour = divmod(place, len(COLOURS))
    return COLOURS[colour], _MARKERS[(colour + turn) % len(_MARKERS)]


def style(name: str, ink: str) -> Any:
    """Returns Matplotlib's settings for a figure, a mapping that `matplotlib.rc_context` takes.

    Args:
        name: Its name, from which the identifiers in its SVG follow: the same figure is the same text.
        ink: Colour of text and axes.
    """
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
    }


def page_svg(figure: Figure, caption: str) -> str:
    """Returns a figure drawn in `PAGE_INK` as SVG text for an HTML page, in the page's own text colour."""
    stream = io.StringIO()
    no_dates = {"Date": None, "Creator": None, "Format": None}
    figure.savefig(stream, format="svg", transparent=True, metadata=no_dates)
    text = stream.getvalue().replace(PAGE_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{caption}" class="figure" ', 1)


def saver(paths: list[Path], folder: Path, name: str) -> Callable[[Figure], None]:
    """Returns what writes a figure as PNG and SVG and adds their paths to `paths`; it makes the folder if need be."""

    def save(figure: Figure) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        png, svg = folder / f"{name}.png", folder / f"{name}.svg"
        figure.savefig(png, facecolor="white", dpi=150)
        figure.savefig(svg, facecolor="white", metadata={"Date": None})
        paths.extend((png, svg))

    return save


def compression_axis(axes: Axes, cells: Sequence[Mapping[str, Any]]) -> None:
    """Makes the horizontal axis one of compressions, logarithmic, with a tick for each that there is."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    values = sorted({float(cell["compression"]) for cell in cells})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticklabels([f"{value:g}×" for value in values])
    axes.set_xlabel("compression")
