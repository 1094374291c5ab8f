"""Charts as values: lines, marks, scatters, bars and clouds of points. Each computes its layout in
pixels, and templates/charts.html draws it as inline SVG.

Why not matplotlib's SVG: it looks as good on white, but its colors are fixed when it is drawn. On a
dark page its labels and legends fade into the background, whereas these charts take their colors
from the page. It also takes four to eight times as many bytes (16 to 22 kB for charts of 2 to 6
kB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from morphable.draw.axes import Axis, Scale
from morphable.draw.blocks import Block
from morphable.draw.camera import Camera
from morphable.draw.colors import UNKNOWN, css, region_colors
from morphable.draw.numbers import number

LETTER = 6.9
"""Mean width of a letter in pixels, to estimate the width of a text."""

LEGEND, ROW = 20, 18
"""The lowest line of a chart's legend, in pixels from its top, and the distance of its lines."""
SWATCH, BETWEEN = 24, 16
"""Pixels before a name in a legend, and between two of them."""

Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Series:
    """One line or cloud of a chart.

    x, y: (n,). color: the number of one of the page's chart colors: 0 model, 1 PCA, 2 mean shape, 3
    and more for others. spread: (n, 2) low and high ends of the error bars of marks. A series
    without a name is left out of the legend.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    kind: Literal["line", "points", "mark"] = "line"
    color: int = 0
    spread: np.ndarray | None = None

    def finite(self) -> Series:
        """Return the series without points that have a coordinate that is not finite."""
        x, y = np.asarray(self.x, float), np.asarray(self.y, float)
        keep = np.isfinite(x) & np.isfinite(y)
        spread = None if self.spread is None else np.asarray(self.spread, float)[keep]
        return Series(self.name, x[keep], y[keep], self.kind, self.color, spread)


@dataclass(frozen=True)
class Mark:
    """A diamond. bar: the ends of its error bar in pixels; None if it has none."""

    x: float
    y: float
    bar: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Shown:
    """A series in pixels.

    points: those of a line or cloud. marks: those of a series of marks. legend: where its name
    starts, and the line that it stands on; None if it has no name.
    """

    name: str
    kind: str
    color: int
    points: list[Point]
    marks: list[Mark]
    legend: Point | None


@dataclass(frozen=True)
class Plot:
    """A chart in pixels. guides: dashed lines. top: the upper edge, negative if the legend has
    several rows.
    """

    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    guides: list[list[Point]]
    series: list[Shown]
    top: float


class _Drawing(Block):
    """A block whose macro is in charts.html."""

    template: ClassVar[str] = "charts.html"


@dataclass(frozen=True, eq=False)
class Chart(_Drawing):
    """Series over two axes.

    description: text for those who cannot see it. diagonal: whether to draw the line y = x.
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
    """Edges of the plot within the picture; labels and legend are outside them."""

    @cached_property
    def plot(self) -> Plot:
        """The chart in pixels."""
        series = [item.finite() for item in self.series]
        spreads = [item.spread.ravel() for item in series if item.spread is not None]
        x = self.x.scale(_all([item.x for item in series]), self.LEFT, self.RIGHT)
        y = self.y.scale(_all([*(item.y for item in series), *spreads]), self.BOTTOM, self.TOP)
        starts = _legend_starts(series, self.LEFT, self.RIGHT)
        shown = [_shown(item, x, y, start) for item, start in zip(series, starts, strict=True)]
        guides = _diagonal(x, y) if self.diagonal else []
        top = min([LEGEND, *(start[1] for start in starts if start)]) - LEGEND
        return Plot(self.x.labels(x), self.y.labels(y), guides, shown, top)


def _diagonal(x: Scale, y: Scale) -> list[list[Point]]:
    """Return the line y = x if the axes have values in common."""
    low, high = max(x.low, y.low), min(x.high, y.high)
    return [[(x(end), y(end)) for end in (low, high)]] if low < high else []


def _all(values: Sequence[Sequence[float] | np.ndarray]) -> list[float]:
    return [float(value) for part in values for value in part]


def _legend_starts(series: Sequence[Series], left: float, right: float) -> list[Point | None]:
    """Return where each name starts in the rows above the plot, the last of which is next to it;
    None for a series without a name.
    """
    places: list[tuple[float, int]] = []
    at, row = left, 0
    for item in series:
        length = SWATCH + _width(item.name) if item.name else 0.0
        if at > left and at + length > right:
            at, row = left, row + 1
        places.append((at, row))
        at += length + BETWEEN if item.name else 0.0
    return [
        (start, LEGEND - ROW * (row - number)) if item.name else None
        for item, (start, number) in zip(series, places, strict=True)
    ]


def _width(text: str) -> float:
    """About how many pixels wide a text is in a legend."""
    return LETTER * (len(text) + 0.5 * sum(letter in "mwMW" for letter in text))


def _shown(item: Series, x: Scale, y: Scale, legend: Point | None) -> Shown:
    pairs = list(zip(_all([item.x]), _all([item.y]), strict=True))
    # Points outside a fixed scale are left out, not drawn over the labels.
    inside = [row for row, (a, b) in enumerate(pairs) if x.holds(a) and y.holds(b)]
    points = [(x(pairs[row][0]), y(pairs[row][1])) for row in inside]
    if item.kind != "mark":
        return Shown(item.name, item.kind, item.color, points, [], legend)
    marks = []
    for row, (across, up) in zip(inside, points, strict=True):
        bar = None
        if item.spread is not None:
            low, high = item.spread[row].tolist()
            bar = y.clipped(low), y.clipped(high)
        marks.append(Mark(across, up, bar, f"{item.name}: {number(pairs[row][1])}"))
    return Shown(item.name, item.kind, item.color, [], marks, legend)


@dataclass(frozen=True)
class Bar:
    """A bar. color: the number of one of the page's chart colors. whiskers: their ends; None if it
    has none.
    """

    name: str
    color: int
    value: float
    text: str
    whiskers: tuple[float, float] | None = None

    @property
    def end(self) -> float:
        """Where the bar and its whiskers end."""
        return self.value if self.whiskers is None else max(self.value, self.whiskers[1])


@dataclass(frozen=True)
class Bars(_Drawing):
    """Horizontal bars, each with its name before it and its text after it."""

    bars: Sequence[Bar]
    description: str

    @property
    def left(self) -> float:
        """Pixels left of the bars, enough for the longest name."""
        return 24 + max(_width(bar.name) for bar in self.bars)

    @property
    def per_unit(self) -> float:
        """Pixels per unit, if 90 pixels are left for the texts."""
        longest = max(bar.end for bar in self.bars)
        return (500 - 90 - self.left) / (longest or 1.0)


@dataclass(frozen=True, eq=False)
class Scatter(_Drawing):
    """Points (N, 2), with equal units on both axes, colored by class (N,), and a legend.

    Class -1 means that the class is not known; its points are gray.
    """

    points: np.ndarray
    classes: np.ndarray
    names: Sequence[str]
    description: str

    SIDE: ClassVar[int] = 300
    LEGEND: ClassVar[int] = 16
    """The legend names at most this many classes, the first ones."""

    @property
    def dots(self) -> list[tuple[float, float, str]]:
        """Places in pixels and colors."""
        low, high = self.points.min(0), self.points.max(0)
        size = max(float((high - low).max()), 1e-9)
        at = 12 + (self.SIDE - 24) * (0.5 + (self.points - (low + high) / 2) / size)
        colors = [*self._colors(), UNKNOWN]  # the last one is also that of class -1
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
    """Points (P, 3) mm as a camera sees them; farther ones are fainter. height: in pixels."""

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
        """Places in pixels and opacities, the farthest first, so that near points cover far
        ones.
        """
        x, y, depth = self.camera.project(self.points, self.size).T
        nearness = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
        order = np.argsort(depth)
        shown = (x[order].tolist(), y[order].tolist(), (0.1 + 0.8 * nearness[order]).tolist())
        return list(zip(*shown, strict=True))
