"""Where a surface passes through itself: a box tree finds candidates, intervals on a line decide
(Moller 1997).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from morphable.errors import InputError

_FLAT = 1e-10  # of the size of the mesh: heights below are rounding, and far below what float32 positions resolve
_BLOCK = 1 << 18  # pairs of boxes handled at once


def self_intersecting_faces(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Sorted rows of the triangles that pass through another one; arguments and errors as
    `intersecting_pairs`.
    """
    return np.unique(intersecting_pairs(vertices, triangles))


def intersecting_pairs(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(P, 2) rows i < j, sorted, of the triangles that pass through each other.

    Only pairs without a common corner count, and corners at one position are common: a fold at an
    edge or a closed seam is no intersection, nor is mere touching, nor an overlap within one plane.
    vertices: (V, 3); triangles: (T, 3). Raises InputError where a vertex is not finite.
    """
    if not np.isfinite(vertices).all():
        raise InputError("self-intersection: expected finite vertices, got NaN or infinity")
    if len(triangles) < 2:
        return np.zeros((0, 2), np.int64)
    corners = np.asarray(vertices, np.float64)[triangles]
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    corners -= (low + high) / 2
    place = np.unique(vertices, axis=0, return_inverse=True)[1].reshape(-1)[triangles]
    flat = _FLAT * float(np.linalg.norm(high - low))
    planes = _planes(corners)
    found = [np.zeros((0, 2), np.int64)]
    for first, second in _overlapping_boxes(corners.min(axis=1), corners.max(axis=1)):
        apart = ~(place[first][:, :, None] == place[second][:, None, :]).any(axis=(1, 2))
        first, second = first[apart], second[apart]
        hit = _cross(corners, planes, first, second, flat)
        found.append(np.stack([first[hit], second[hit]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _overlapping_boxes(
    low: np.ndarray, high: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of boxes (T, 3), (T, 3) that overlap, block by block, by descending a tree of boxes
    against itself.

    A large box costs only the pairs it truly has, and the blocks bound the memory where most boxes
    overlap, as in the first meshes of a model in training. Empty leaves of the full tree hold an
    inverted box, which overlaps nothing.
    """
    order = _tree_order((low + high) / 2)
    empty = order[:, None] < 0
    levels = [(np.where(empty, np.inf, low[order]).T, np.where(empty, -np.inf, high[order]).T)]
    while levels[-1][0].shape[1] > 1:
        lows, highs = levels[-1]
        levels.append(
            (np.minimum(lows[:, 0::2], lows[:, 1::2]), np.maximum(highs[:, 0::2], highs[:, 1::2]))
        )
    root: np.ndarray = np.zeros(1, np.int64)
    pending = [(len(levels) - 1, root, root)]
    while pending:
        level, a, b = pending.pop()
        if level == 0:
            yield order[a[a < b]], order[b[a < b]]
            continue
        a, b = (2 * a[:, None] + [0, 0, 1, 1]).ravel(), (2 * b[:, None] + [0, 1, 0, 1]).ravel()
        keep = a <= b  # a node against itself would give its two halves twice
        a, b = a[keep], b[keep]
        for lows, highs in zip(*levels[level - 1], strict=True):
            keep = (lows[a] <= highs[b]) & (lows[b] <= highs[a])
            a, b = a[keep], b[keep]
        pending += [
            (level - 1, a[i : i + _BLOCK], b[i : i + _BLOCK]) for i in range(0, len(a), _BLOCK)
        ]


def _tree_order(centers: np.ndarray) -> np.ndarray:
    """The boxes as leaves of a full binary tree whose nodes halve across their widest axis; -1
    marks an empty leaf.
    """
    count = len(centers)
    leaves = 1 << (count - 1).bit_length()
    order = np.arange(leaves)[None]
    centers = np.concatenate([centers, np.broadcast_to(centers[0], (leaves - count, 3))])
    while order.shape[1] > 1:
        blocks = centers[order]
        widest = np.ptp(blocks, axis=1).argmax(axis=1)
        keys = np.take_along_axis(blocks, widest[:, None, None], axis=2)[:, :, 0]
        half = order.shape[1] // 2
        order = np.take_along_axis(order, np.argpartition(keys, half, axis=1), axis=1).reshape(
            -1, half
        )
    order = order.ravel()
    return np.where(order < count, order, -1)


def _planes(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (T, 3), zero without area, and their products (T,) with a point of the plane."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    return normal, np.einsum("tx,tx->t", normal, corners[:, 0])


def _cross(
    corners: np.ndarray,
    planes: tuple[np.ndarray, np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
    flat: float,
) -> np.ndarray:
    """(P,) bool: each triangle straddles the other's plane, and what both cut out of the common
    line overlaps.
    """
    normal, offset = planes

    def heights(of: np.ndarray, over: np.ndarray) -> np.ndarray:
        return np.einsum("pcx,px->pc", corners[of], normal[over]) - offset[over][:, None]

    def straddles(height: np.ndarray) -> np.ndarray:
        return (height.max(axis=1) > flat) & (height.min(axis=1) < -flat)

    hit = np.flatnonzero(straddles(heights(first, second)))
    hit = hit[straddles(heights(second[hit], first[hit]))]
    one, other = first[hit], second[hit]
    line = np.cross(normal[one], normal[other])
    one_low, one_high = _interval(np.einsum("pcx,px->pc", corners[one], line), heights(one, other))
    other_low, other_high = _interval(
        np.einsum("pcx,px->pc", corners[other], line), heights(other, one)
    )
    overlap = np.minimum(one_high, other_high) - np.maximum(one_low, other_low)
    crossing = np.zeros(len(first), bool)
    crossing[hit] = overlap > flat * np.linalg.norm(line, axis=1)
    return crossing


def _interval(along: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) ends of the stretch of line within a triangle: where the sides that change the sign of
    `height` do so.

    along, height: (P, 3) position along the line and height over the other plane of each corner.
    """
    after, next_height = np.roll(along, -1, axis=1), np.roll(height, -1, axis=1)
    cut = (height > 0) != (next_height > 0)
    share = np.divide(height, height - next_height, out=np.zeros_like(height), where=cut)
    place = along + (after - along) * share
    return np.where(cut, place, np.inf).min(axis=1), np.where(cut, place, -np.inf).max(axis=1)
