"""Colours can be told from what lies behind them, in the light and in the dark: WCAG 2.2, criteria 1.4.3 and 1.4.11."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSS = (Path(__file__).parents[3] / "bench" / "site" / "style.css").read_text(encoding="utf-8")
Tokens = dict[str, str]


def tokens(block: str) -> Tokens:
    return dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block))


THEMES = {
    "light": tokens(CSS[: CSS.index(':root[data-theme="dark"]')]),
    "dark": tokens(CSS[CSS.index(':root[data-theme="dark"]') : CSS.index("@media (prefers-color-scheme: dark)")]),
    "system": tokens(CSS[CSS.index("@media (prefers-color-scheme: dark)") : CSS.index(":root { color-scheme")]),
}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def weak(colours: Tokens, pairs: list[tuple[str, str]], least: float) -> dict[tuple[str, str], float]:
    """Returns the pairs of tokens whose contrast is below what they need."""
    contrasts = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    return {pair: value for pair, value in contrasts.items() if value < least}


def test_black_on_white_is_the_most_there_is() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_the_dark_theme_is_one_whoever_chose_it() -> None:
    assert THEMES["dark"] == THEMES["system"]
    assert THEMES["dark"].keys() == THEMES["light"].keys()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable(theme: str) -> None:
    colours = THEMES[theme]
    pairs = [(text, ground) for text in ("ink", "dim", "link") for ground in ("page", "raised")]
    pairs += [("warn", "warnpage")]
    pairs += [("hink", shade) for shade in ("h0", "h1", "h2")] + [("ink", shade) for shade in ("h3", "h4", "h5")]
    assert weak(colours, pairs, 4.5) == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_and_the_focus_are_seen(theme: str) -> None:
    colours = THEMES[theme]
    assert weak(colours, [(name, "page") for name in ("focus", "own", *(f"s{i}" for i in range(8)))], 3.0) == {}
    assert ":focus-visible { outline: 2px solid var(--focus)" in CSS
