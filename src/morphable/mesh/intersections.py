"""Find self-intersections of a surface: a tree of boxes finds candidate pairs of triangles, and a
test on intervals along the common line of their planes decides (Moller 1997).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from morphable.errors import InputError

# Share of the mesh's size below which a height above a plane counts as rounding; far below what
# float32 positions resolve.
_FLAT = 1e-10
_BLOCK = 1 << 18  # pairs of boxes handled at once


def self_intersecting_faces(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the sorted rows of the triangles that pass through another triangle. Arguments and
    errors are those of `intersecting_pairs`.
    """
    return np.unique(intersecting_pairs(vertices, triangles))


def intersecting_pairs(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the pairs of triangles that pass through each other, as sorted rows i < j (P, 2).

    vertices: (V, 3), any unit. triangles: (T, 3). Only pairs without a common corner count, and
    corners at the same position are common. So a fold at an edge, a closed seam, mere touching and
    an overlap within one plane are not intersections.

    Raises InputError if a vertex is not finite.
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
    blocks = [np.zeros((0, 2), np.int64)]
    for first, second in _overlapping_boxes(corners.min(axis=1), corners.max(axis=1)):
        apart = ~(place[first][:, :, None] == place[second][:, None, :]).any(axis=(1, 2))
        first, second = first[apart], second[apart]
        hit = _cross(corners, planes, first, second, flat)
        blocks.append(np.stack([first[hit], second[hit]], axis=1))
    pairs = np.sort(np.concatenate(blocks), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _overlapping_boxes(
    low: np.ndarray, high: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs of overlapping boxes in blocks, by descending a tree of boxes with itself.

    low, high: (T, 3) corners of the boxes. The cost depends on the number of overlapping pairs, not
    on the size of the boxes. The blocks bound the memory if most boxes overlap, as they do in the
    output of a barely trained model. Empty leaves of the full tree hold an inverted box, which
    overlaps nothing.
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
        keep = a <= b  # a node paired with itself would give the pair of its halves twice
        a, b = a[keep], b[keep]
        for lows, highs in zip(*levels[level - 1], strict=True):
            keep = (lows[a] <= highs[b]) & (lows[b] <= highs[a])
            a, b = a[keep], b[keep]
        pending += [
            (level - 1, a[i : i + _BLOCK], b[i : i + _BLOCK]) for i in range(0, len(a), _BLOCK)
        ]


def _tree_order(centers: np.ndarray) -> np.ndarray:
    """Order the boxes as leaves of a full binary tree, each node split in half across its widest
    axis; -1 marks an empty leaf.
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
    """Unit normals (T, 3), zero for a triangle without area, and the planes' offsets (T,)."""
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
    """(P,) bool: each triangle straddles the other's plane, and the intervals that the two cut out
    of the planes' common line overlap.
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
    """(P,) ends of the interval of the line within a triangle: the points at which its sides cross
    the other plane.

    along, height: (P, 3) position of each corner along the line, and its height above the other
    plane.
    """
    after, next_height = np.roll(along, -1, axis=1), np.roll(height, -1, axis=1)
    cut = (height > 0) != (next_height > 0)
    share = np.divide(height, height - next_height, out=np.zeros_like(height), where=cut)
    place = along + (after - along) * share
    return np.where(cut, place, np.inf).min(axis=1), np.where(cut, place, -np.inf).max(axis=1)
