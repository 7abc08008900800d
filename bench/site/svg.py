"""A small plot as SVG text: axes, ticks and paths in the page's own colours (classes `s0` to `s7`, `own`, `rest`).

Written by hand because a board has thousands of pages with five figures each: matplotlib would take an hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 14, 12, 44

Point = tuple[float, float]


def number(value: float) -> str:
    """Returns a coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def short(value: float) -> str:
    """Returns a tick's label: three digits, no exponent where none is needed."""
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1e5 or value == 0 else f"{value:.0e}"


class ChartAxis:
    """A range of values on a range of pixels.

    Args:
        values: What must be visible.
        start: Pixel of the lowest value.
        end: Pixel of the highest.
        log: Logarithmic; values must then be above 0.
        zero: The range begins at 0 (linear axes).
        top: The range ends at least here.
    """

    def __init__(
        self,
        values: Iterable[float],
        start: float,
        end: float,
        *,
        log: bool = False,
        zero: bool = False,
        top: float | None = None,
    ) -> None:
        numbers = list(values)
        low, high = (min(numbers), max(numbers)) if numbers else (1.0, 10.0)
        high = high if top is None else max(high, top)
        if log:
            low, high = low / 1.25, high * 1.25
        else:
            low = 0.0 if zero else low
            pad = (high - low or abs(high) or 1.0) * 0.04
            low, high = (low if zero else low - pad), high + (0 if top is not None and high == top else pad)
        self.log, self.low, self.high, self.start, self.end = log, low, high, start, end

    def __call__(self, value: float) -> float:
        """Returns the pixel of a value."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Returns 3 to 8 round values in the range."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
                ticks = [
                    m * 10.0**e for e in range(first, last + 1) for m in steps if self.low <= m * 10.0**e <= self.high
                ]
                if len(ticks) >= 3:
                    break
            if len(ticks) > 1:
                return ticks[:: max(1, len(ticks) // 7)]
        raw = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 12) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


class Plot:
    """Collects paths over a pair of axes.

    Args:
        label: What a screen reader says of it.
        x: Horizontal axis; its pixels are set by `horizontal`.
        y: Vertical axis.
        x_label: Title of the horizontal axis.
        y_label: Title of the vertical axis.
        x_ticks: Tick values instead of round ones.
        x_unit: Written behind each horizontal tick.
    """

    def __init__(
        self,
        label: str,
        x: ChartAxis,
        y: ChartAxis,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[float] | None = None,
        x_unit: str = "",
    ) -> None:
        self.label, self.x, self.y = label, x, y
        parts = []
        for tick in y.ticks():
            at = number(y(tick))
            parts.append(f'<path class="grid" d="M{_LEFT} {at}H{WIDTH - _RIGHT}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{at}" dy=".35em" class="end">{short(tick)}</text>')
        bottom = HEIGHT - _BOTTOM
        last = -99.0
        for tick in x.ticks() if x_ticks is None else x_ticks:
            place = x(tick)
            parts.append(f'<path class="axis" d="M{number(place)} {bottom}v4"/>')
            if place - last > 34:
                parts.append(f'<text x="{number(place)}" y="{bottom + 16}" class="mid">{short(tick)}{x_unit}</text>')
                last = place
        parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{(_LEFT + WIDTH) / 2:g}" y="{HEIGHT - 6}" class="mid title">{escape(x_label)}</text>')
        middle = number((_TOP + bottom) / 2)
        parts.append(f'<text transform="translate(11 {middle})rotate(-90)" class="mid title">{escape(y_label)}</text>')
        self._parts = parts

    def line(self, points: Sequence[Point], kind: str, dashed: bool = False) -> None:
        """Joins points."""
        if len(points) > 1:
            d = "L".join(f"{number(self.x(x))} {number(self.y(y))}" for x, y in points)
            self._parts.append(f'<path class="line {kind}{" dash" if dashed else ""}" d="M{d}"/>')

    def dots(self, points: Sequence[Point], kind: str, shape: str = "dot") -> None:
        """Marks points; all of one kind are one path."""
        if points:
            d = "".join(f"M{number(self.x(x))} {number(self.y(y))}h0" for x, y in points)
            self._parts.append(f'<path class="{shape} {kind}" d="{d}"/>')

    def bars(self, bars: Sequence[tuple[float, float, float]], kind: str) -> None:
        """Draws vertical error bars (x, low, high)."""
        if bars:
            d = "".join(f"M{number(self.x(x))} {number(self.y(a))}V{number(self.y(b))}" for x, a, b in bars)
            self._parts.append(f'<path class="bar {kind}" d="{d}"/>')

    def ring(self, point: Point) -> None:
        """Points out the page's own entry."""
        x, y = number(self.x(point[0])), number(self.y(point[1]))
        self._parts.append(f'<circle class="own" cx="{x}" cy="{y}" r="8"/>')

    def svg(self) -> Markup:
        """Returns the figure."""
        return wrap(self.label, WIDTH, HEIGHT, self._parts)


def horizontal(values: Iterable[float], **options: bool | float) -> ChartAxis:
    """Returns an axis over the plot's width; options as `ChartAxis`."""
    return ChartAxis(values, _LEFT + 4, WIDTH - _RIGHT - 6, **options)  # type: ignore[arg-type]


def vertical(values: Iterable[float], **options: bool | float) -> ChartAxis:
    """Returns an axis over the plot's height; options as `ChartAxis`."""
    return ChartAxis(values, HEIGHT - _BOTTOM, _TOP, **options)  # type: ignore[arg-type]


def wrap(label: str, width: float, height: float, parts: Iterable[str]) -> Markup:
    """Returns parts as one SVG image with a spoken label."""
    # The parts are our own markup; names are escaped where they go in.
    return Markup(  # noqa: S704
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
