"""Charts as values: lines, marks, scatters, bars and clouds of points. Each lays itself out in
pixels; templates/charts.html draws it as inline SVG.

Why not matplotlib's SVG: side by side in the page's style, both are equally good to look at on
white, but matplotlib fixes colors when it draws. On a dark page its labels and legends fade into
the background, whereas these take their colors from the page. It also writes four to eight times as
many bytes (16 to 22 kB for charts of 2 to 6 kB), and takes a whole chart's time for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from morphable.draw.blocks import Block
from morphable.draw.camera import Camera
from morphable.draw.colors import UNKNOWN, css, region_colors
from morphable.draw.numbers import number

LETTER = 6.9
"""Mean width of a letter in pixels, for room that depends on a text."""

Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Series:
    """One line or cloud of a chart.

    x, y: (n,). color: which of the page's chart colors: 0 model, 1 PCA, 2 mean shape, 3 and more
    others. spread: (n, 2) low and high ends of the error bars of marks. A series without a name is
    left out of the legend.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    kind: Literal["line", "points", "mark"] = "line"
    color: int = 0
    spread: np.ndarray | None = None

    def finite(self) -> Series:
        """Without the points that have no finite place."""
        x, y = np.asarray(self.x, float), np.asarray(self.y, float)
        keep = np.isfinite(x) & np.isfinite(y)
        spread = None if self.spread is None else np.asarray(self.spread, float)[keep]
        return Series(self.name, x[keep], y[keep], self.kind, self.color, spread)


@dataclass(frozen=True)
class Axis:
    """label: with its unit. low, high: ends of the scale, found from the data if None. ticks: where
    numbers stand; found from the scale if empty.
    """

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None
    ticks: tuple[float, ...] = ()

    def scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        """From the values shown to pixels `start` to `end`."""
        known = [v for v in values if math.isfinite(v) and (v > 0 or not self.log)] or [1.0]
        low = min(known) if self.low is None else self.low
        high = max(known) if self.high is None else self.high
        if self.low is None:
            low = low / 1.15 if self.log else low - 0.04 * (high - low)
        if self.high is None:
            high = high * 1.15 if self.log else high + 0.06 * (high - low)
        if not high > low:
            low, high = (low / 2, low * 2) if self.log else (low - 0.5, low + 0.5)
        return Scale(low, high, start, end, self.log)

    def labels(self, scale: Scale) -> list[tuple[float, str]]:
        """Places in pixels and texts of the ticks on a scale."""
        if self.ticks:
            values = [value for value in self.ticks if scale.holds(value)]
        elif scale.log:
            values = log_ticks(scale.low, scale.high)
        else:
            values = ticks(scale.low, scale.high)
        return [(scale(value), _short(value)) for value in values]


@dataclass(frozen=True)
class Scale:
    """Carries values `low` to `high` to pixels `start` to `end`."""

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
        """Whether a value lies on the scale."""
        slack = 1e-9 * (self.high - self.low)
        return math.isfinite(value) and self.low - slack <= value <= self.high + slack

    def clipped(self, value: float) -> float:
        """The pixel of a value, or of the end that is nearest to it."""
        return self(min(max(value, self.low), self.high))


@dataclass(frozen=True)
class Mark:
    """A diamond. bar: the ends of its error bar, None if it has none."""

    x: float
    y: float
    bar: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Shown:
    """A series in pixels. points: of a line or cloud; marks: of marks. legend: where its name
    starts, None if it has none.
    """

    name: str
    kind: str
    color: int
    points: list[Point]
    marks: list[Mark]
    legend: float | None


@dataclass(frozen=True)
class Plot:
    """A chart in pixels. guides: dashed lines."""

    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    guides: list[list[Point]]
    series: list[Shown]


class _Drawing(Block):
    """A block whose macro is in charts.html."""

    template: ClassVar[str] = "charts.html"


@dataclass(frozen=True, eq=False)
class Chart(_Drawing):
    """Series over two axes. description: what a person who cannot see it should know.

    diagonal: also draw y = x.
    """

    series: Sequence[Series]
    x: Axis
    y: Axis
    description: str
    diagonal: bool = False

    WIDTH: ClassVar[int] = 560
    HEIGHT: ClassVar[int] = 330
    LEFT: ClassVar[int] = 62
    RIGHT: ClassVar[int] = 544
    TOP: ClassVar[int] = 34
    BOTTOM: ClassVar[int] = 280
    """Sides of the plot within the picture, which has room for labels and legend around it."""

    @cached_property
    def plot(self) -> Plot:
        """The chart in pixels."""
        series = [item.finite() for item in self.series]
        x_scale = self.x.scale(_all([s.x for s in series]), self.LEFT, self.RIGHT)
        spreads = [s.spread.ravel() for s in series if s.spread is not None]
        y_scale = self.y.scale(_all([*(s.y for s in series), *spreads]), self.BOTTOM, self.TOP)
        guides = []
        low, high = max(x_scale.low, y_scale.low), min(x_scale.high, y_scale.high)
        if self.diagonal and low < high:
            guides.append([(x_scale(end), y_scale(end)) for end in (low, high)])
        shown = [
            _shown(item, x_scale, y_scale, start)
            for item, start in zip(series, _legend_starts(series, self.LEFT), strict=True)
        ]
        return Plot(self.x.labels(x_scale), self.y.labels(y_scale), guides, shown)


def _all(values: Sequence[Sequence[float] | np.ndarray]) -> list[float]:
    return [float(value) for part in values for value in part]


def _legend_starts(series: Sequence[Series], left: float) -> list[float | None]:
    """Where each name starts in one row above the plot."""
    starts: list[float | None] = []
    at = float(left)
    for item in series:
        starts.append(at if item.name else None)
        at += 40 + LETTER * len(item.name) if item.name else 0
    return starts


def _shown(item: Series, x: Scale, y: Scale, legend: float | None) -> Shown:
    inside = [
        (row, a, b)
        for row, (a, b) in enumerate(zip(_all([item.x]), _all([item.y]), strict=True))
        if x.holds(a) and y.holds(b)
    ]
    points = [(x(a), y(b)) for _, a, b in inside]
    if item.kind != "mark":
        return Shown(item.name, item.kind, item.color, points, [], legend)
    marks = []
    for row, a, b in inside:
        bar = None
        if item.spread is not None:
            low, high = item.spread[row].tolist()
            bar = y.clipped(low), y.clipped(high)
        marks.append(Mark(x(a), y(b), bar, f"{item.name}: {number(b)}"))
    return Shown(item.name, item.kind, item.color, [], marks, legend)


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


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within [low, high] for a logarithmic scale, at most eight.

    >>> log_ticks(1, 100)
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [s * 10.0**e for e in exponents for s in steps if low <= s * 10.0**e <= high]
        if len(found) <= 8:
            break
    return found if len(found) >= 2 else ticks(low, high, 4)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Bar:
    """color: which of the page's chart colors. low, high: the ends of its whiskers."""

    name: str
    color: int
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Bars(_Drawing):
    """Bars from left to right, one below the other, each with its name before and its text after
    it.
    """

    bars: Sequence[Bar]
    description: str

    @property
    def left(self) -> float:
        """Pixels before the bars, for the longest name."""
        return 16 + max(LETTER * len(bar.name) for bar in self.bars)

    @property
    def per_unit(self) -> float:
        """Pixels of one unit; 90 are left for the texts."""
        most = max(max(bar.value, bar.high) for bar in self.bars)
        return (500 - 90 - self.left) / (most or 1.0)


@dataclass(frozen=True, eq=False)
class Scatter(_Drawing):
    """Points (N, 2) in equal units on both axes, colored by class (N,), with a legend. Class -1 is
    unknown and gray.
    """

    points: np.ndarray
    classes: np.ndarray
    names: Sequence[str]
    description: str

    SIDE: ClassVar[int] = 300
    LEGEND: ClassVar[int] = 16
    """Classes that the legend names; of more, the first."""

    @property
    def dots(self) -> list[tuple[float, float, str]]:
        """Places in pixels and colors."""
        low, high = self.points.min(0), self.points.max(0)
        size = max(float((high - low).max()), 1e-9)
        at = 12 + (self.SIDE - 24) * (0.5 + (self.points - (low + high) / 2) / size)
        colors = [*self._colors(), UNKNOWN]
        return [
            (x, self.SIDE - y, colors[kind])
            for (x, y), kind in zip(at.tolist(), self.classes.tolist(), strict=True)
        ]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Colors and names."""
        names = [name[:18] for name in self.names[: self.LEGEND]]
        return list(zip(self._colors(), names, strict=False))

    def _colors(self) -> list[str]:
        return [css(color) for color in region_colors(len(self.names))[: len(self.names)]]


@dataclass(frozen=True, eq=False)
class Cloud(_Drawing):
    """Points (P, 3) mm in a camera's view; the farther ones are fainter. height: in pixels."""

    points: np.ndarray
    camera: Camera
    height: int
    description: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.camera.size(self.height)

    @property
    def dots(self) -> list[tuple[float, float, float]]:
        """Places in pixels and opacities, the farthest first."""
        x, y, depth = self.camera.project(self.points, self.size).T
        nearness = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
        order = np.argsort(depth)
        shown = (x[order].tolist(), y[order].tolist(), (0.1 + 0.8 * nearness[order]).tolist())
        return list(zip(*shown, strict=True))
