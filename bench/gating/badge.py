"""A badge with the verified accuracy and its change: for shields.io's endpoint, and as a drawing."""

from __future__ import annotations

from html import escape
from typing import Any

from prunecert.bench.gating.result import GateResult

LABEL = "verified accuracy"
_COLOURS = {"passed": "brightgreen", "failed": "red", "broken": "lightgrey"}
#: The same as shields.io draws them.
_HEX = {"brightgreen": "#4c1", "red": "#e05d44", "lightgrey": "#9f9f9f"}
#: Advance widths of 11 pixel Verdana, in tenths of a pixel, of characters that are not of the common width.
_COMMON = 70
_WIDTHS = {
    **dict.fromkeys("ijl.,:|", 35),
    **dict.fromkeys(" ftr()-", 43),
    **dict.fromkeys("+−=%", 95),
    **dict.fromkeys("mwMW", 108),
}


def message(result: GateResult) -> str:
    """Returns ``44.1 % (+0.3 pp)``; of several cells the lowest and the highest of both."""
    if result.outcome == "broken":
        return "unknown: an error"
    metrics = [cell.metrics["verified"] for cell in result.cells]
    shares = [100 * metric.run / metric.n for metric in metrics]
    changes = [100 * float(metric.change) for metric in metrics]
    if not metrics:
        return "nothing compared"
    if len(metrics) == 1:
        return f"{shares[0]:.1f} % ({_signed(changes[0])} pp)"
    low, high = _signed(min(changes)), _signed(max(changes))
    change = low if low == high else f"{low} to {high}"
    return f"{min(shares):.1f}–{max(shares):.1f} % ({change} pp)"


def _signed(value: float) -> str:
    """Returns ``+0.3``, ``−0.3`` or ``±0``."""
    text = f"{abs(value):.1f}"
    return "±0" if text == "0.0" else f"{'−' if value < 0 else '+'}{text}"


def endpoint(result: GateResult) -> dict[str, Any]:
    """Returns what shields.io's endpoint badge reads."""
    return {
        "schemaVersion": 1,
        "label": LABEL,
        "message": message(result),
        "color": _COLOURS[result.outcome],
        "isError": result.outcome == "broken",
    }


def svg(result: GateResult) -> str:
    """Returns the badge as an SVG file, which needs nobody's server."""
    return drawn(LABEL, message(result), _HEX[_COLOURS[result.outcome]])


def drawn(label: str, text: str, colour: str) -> str:
    """Draws a badge.

    Args:
        label: What it is about.
        text: What is said of that.
        colour: Of the ground behind `text`.
    """
    widths = [_width(label) + 10, _width(text) + 10]
    whole = sum(widths)
    title = escape(f"{label}: {text}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="20" role="img" aria-label="{title}">',
        f"<title>{title}</title>",
        f'<clipPath id="r"><rect width="{whole}" height="20" rx="3"/></clipPath>',
        f'<g clip-path="url(#r)"><rect width="{widths[0]}" height="20" fill="#555"/>',
        f'<rect x="{widths[0]}" width="{widths[1]}" height="20" fill="{colour}"/></g>',
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="11">',
    ]
    for words, middle, width in ((label, widths[0] / 2, widths[0]), (text, widths[0] + widths[1] / 2, widths[1])):
        # The length is set: another font than the one that was measured may not run over the edge.
        parts.append(f'<text x="{middle:g}" y="14" textLength="{width - 10}">{escape(words)}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _width(text: str) -> int:
    """Returns about how many pixels a text takes."""
    return round(sum(_WIDTHS.get(character, _COMMON) for character in text) / 10)
