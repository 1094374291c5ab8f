"""Rasterize triangles with a z-buffer in numpy: all triangles are cut into spans of rows, and all
spans into pixels, at once.

Edge functions are those of Pineda, "A parallel algorithm for polygon rasterization", SIGGRAPH 1988.
Solving them for x gives a row's span directly, so no pixel outside a triangle is visited, and the
cost of a triangle is the number of pixels it covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ON_BORDER = 1e-6
"""A barycentric weight below this puts a point on the border of a triangle, not inside."""


@dataclass(frozen=True, eq=False)
class Visible:
    """The P covered pixels of an image and what is visible in each.

    pixel: (P,) row * width + column. triangle: (P,) the nearest triangle. weights: (P, 3)
    barycentric weights of its corners. depth: (P,) z of the surface; larger is nearer.
    """

    pixel: np.ndarray
    triangle: np.ndarray
    weights: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True, eq=False)
class _Edges:
    """Edge functions a x + b y + c, which are >= 0 inside a triangle.

    a, b, c: (T, 3); edge i runs from corner i to i + 1. doubled: (T,) twice the triangle's area.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    doubled: np.ndarray


def rasterize(points: np.ndarray, triangles: np.ndarray, width: int, height: int) -> Visible:
    """Find what is visible of triangles in an image of `width` x `height` pixels, in parallel
    projection along z.

    points: (V, 3) x to the right and y down in pixels, with the center of the first pixel at
    (0.5, 0.5), and z towards the viewer in any unit. triangles: (T, 3), of either orientation. If
    two are equally near, the later one is visible. A pixel belongs to a triangle if its center lies
    inside or on the border, so neighbors never leave a gap.
    """
    corners = np.asarray(points, np.float64)[triangles]
    edges = _edges(corners)
    triangle, pixel = _fragments(corners, edges, width, height)
    depth = _depth(corners, edges.doubled, triangle, pixel % width + 0.5, pixel // width + 0.5)

    nearest = np.full(width * height, -np.inf)
    np.maximum.at(nearest, pixel, depth)
    frontmost = depth == nearest[pixel]
    seen = np.full(width * height, -1)
    seen[pixel[frontmost]] = triangle[frontmost]

    covered = np.flatnonzero(seen >= 0)
    weights = _weights(edges, seen[covered], covered % width + 0.5, covered // width + 0.5)
    return Visible(covered, seen[covered], weights, nearest[covered])


def coverage(places: np.ndarray, triangles: np.ndarray, width: int, height: int) -> np.ndarray:
    """Count the triangles around the center of each pixel: (width * height,).

    places: (V, 2) in pixels, as for `rasterize`. A center on a border is in neither of the
    triangles that meet there, so a surface without folds covers no pixel twice.
    """
    corners = np.pad(np.asarray(places, np.float64), ((0, 0), (0, 1)))[triangles]
    edges = _edges(corners)
    triangle, pixel = _fragments(corners, edges, width, height)
    weights = _weights(edges, triangle, pixel % width + 0.5, pixel // width + 0.5)
    inside = weights.min(axis=1) > ON_BORDER
    return np.bincount(pixel[inside], minlength=width * height)


def _fragments(
    corners: np.ndarray, edges: _Edges, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a triangle and a pixel that it covers: triangles (F,) and pixels (F,)."""
    sound = np.flatnonzero(edges.doubled > 1e-9)
    triangle, row = _rows(corners[sound, :, 1], height)
    triangle = sound[triangle]
    first, last = _columns(edges, triangle, row + 0.5, width)
    count = np.maximum(0, last - first + 1)
    span = np.repeat(np.arange(len(row)), count)
    column = _ranges(count) + first[span]
    return triangle[span], row[span] * width + column


def _edges(corners: np.ndarray) -> _Edges:
    """Edge functions of (T, 3, 3) corners, with the sign that makes the inside positive.

    The two triangles at an edge get exactly opposite a, b and c, in floating point too, so no pixel
    falls between them.
    """
    x, y = corners[..., 0], corners[..., 1]
    x_next, y_next = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    a, b, c = y - y_next, x_next - x, x * y_next - x_next * y
    doubled = a[:, 0] * (x[:, 2] - x[:, 0]) + b[:, 0] * (y[:, 2] - y[:, 0])
    sign = np.where(doubled < 0, -1.0, 1.0)[:, None]
    return _Edges(a * sign, b * sign, c * sign, np.abs(doubled))


def _rows(y: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a triangle and an image row that may meet, from corner heights y (T, 3): the
    triangle numbers and the rows.
    """
    top = np.maximum(0, np.ceil(y.min(axis=1) - 0.5)).astype(np.int64)
    bottom = np.minimum(height - 1, np.floor(y.max(axis=1) - 0.5)).astype(np.int64)
    count = np.maximum(0, bottom - top + 1)
    triangle = np.repeat(np.arange(len(y)), count)
    return triangle, top[triangle] + _ranges(count)


def _columns(
    edges: _Edges, triangle: np.ndarray, y: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """First and last column of every span; first > last if the span is empty."""
    left, right = np.full(len(y), -np.inf), np.full(len(y), np.inf)
    for i in range(3):
        a = edges.a[triangle, i]
        rest = edges.b[triangle, i] * y + edges.c[triangle, i]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = -rest / a
        left = np.where(a > 0, np.maximum(left, crossing), left)
        right = np.where(a < 0, np.minimum(right, crossing), right)
        right = np.where((a == 0) & (rest < 0), -np.inf, right)
    first = np.clip(np.ceil(left - 0.5), 0, width)
    last = np.clip(np.floor(right - 0.5), -1, width - 1)
    return first.astype(np.int64), last.astype(np.int64)


def _ranges(count: np.ndarray) -> np.ndarray:
    """Concatenate 0..count[0]-1, 0..count[1]-1, ..."""
    total = int(count.sum())
    return np.arange(total) - np.repeat(np.cumsum(count) - count, count)


def _depth(
    corners: np.ndarray, doubled: np.ndarray, triangle: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """(n,) z of each triangle's plane at (x, y), clipped to the triangle's own range, because
    rounding may put a steep triangle anywhere.
    """
    across, along = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    twice = across[:, 0] * along[:, 1] - across[:, 1] * along[:, 0]
    twice = np.where(doubled > 0, twice, 1.0)
    slope_x = (across[:, 2] * along[:, 1] - along[:, 2] * across[:, 1]) / twice
    slope_y = (across[:, 0] * along[:, 2] - along[:, 0] * across[:, 2]) / twice
    base = corners[:, 0, 2] - slope_x * corners[:, 0, 0] - slope_y * corners[:, 0, 1]
    z = base[triangle] + slope_x[triangle] * x + slope_y[triangle] * y
    low, high = corners[..., 2].min(axis=1), corners[..., 2].max(axis=1)
    return np.clip(z, low[triangle], high[triangle])


def _weights(edges: _Edges, triangle: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(P, 3) barycentric weights: a corner's weight is the edge function of the opposite edge
    divided by twice the area.
    """
    values = edges.a[triangle] * x[:, None] + edges.b[triangle] * y[:, None] + edges.c[triangle]
    weights = np.maximum(0.0, np.roll(values, -1, axis=1))
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
