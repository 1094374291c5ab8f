"""Colors of surfaces: a scale for distances, one color per region, and how a page names them."""

from __future__ import annotations

import matplotlib
import numpy as np

from morphable.draw.numbers import round_up
from morphable.errors import InputError

HEAT_MAP = "magma_r"
HEAT_RANGE = (0.03, 0.86)
"""The part of the color map that is used: its ends are too near to white and black to show a shape.
"""
UNKNOWN = "rgb(150,150,150)"
"""The color, as CSS, of what belongs to no class."""


def heat_colors(distances: np.ndarray, limit_mm: float) -> np.ndarray:
    """(V, 3) sRGB 0..1 of distances (V,) mm: light at 0, dark from `limit_mm` on; lightness falls
    evenly.

    Raises InputError if the limit is not a positive number.
    """
    if not (np.isfinite(limit_mm) and limit_mm > 0):
        raise InputError(f"limit_mm: expected a positive number of millimeters, got {limit_mm}")
    low, high = HEAT_RANGE
    share = np.clip(np.asarray(distances, np.float64) / limit_mm, 0, 1)
    return matplotlib.colormaps[HEAT_MAP](low + (high - low) * share)[..., :3]


def scale_end(values: np.ndarray) -> float:
    """The end of a color scale: a round number above 98 % of the values."""
    return round_up(float(np.percentile(values, 98)))


def region_colors(count: int) -> np.ndarray:
    """(count, 3) sRGB 0..1: colors in which neighbors in the list differ."""
    number = np.arange(max(count, 1))
    return matplotlib.colormaps["tab20"](number * 2 % 20 + number // 10 % 2)[:, :3]


def css(color: np.ndarray) -> str:
    """An sRGB color 0..1 as CSS.

    >>> css(np.array([1, 0.5, 0]))
    'rgb(255,128,0)'
    """
    red, green, blue = np.round(255 * color).astype(int)
    return f"rgb({red},{green},{blue})"
