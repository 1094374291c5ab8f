"""Colors of surfaces: a scale for distances, one color per region, and colors as CSS."""

from __future__ import annotations

import matplotlib
import numpy as np

from morphable.draw.numbers import round_up
from morphable.errors import InputError

HEAT_MAP = "magma_r"
HEAT_RANGE = (0.03, 0.86)
"""The part of the color map that is used. Near its ends, which are almost white and black, shading
could not be seen.
"""
UNDYED = np.full(3, 0.86)
"""The color of a vertex that does not belong to the part that is shown."""
UNKNOWN = "rgb(150,150,150)"
"""The color of points without a class, as CSS."""


def heat_colors(distances: np.ndarray, limit_mm: float) -> np.ndarray:
    """Return colors (V, 3) sRGB 0..1 for distances (V,) mm: light at 0, evenly darker up to
    `limit_mm`, and the darkest beyond it; gray where the distance is NaN, not known.

    Raises InputError if the limit is not a positive number.
    """
    if not (np.isfinite(limit_mm) and limit_mm > 0):
        raise InputError(f"limit_mm: expected a positive number of millimeters, got {limit_mm}")
    low, high = HEAT_RANGE
    share = np.clip(np.asarray(distances, np.float64) / limit_mm, 0, 1)
    colors = matplotlib.colormaps[HEAT_MAP](low + (high - low) * np.nan_to_num(share))[..., :3]
    colors[np.isnan(share)] = UNDYED
    return colors


def scale_end(values: np.ndarray) -> float:
    """Return the end of a color scale: a round number above 98 % of the values."""
    return round_up(float(np.percentile(values, 98)))


def region_colors(count: int) -> np.ndarray:
    """Return colors (count, 3) sRGB 0..1 in an order in which neighbors differ clearly."""
    # tab20 has pairs of a dark and a light color: take the ten dark ones first.
    number = np.arange(max(count, 1))
    return matplotlib.colormaps["tab20"](number * 2 % 20 + number // 10 % 2)[:, :3]


def css(color: np.ndarray) -> str:
    """Return an sRGB color 0..1 as CSS.

    >>> css(np.array([1, 0.5, 0]))
    'rgb(255,128,0)'
    """
    red, green, blue = np.round(255 * color).astype(int)
    return f"rgb({red},{green},{blue})"


def mixed_colors(weights: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Return colors (V, 3) that mix K colors (K, 3) by the weights (V, K) of each vertex, whose
    sum is one.

    >>> mixed_colors(np.array([[0.5, 0.5]]), np.array([[1.0, 0, 0], [0, 0, 1]])).tolist()
    [[0.5, 0.0, 0.5]]
    """
    return np.asarray(weights, np.float64) @ colors


def share_colors(shares: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Return colors (V, 3) from light gray, if a share (V,) is 0, to a color (3,), if it is 1."""
    shares = np.asarray(shares, np.float64)
    return mixed_colors(np.stack([shares, 1 - shares], 1), np.stack([color, UNDYED]))
