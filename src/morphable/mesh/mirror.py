"""The mirror map of a template: for each vertex the one on the other side, found from its shape."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from morphable.errors import InputError
from morphable.mesh.topology import edges

TOLERANCE = 0.5
"""A template is symmetric if nearly all vertices lie within this share of the median edge length of
the mirror image of another.
"""
SYMMETRIC = 0.98
MAX_ASSIGNED = 3000
"""Vertices that are assigned by a search over all pairs."""


def mirror_map(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Find the vertex that mirrors each vertex across the plane x = 0, (V,): an involution.

    vertices: (V, 3), whose symmetry plane lies at about x = const; its place is estimated. Pairs
    that choose each other as nearest to the mirror image are taken; what is left is assigned by
    least total distance, and mirrored onto itself in the middle.

    Raises InputError if the shape is not symmetric about such a plane.
    """
    points = np.asarray(vertices, np.float64)
    length = float(np.median(np.linalg.norm(np.diff(points[edges(faces)], axis=1)[:, 0], axis=-1)))
    points = points - [_plane(points), 0, 0]
    tree = cKDTree(points)
    image = points * [-1, 1, 1]
    distance, nearest = tree.query(image)
    close = float((distance < TOLERANCE * length).mean())
    if close < SYMMETRIC:
        raise InputError(
            f"the template is not symmetric about a plane x = const: of {100 * (1 - close):.0f} % "
            "of its vertices the mirror image lies off every vertex"
        )
    mirror = np.full(len(points), -1, np.int64)
    own = np.arange(len(points))
    mutual = nearest[nearest] == own
    mirror[mutual] = nearest[mutual]
    rest = np.flatnonzero(mirror < 0)
    if len(rest) > MAX_ASSIGNED:
        raise InputError(
            f"the template is not symmetric: {len(rest)} vertices have no mirror image"
        )
    if len(rest):
        cost = np.linalg.norm(image[rest][:, None] - points[rest][None], axis=-1)
        # A pair costs the same in both directions, so the least assignment can be made mutual.
        rows, columns = linear_sum_assignment(cost + cost.T)
        chosen = np.empty(len(rest), np.int64)
        chosen[rows] = columns
        both = chosen[chosen] == np.arange(len(rest))
        mirror[rest[both]] = rest[chosen[both]]
        mirror[rest[~both]] = rest[~both]
    return mirror


def _plane(points: np.ndarray, rounds: int = 5) -> float:
    """The x of the symmetry plane: the middle of each vertex and the one nearest to its image."""
    x = float(np.median([points[:, 0].min(), points[:, 0].max()]))
    tree = cKDTree(points)
    for _ in range(rounds):
        image = points * [-1, 1, 1] + [2 * x, 0, 0]
        nearest = tree.query(image)[1]
        # The image of a vertex has x' = 2 x - x; the best x is half the sum with its partner.
        x = float(np.median((points[:, 0] + points[nearest, 0]) / 2))
    return x
