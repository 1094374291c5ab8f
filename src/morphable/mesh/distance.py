"""Compute distances from points to a triangle surface, and the nearest places on it (libigl finds
the triangle).
"""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np
from scipy.spatial import cKDTree

from morphable.errors import InputError

CANDIDATES = 8
"""Triangles by the nearness of their centers, among which the place of the nearest kind is sought."""
SAME_NORMAL = 1e-3
"""Unit normals that differ by less are the same."""
_SIDES = ((0, 1), (1, 2), (2, 0))


@dataclass(frozen=True, eq=False)
class ClosestPoints:
    """The nearest place on a surface for each of P points.

    face: (P,) row of the triangle that the place lies in.
    barycentric: (P, 3) weights of that triangle's corners; none is negative, each row sums to one.
    distance: (P,) distance of the point to that place, in the unit of the vertices.
    """

    face: np.ndarray
    barycentric: np.ndarray
    distance: np.ndarray


def closest_points(
    points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray
) -> ClosestPoints:
    """Find the nearest place on a surface for each point.

    points: (P, 3). vertices: (V, 3), in the same unit. triangles: (T, 3); degenerate ones do no
    harm.

    Raises InputError if there is no triangle, or a point or vertex is not finite.
    """
    points, vertices, triangles = _checked(points, vertices, triangles)
    face = igl.point_mesh_squared_distance(points, vertices, triangles)[1]
    weights, distance = _nearest_in(points, vertices[triangles[face]])
    return ClosestPoints(face, weights, distance)


def closest_alike(
    points: np.ndarray,
    normals: np.ndarray,
    vertices: np.ndarray,
    vertex_normals: np.ndarray,
    triangles: np.ndarray,
    length: float,
) -> ClosestPoints:
    """Find the place on a surface that is nearest in position and normal, for each point: the least
    of |p - q|^2 + length^2 |n_p - n_q|^2 over the places q, with normals n_q interpolated between
    the vertices. The search is over the nearest place and the triangles around.

    points: (P, 3), with unit normals (P, 3). vertices: (V, 3), in the same unit, with unit normals
    (V, 3). triangles: (T, 3). length: in that unit, how far apart places with opposite normals
    count as, divided by two. The distance of the result is the root of that least sum.

    Raises InputError if there is no triangle, or a point or vertex is not finite.
    """
    points, vertices, triangles = _checked(points, vertices, triangles)
    own = np.concatenate([points, length * normals], 1)
    surface = np.concatenate([vertices, length * vertex_normals], 1)
    nearest = igl.point_mesh_squared_distance(points, vertices, triangles)[1]
    count = min(CANDIDATES, len(triangles))
    around = cKDTree(surface[triangles].mean(1)).query(own, count)[1].reshape(len(points), count)
    tried = np.concatenate([nearest.reshape(-1, 1), around], 1)  # (P, K)
    weights, apart = _nearest_in(
        np.repeat(own, count + 1, axis=0), surface[triangles[tried.ravel()]]
    )
    apart = apart.reshape(tried.shape)
    best, row = np.argmin(apart, axis=1), np.arange(len(points))
    found = weights.reshape(*tried.shape, 3)[row, best]
    return ClosestPoints(tried[row, best], found, apart[row, best])


def balanced_length(apart: np.ndarray, turned: np.ndarray) -> float:
    """The `length` of `closest_alike` with which normals count as much as positions, in the unit of
    the positions: the ratio of the medians of what they differ by.

    apart, turned: (P,) lengths of the differences of positions and of unit normals at matched
    places.
    """
    return float(np.median(apart)) / max(float(np.median(turned)), SAME_NORMAL)


def point_to_surface(points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Compute the distance (P,) of each point to a surface, in the unit of the vertices.

    points: (P, 3). vertices: (V, 3). triangles: (T, 3).

    Raises InputError if there is no triangle, or a point or vertex is not finite.
    """
    points, vertices, triangles = _checked(points, vertices, triangles)
    squared = igl.point_mesh_squared_distance(points, vertices, triangles)[0]
    return np.sqrt(np.maximum(squared, 0))


def surface_distance(
    vertices_a: np.ndarray, vertices_b: np.ndarray, triangles: np.ndarray
) -> float:
    """Compute the mean vertex-to-surface distance between two shapes (V, 3) of the same topology,
    averaged over both directions.

    Vertices that no triangle uses are on neither surface and are left out. Raises InputError as
    `point_to_surface`.
    """
    used = np.unique(triangles)
    forth = point_to_surface(vertices_a[used], vertices_b, triangles).mean()
    back = point_to_surface(vertices_b[used], vertices_a, triangles).mean()
    return float(forth + back) / 2


def _checked(
    points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, ...]:
    if len(triangles) == 0:
        raise InputError("surface: expected at least one triangle, got none")
    for name, value in (("points", points), ("vertices", vertices), ("triangles", triangles)):
        if value.ndim != 2 or value.shape[1] != 3:
            raise InputError(f"surface {name}: expected shape (n, 3), got {value.shape}")
        if not np.isfinite(value).all():
            raise InputError(f"surface {name}: expected finite numbers, got NaN or infinity")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise InputError(f"surface triangles: indices must lie in 0..{len(vertices) - 1}")
    exact = np.float64
    return (
        np.ascontiguousarray(points, exact),
        np.ascontiguousarray(vertices, exact),
        np.ascontiguousarray(triangles, np.int64),
    )


def _nearest_in(points: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (P, 3) and distances (P,) of the nearest place of one triangle for each point.

    points: (P, D). corners: (P, 3, D).
    """
    weights = _candidate_weights(points, corners)
    places = np.einsum("kpc,pcx->kpx", weights, corners)
    distance = np.linalg.norm(places - points, axis=2)
    best, row = np.argmin(distance, axis=0), np.arange(len(points))
    return weights[best, row], distance[best, row]


def _candidate_weights(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(4, P, 3) valid corner weights of four candidates: the nearest place on each of the three
    sides, and the foot of the perpendicular.

    The nearest place of the triangle is always one of the four, and each lies in the triangle by
    construction, so taking the nearest needs neither cases nor tolerances. If the foot falls
    outside, or the triangle has no area, the candidate of the first side is repeated.
    """
    weights = np.zeros((4, len(points), 3))
    for side, (i, j) in enumerate(_SIDES):
        along = corners[:, j] - corners[:, i]
        length2 = np.einsum("px,px->p", along, along)
        dot = np.einsum("px,px->p", points - corners[:, i], along)
        share = np.clip(dot / np.where(length2 > 0, length2, 1), 0, 1)
        weights[side, :, i], weights[side, :, j] = 1 - share, share
    ab, ac, ap = (
        corners[:, 1] - corners[:, 0],
        corners[:, 2] - corners[:, 0],
        points - corners[:, 0],
    )
    bb, bc, cc = (np.einsum("px,px->p", x, y) for x, y in ((ab, ab), (ab, ac), (ac, ac)))
    pb, pc = (np.einsum("px,px->p", ap, x) for x in (ab, ac))
    area2 = bb * cc - bc**2
    safe = np.where(area2 > 0, area2, 1)
    b, c = (cc * pb - bc * pc) / safe, (bb * pc - bc * pb) / safe
    foot = np.stack([1 - b - c, b, c], axis=1)
    inside = (area2 > 0) & (foot >= 0).all(axis=1)
    weights[3] = np.where(inside[:, None], foot, weights[0])
    return weights
