"""MeshGeometry: the hierarchy of a template, its spirals, and learned maps that were folded to
constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from morphable.errors import InputError
from morphable.mesh.hierarchy import Hierarchy, build_hierarchy
from morphable.mesh.spirals import PADDING, reference_spirals, ring_spirals
from morphable.mesh.stored_arrays import stored_indices, stored_sparse
from morphable.mesh.template import Template
from morphable.models.geometry import Arrays, Geometry, prefixed, under

SPIRAL_RINGS = (2, 2, 1, 1, 1)
"""Rings of SpiralNet's spirals per level, and the dilation, which are equal as published."""


@dataclass(frozen=True, eq=False)
class FoldedMaps:
    """Trained maps between the levels, as constant matrices in order of levels.

    down: one (n_{i+1}, n_i) matrix per step. up: one (n_i, n_{i+1}) matrix per step. None for a
    step that keeps its map.
    """

    down: tuple[sp.csr_matrix | None, ...]
    up: tuple[sp.csr_matrix | None, ...]

    def to_arrays(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for side, maps in (("down", self.down), ("up", self.up)):
            for step, matrix in enumerate(maps):
                if matrix is not None:
                    arrays |= {
                        f"{side}/{step}/data": matrix.data,
                        f"{side}/{step}/indices": matrix.indices,
                        f"{side}/{step}/indptr": matrix.indptr,
                    }
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays, hierarchy: Hierarchy) -> Self:
        """The inverse of `to_arrays`, for maps between the levels of this hierarchy."""

        def maps(side: str, like: Sequence[sp.csr_matrix]) -> tuple[sp.csr_matrix | None, ...]:
            steps = [under(f"{side}/{step}/", arrays) for step in range(len(like))]
            return tuple(
                stored_sparse(own, matrix.shape) if own else None
                for own, matrix in zip(steps, like, strict=True)
            )

        return cls(maps("down", hierarchy.down), maps("up", hierarchy.up))


@dataclass(frozen=True, eq=False)
class MeshGeometry(Geometry):
    """What a convolutional network needs to know about a template.

    spirals: one (n_i, S) array of vertices per level, -1 = padding; () if the convolution has no
    spirals. folded: constant maps that take the place of the learned ones after training. None
    before that, or if there are no maps to fold.
    """

    hierarchy: Hierarchy
    spirals: tuple[np.ndarray, ...] = ()
    folded: FoldedMaps | None = None

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        """The hierarchy, and the spirals of `config.convolution`."""
        hierarchy = build_hierarchy(template.mesh)
        match config.convolution:
            case "spiral":
                rings = SPIRAL_RINGS[: len(hierarchy.levels)]
                return cls(hierarchy, tuple(reference_spirals(hierarchy, rings, rings)))
            case "spiral++":
                spirals = ring_spirals(hierarchy, seq_length=config.spiral_length)
                return cls(hierarchy, tuple(spirals))
            case _:
                return cls(hierarchy)

    def to_arrays(self) -> dict[str, np.ndarray]:
        spirals = {str(level): spiral.astype(np.int32) for level, spiral in enumerate(self.spirals)}
        arrays = prefixed("hierarchy/", self.hierarchy.to_arrays()) | prefixed("spirals/", spirals)
        if self.folded is None:
            return arrays
        return arrays | prefixed("folded/", self.folded.to_arrays())

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        hierarchy = Hierarchy.from_arrays(under("hierarchy/", arrays))
        if hierarchy.sizes[0] != template.n_vertices:
            raise InputError(
                f"hierarchy: expected the template's {template.n_vertices} vertices, "
                f"got {hierarchy.sizes[0]}"
            )
        spirals = under("spirals/", arrays)
        folded = under("folded/", arrays)
        return cls(
            hierarchy,
            tuple(
                stored_indices(spirals, str(level), (count, None), count, at_least=PADDING)
                for level, count in enumerate(hierarchy.sizes if spirals else ())
            ),
            FoldedMaps.from_arrays(folded, hierarchy) if folded else None,
        )
