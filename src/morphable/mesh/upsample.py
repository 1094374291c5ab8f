"""The map from a coarse level to a finer one: every fine vertex is carried by the triangle it lies
nearest to.

Ranjan et al., ECCV 2018, with true barycentric coordinates of the nearest place instead of their
unconstrained least squares, whose weights depend on where the origin is and reach four in size.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from morphable.errors import InputError
from morphable.mesh.distance import closest_points

NEGLIGIBLE = 1e-12
"""Weights below this are rounding, not geometry, and are not stored."""


def up_map(
    points: np.ndarray,
    coarse_vertices: np.ndarray,
    coarse_triangles: np.ndarray,
    kept: np.ndarray | None = None,
) -> sp.csr_matrix:
    """(n, n') weights that carry values at coarse vertices to `points`; none is negative and every
    row sums to one.

    points: (n, 3). coarse_vertices: (n', 3), same unit. coarse_triangles: (F', 3). kept: (n',) the
    point that each coarse vertex is, where the coarse level is a selection of the points: those
    rows are exactly one on that vertex, even where another coarse vertex lies in the same place.

    Raises InputError where there is no triangle, or `kept` does not fit.
    """
    nearest = closest_points(points, coarse_vertices, coarse_triangles)
    weights = np.where(nearest.barycentric > NEGLIGIBLE, nearest.barycentric, 0)
    columns = np.asarray(coarse_triangles, np.int64)[nearest.face]
    if kept is not None:
        if kept.shape != (len(coarse_vertices),) or kept.min() < 0 or kept.max() >= len(points):
            raise InputError(
                f"kept: expected one index below {len(points)} for each of {len(coarse_vertices)} vertices"
            )
        columns[kept, 0] = np.arange(len(kept))
        weights[kept] = (1, 0, 0)
    rows = np.repeat(np.arange(len(points)), 3)
    weights /= weights.sum(axis=1, keepdims=True)
    stored = weights.ravel() > 0
    entries = (weights.ravel()[stored], (rows[stored], columns.ravel()[stored]))
    return sp.csr_matrix(entries, shape=(len(points), len(coarse_vertices)))
