"""Charts as inline SVG that takes its colors from the page, so that it is crisp and follows light
and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np

from morphable.draw.numbers import number

WIDTH, HEIGHT = 560, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 50


@dataclass(frozen=True, eq=False)
class Series:
    """One line or cloud. color: which of the page's chart colors (0 model, 1 PCA, 2 mean shape, 3..
    others).

    x, y: (n,). spread: (n, 2) low and high ends of error bars, points only. label: written beside
    the last point.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    kind: Literal["line", "points", "mark"] = "line"
    color: int = 0
    spread: np.ndarray | None = None


@dataclass(frozen=True)
class Axis:
    """label: with its unit. low, high: ends of the scale, found from the data where None."""

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log(v) for v in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        slack = 1e-9 * (self.high - self.low)
        return math.isfinite(value) and self.low - slack <= value <= self.high + slack


def chart(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    description: str,
    diagonal: bool = False,
    marks: Sequence[float] = (),
) -> str:
    """An SVG element. description: what a person who cannot see it should know.

    diagonal: also draw y = x. marks: x positions of vertical lines.
    """
    shown = [_finite(item) for item in series]
    x_scale = _scale(x, [value for item in shown for value in item.x], LEFT, WIDTH - RIGHT)
    y_values = [value for item in shown for value in item.y]
    y_values += [
        v for item in shown if item.spread is not None for v in item.spread.ravel().tolist()
    ]
    y_scale = _scale(y, y_values, HEIGHT - BOTTOM, TOP)
    body = [_axes(x, y, x_scale, y_scale)]
    if diagonal:
        low, high = max(x_scale.low, y_scale.low), min(x_scale.high, y_scale.high)
        if low < high:
            body.append(
                _line([(x_scale(low), y_scale(low)), (x_scale(high), y_scale(high))], "guide")
            )
    body += [
        _line([(x_scale(at), TOP), (x_scale(at), HEIGHT - BOTTOM)], "guide")
        for at in marks
        if x_scale.holds(at)
    ]
    body += [_drawn(item, x_scale, y_scale) for item in shown]
    body.append(_legend(shown))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description, quote=True)}">'
        + "".join(body)
        + "</svg>"
    )


def _finite(item: Series) -> Series:
    x, y = np.asarray(item.x, float), np.asarray(item.y, float)
    keep = np.isfinite(x) & np.isfinite(y)
    spread = None if item.spread is None else np.asarray(item.spread, float)[keep]
    return Series(item.name, x[keep], y[keep], item.kind, item.color, spread)


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    known = [v for v in values if math.isfinite(v) and (v > 0 or not axis.log)] or [1.0]
    low = min(known) if axis.low is None else axis.low
    high = max(known) if axis.high is None else axis.high
    if axis.low is None:
        low = low / 1.15 if axis.log else low - 0.04 * (high - low)
    if axis.high is None:
        high = high * 1.15 if axis.log else high + 0.06 * (high - low)
    if not high > low:
        low, high = (low / 2, low * 2) if axis.log else (low - 0.5, low + 0.5)
    return _Scale(low, high, start, end, axis.log)


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers within [low, high], a step of 1, 2 or 5 times a power of ten apart, at most
    about `count`.

    >>> ticks(0, 1, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [s * 10.0**e for e in exponents for s in steps if low <= s * 10.0**e <= high]
        if len(found) <= 8:
            break
    return found if len(found) >= 2 else ticks(low, high, 4)


def _axes(x: Axis, y: Axis, x_scale: _Scale, y_scale: _Scale) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in _ticks_of(x, x_scale):
        at = x_scale(value)
        parts.append(_line([(at, bottom), (at, bottom + 4)], "axis"))
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{_short(value)}</text>'
        )
    for value in _ticks_of(y, y_scale):
        at = y_scale(value)
        parts.append(_line([(LEFT, at), (right, at)], "grid"))
        parts.append(
            f'<text class="tick" x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    parts.append(_line([(LEFT, bottom), (right, bottom)], "axis"))
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x.label)}</text>'
    )
    turn = f'transform="rotate(-90 15 {middle})"'
    parts.append(
        f'<text class="label" x="15" y="{middle}" text-anchor="middle" {turn}>{escape(y.label)}</text>'
    )
    return "".join(parts)


def _ticks_of(axis: Axis, scale: _Scale) -> list[float]:
    if axis.ticks:
        return [value for value in axis.ticks if scale.holds(value)]
    return _log_ticks(scale.low, scale.high) if scale.log else ticks(scale.low, scale.high)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _drawn(item: Series, x: _Scale, y: _Scale) -> str:
    pairs = zip(np.asarray(item.x).tolist(), np.asarray(item.y).tolist(), strict=True)
    points = [(x(a), y(b)) for a, b in pairs if x.holds(a) and y.holds(b)]
    name = escape(item.name)
    if item.kind == "line":
        return _line(points, f"line c{item.color}")
    if item.kind == "points":
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points)
        return f'<g class="dots c{item.color}">{dots}</g>'
    parts = []
    for index, (a, b) in enumerate(points):
        if item.spread is not None:
            low, high = (y(min(max(v, y.low), y.high)) for v in item.spread[index])
            whisker = (
                f"M{a - 6:.1f} {low:.1f}h12M{a - 6:.1f} {high:.1f}h12M{a:.1f} {low:.1f}V{high:.1f}"
            )
            parts.append(f'<path class="line c{item.color}" d="{whisker}"/>')
        diamond = f"M{a:.1f} {b - 6:.1f}l6 6l-6 6l-6-6z"
        parts.append(
            f'<path class="mark c{item.color}" d="{diamond}"><title>{name}: {number(item.y[index])}</title></path>'
        )
    return "".join(parts)


def _line(points: Sequence[tuple[float, float]], kind: str) -> str:
    if len(points) == 1:
        return f'<g class="dots {kind}"><circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/></g>'
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def _legend(series: Sequence[Series]) -> str:
    """Names with a swatch in one row above the plot; a series without a name is left out."""
    parts, at = [], float(LEFT)
    for item in series:
        if not item.name:
            continue
        swatch = {
            "line": _line([(at, 16), (at + 18, 16)], f"line c{item.color}"),
            "points": f'<g class="dots c{item.color}"><circle cx="{at + 9:.1f}" cy="16" r="4"/></g>',
            "mark": f'<path class="mark c{item.color}" d="M{at + 9:.1f} 9l7 7l-7 7l-7-7z"/>',
        }[item.kind]
        parts.append(
            f'{swatch}<text class="legend" x="{at + 24:.1f}" y="20">{escape(item.name)}</text>'
        )
        at += 40 + 6.9 * len(item.name)
    return "".join(parts)
