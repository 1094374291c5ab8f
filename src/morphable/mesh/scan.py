"""Scan: points of a surface without correspondences to a template."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morphable.errors import InputError
from morphable.mesh.align import Similarity
from morphable.mesh.topology import triangulate, vertex_normals

MIN_POINTS = 10
"""Fewer points are landmarks, not a scan."""


@dataclass(frozen=True, eq=False)
class Scan:
    """Points on a surface, in any number and order.

    points: (P, 3) mm. normals: (P, 3) unit normals that point outward, zero where unknown; None if
    none is known.

    Raises InputError if the shapes do not fit, a position is not finite or there are too few.
    """

    points: np.ndarray
    normals: np.ndarray | None = None

    def __post_init__(self) -> None:
        points = np.asarray(self.points, np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) < MIN_POINTS:
            raise InputError(
                f"scan: expected at least {MIN_POINTS} points (P, 3), got {points.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(points).all(1))
        if len(bad):
            raise InputError(
                f"scan: {len(bad)} of {len(points)} points are not finite, the first is point "
                f"{bad[0]}"
            )
        object.__setattr__(self, "points", points)
        if self.normals is not None:
            normals = np.asarray(self.normals, np.float64)
            if normals.shape != points.shape or not np.isfinite(normals).all():
                raise InputError(
                    f"scan: expected finite normals {points.shape}, got {normals.shape}"
                )
            object.__setattr__(self, "normals", normals)

    @classmethod
    def of_mesh(cls, vertices: np.ndarray, faces: np.ndarray) -> Scan:
        """The vertices (P, 3) mm of a mesh, with normals if it has faces (F, K)."""
        if not len(faces):
            return cls(vertices)
        points = np.asarray(vertices, np.float64)
        return cls(points, vertex_normals(points, triangulate(faces, points)))

    def rows(self, rows: np.ndarray) -> Scan:
        """Some of the points."""
        return Scan(self.points[rows], None if self.normals is None else self.normals[rows])

    def moved(self, map: Similarity) -> Scan:
        """The scan where a map brings it."""
        normals = None if self.normals is None else self.normals @ map.rotation.T
        return Scan(map.apply(self.points), normals)
