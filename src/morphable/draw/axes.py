"""Axes of charts: they map values to pixels, and choose the ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    label: with its unit. low, high: the ends of the scale, taken from the data if None. ticks: the
    values that are labeled, chosen from the scale if empty.
    """

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None
    ticks: tuple[float, ...] = ()

    def scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        """Make the scale that maps the values shown to pixels `start` to `end`."""
        known = [v for v in values if math.isfinite(v) and (v > 0 or not self.log)] or [1.0]
        low = min(known) if self.low is None else self.low
        high = max(known) if self.high is None else self.high
        if self.low is None:
            low = low / 1.15 if self.log else low - 0.04 * (high - low)
        if self.high is None:
            high = high * 1.15 if self.log else high + 0.06 * (high - low)
        if not high > low:  # all values are equal
            low, high = (low / 2, low * 2) if self.log else (low - 0.5, low + 0.5)
        return Scale(low, high, start, end, self.log)

    def labels(self, scale: Scale) -> list[tuple[float, str]]:
        """Return the places in pixels and the texts of the ticks on a scale."""
        if self.ticks:
            values = [value for value in self.ticks if scale.holds(value)]
        elif scale.log:
            values = log_ticks(scale.low, scale.high)
        else:
            values = ticks(scale.low, scale.high)
        return [(scale(value), _short(value)) for value in values]


@dataclass(frozen=True)
class Scale:
    """Maps values `low` to `high` to pixels `start` to `end`."""

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
        """Return the pixel of a value, or that of the nearest end."""
        return self(min(max(value, self.low), self.high))


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return about `count` round numbers within [low, high]. Their step is 1, 2 or 5 times a power
    of ten.

    >>> ticks(0, 1, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return at most eight round numbers within [low, high] for a logarithmic scale.

    >>> log_ticks(1, 100)
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        values = [s * 10.0**e for e in exponents for s in steps if low <= s * 10.0**e <= high]
        if len(values) <= 8:
            break
    return values if len(values) >= 2 else ticks(low, high, 4)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
