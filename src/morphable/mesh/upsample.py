"""The map from a coarse level to a finer one: every fine vertex is interpolated from the nearest
coarse triangle.

This follows Ranjan et al., ECCV 2018, except that it uses the barycentric coordinates of the
nearest place. Their unconstrained least squares give weights that depend on the position of the
origin and reach an absolute value of four.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from morphable.errors import InputError
from morphable.mesh.distance import closest_points

NEGLIGIBLE = 1e-12
"""Weights up to this are rounding errors and are not stored."""


def up_map(
    points: np.ndarray,
    coarse_vertices: np.ndarray,
    coarse_triangles: np.ndarray,
    kept: np.ndarray | None = None,
) -> sp.csr_matrix:
    """Compute the weights (n, n') that interpolate values at coarse vertices to `points`. No weight
    is negative, and every row sums to one.

    points: (n, 3). coarse_vertices: (n', 3), in the same unit. coarse_triangles: (F', 3). kept:
    (n',) if the coarse level is a subset of the points, the index of each coarse vertex among them;
    the row of such a point is exactly one on its vertex, even if another coarse vertex has the same
    position.

    Raises InputError if there is no triangle, or `kept` does not fit.
    """
    nearest = closest_points(points, coarse_vertices, coarse_triangles)
    weights = np.where(nearest.barycentric > NEGLIGIBLE, nearest.barycentric, 0)
    columns = np.asarray(coarse_triangles, np.int64)[nearest.face]
    if kept is not None:
        if kept.shape != (len(coarse_vertices),) or kept.min() < 0 or kept.max() >= len(points):
            raise InputError(
                f"kept: expected one index below {len(points)} for each of "
                f"{len(coarse_vertices)} vertices"
            )
        columns[kept, 0] = np.arange(len(kept))
        weights[kept] = (1, 0, 0)
    rows = np.repeat(np.arange(len(points)), 3)
    weights /= weights.sum(axis=1, keepdims=True)
    stored = weights.ravel() > 0
    entries = (weights.ravel()[stored], (rows[stored], columns.ravel()[stored]))
    return sp.csr_matrix(entries, shape=(len(points), len(coarse_vertices)))
