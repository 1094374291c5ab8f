"""Mesh: vertex positions and faces as one frozen value. The vertex order never changes, because it
defines the correspondence between meshes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morphable.errors import InputError
from morphable.mesh.topology import triangulate


@dataclass(frozen=True, eq=False)
class Mesh:
    """A polygon mesh.

    vertices: (V, 3) float64 or float32, millimeters, right-handed, y up.
    faces: (F, K) int64, K the corners of the largest polygon; a polygon with fewer corners ends in
        -1, so a triangle among quads has -1 as its fourth entry.

    Raises InputError if a shape is wrong, a position is not finite or an index is outside 0..V-1.
    """

    vertices: np.ndarray
    faces: np.ndarray

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices)
        faces = np.asarray(self.faces)
        if vertices.ndim != 2 or vertices.shape[1] != 3:
            raise InputError(f"mesh vertices: expected shape (V, 3), got {vertices.shape}")
        if not np.issubdtype(vertices.dtype, np.floating):
            vertices = vertices.astype(np.float64)
        if faces.size == 0:
            faces = faces.reshape(0, 3)
        if faces.ndim != 2 or faces.shape[1] < 3 or not np.issubdtype(faces.dtype, np.integer):
            raise InputError(
                "mesh faces: expected integers of shape (F, K) with K of at least 3, got "
                f"{faces.dtype} {faces.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(vertices).all(axis=1))
        if len(bad):
            raise InputError(
                f"mesh vertices: {len(bad)} of {len(vertices)} are not finite, the first is vertex "
                f"{bad[0]}"
            )
        lowest = faces[:, :3].min(initial=0)
        if faces.shape[1] > 3:  # -1 is allowed here, but no corner may follow it
            lowest = min(lowest, faces[:, 3:].min(initial=0) + 1)
            if ((faces[:, 4:] >= 0) & (faces[:, 3:-1] < 0)).any():
                raise InputError("mesh faces: a corner follows the -1 that ends its polygon")
        if lowest < 0 or faces.max(initial=-1) >= len(vertices):
            raise InputError(
                f"mesh faces: indices must lie in 0..{len(vertices) - 1}, got "
                f"{faces.min()}..{faces.max()}"
            )
        # Views are made read-only, not the caller's arrays.
        for name, value in (("vertices", vertices), ("faces", faces.astype(np.int64))):
            value = value.view()
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @property
    def triangles(self) -> np.ndarray:
        """(T, 3) int64 faces with every larger polygon split, a quad along its shorter diagonal."""
        return triangulate(self.faces, self.vertices)

    def moved(self, vertices: np.ndarray) -> Mesh:
        """Return a mesh of the same topology at other positions (V, 3), mm."""
        if vertices.shape != self.vertices.shape:
            raise InputError(
                f"vertices: expected {self.vertices.shape} to match the topology, got "
                f"{vertices.shape}"
            )
        return Mesh(vertices, self.faces)
