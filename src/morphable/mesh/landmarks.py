"""Landmarks: the positions of a few vertices of a template."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morphable.errors import InputError


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Where a few vertices of a template lie in one or several shapes.

    vertices: (K,) numbers of template vertices, each once. positions: (K, 3) or, for B shapes, (B,
    K, 3) mm.

    Raises InputError if the shapes do not fit, a vertex is listed twice or a position is not
    finite.
    """

    vertices: np.ndarray
    positions: np.ndarray

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices)
        positions = np.asarray(self.positions, np.float64)
        if vertices.ndim != 1 or not np.issubdtype(vertices.dtype, np.integer):
            raise InputError(
                f"landmarks: expected vertex numbers (K,), got {vertices.dtype} {vertices.shape}"
            )
        if positions.shape[-2:] != (len(vertices), 3) or positions.ndim not in (2, 3):
            raise InputError(
                f"landmarks: expected positions ({len(vertices)}, 3), one per vertex, got "
                f"{positions.shape}"
            )
        numbers, counts = np.unique(vertices, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"landmarks: vertex {numbers[counts > 1][0]} is listed twice")
        if not np.isfinite(positions).all():
            raise InputError("landmarks: a position is not finite")
        object.__setattr__(self, "vertices", vertices.astype(np.int64))
        object.__setattr__(self, "positions", positions)

    @classmethod
    def none(cls) -> Landmarks:
        return cls(np.zeros(0, np.int64), np.zeros((0, 3)))

    def check(self, n_vertices: int) -> None:
        """Raise InputError if a vertex is outside a template of `n_vertices`."""
        wrong = self.vertices[(self.vertices < 0) | (self.vertices >= n_vertices)]
        if len(wrong):
            raise InputError(
                f"landmarks: there is no vertex {wrong[0]}, the model's template has "
                f"{n_vertices:,}; are they of another template?"
            )
