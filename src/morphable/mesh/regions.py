"""Regions: a template cut into disjoint pieces that cover it, and the control vertices that steer
each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from morphable.errors import InputError
from morphable.mesh.mesh import Mesh
from morphable.mesh.topology import adjacency, components

CONTROLS = 10
"""Control vertices of a region: two fifths on its border, the others inside."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Disjoint regions that cover a template.

    labels: (V,) region number of each vertex. names: the R names. controls: per region the vertices
    that act as its handles; () if none are known.

    Raises InputError unless every region has a vertex and its controls lie in it.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    controls: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        found, count = np.unique(self.labels), len(self.names)
        if not np.array_equal(found, np.arange(count)):
            raise InputError(
                f"regions: expected the numbers 0..{count - 1}, each used, got {found}"
            )

        if self.controls and len(self.controls) != count:
            raise InputError(
                f"regions: expected control vertices for each of {count} regions, got "
                f"{len(self.controls)}"
            )
        for region, controls in enumerate(self.controls):
            if len(controls) and not (self.labels[controls] == region).all():
                raise InputError(
                    f"regions: the control vertices of {self.names[region]!r} must lie in "
                    "that region"
                )

    def number(self, name: str) -> int:
        """The number of the region called `name`. Raises InputError, listing the names, for
        another.
        """
        if name not in self.names:
            raise InputError(
                f"region {name!r}: not in this template, which has {', '.join(self.names)}"
            )
        return self.names.index(name)

    def vertices(self, region: int) -> np.ndarray:
        """The vertices of a region, ascending."""
        return np.flatnonzero(self.labels == region)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as plain arrays, the format of template.npz."""
        controls = {
            f"control_vertices/{region}": np.asarray(vertices, np.int32)
            for region, vertices in enumerate(self.controls)
        }
        return {"regions": self.labels, "region_names": np.array(self.names)} | controls

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self | None:
        """The inverse of `to_arrays`, which leaves other keys alone; None if there are no
        regions.
        """
        if "regions" not in arrays:
            return None
        names = tuple(str(name) for name in arrays.get("region_names", ()))
        keys = [
            key for region in range(len(names)) if (key := f"control_vertices/{region}") in arrays
        ]
        return cls(
            arrays["regions"].astype(np.int64),
            names,
            tuple(arrays[key].astype(np.int64) for key in keys),
        )


def border_vertices(faces: np.ndarray, labels: np.ndarray, region: int) -> np.ndarray:
    """Vertices of a region that an edge joins to another region, ascending."""
    pairs = adjacency(faces, len(labels)).tocoo()
    crossing = (labels[pairs.row] == region) & (labels[pairs.col] != region)
    return np.unique(pairs.row[crossing])


def spread_controls(
    mesh: Mesh, labels: np.ndarray, count: int = CONTROLS
) -> tuple[np.ndarray, ...]:
    """At most `count` control vertices for each region 0, 1, ...: spread inside, and two fifths
    along the border.
    """
    controls = []
    for region in range(int(labels.max()) + 1):
        inside = np.flatnonzero(labels == region)
        border = border_vertices(mesh.faces, labels, region)
        on_border = (
            farthest_points(mesh.vertices, border, count * 2 // 5) if len(border) else border
        )
        inside = (
            np.setdiff1d(inside, border)
            if len(border) < len(inside)
            else np.setdiff1d(inside, on_border)
        )
        within = (
            farthest_points(mesh.vertices, inside, count - len(on_border))
            if len(inside)
            else inside
        )
        controls.append(np.concatenate([within, on_border]))
    return tuple(controls)


def connected_regions(regions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) the same regions, of which every fragment but the largest is given to the neighbor that
    it touches most.

    Each connected component of the mesh keeps its own largest fragment, so that an eyeball stays in
    its region.
    """
    regions = regions.copy()
    graph = adjacency(faces, len(regions)).tocoo()
    island = components(faces, len(regions))
    while True:
        same = regions[graph.row] == regions[graph.col]
        inside = sp.coo_matrix(
            (np.ones(same.sum()), (graph.row[same], graph.col[same])), shape=graph.shape
        )
        _, fragment = connected_components(inside, directed=False)
        size = np.bincount(fragment)
        first = np.unique(fragment, return_index=True)[1]
        order = np.lexsort((-size, regions[first], island[first]))
        key = np.stack([island[first], regions[first]], 1)[order]
        largest = np.ones(len(order), bool)
        largest[1:] = (key[1:] != key[:-1]).any(axis=1)
        small = np.ones(len(size), bool)
        small[order[largest]] = False
        if not small.any():
            return regions
        # The smallest fragment goes first, because its neighbors are the most likely to stay.
        chosen = np.flatnonzero(small)[size[small].argmin()]
        touching = (fragment[graph.row] == chosen) & ~same
        regions[fragment == chosen] = np.bincount(regions[graph.col[touching]]).argmax()


def farthest_points(vertices: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """(count,) vertex indices out of `candidates`, each the farthest from those before it; fewer if
    there are fewer.

    The first is the candidate nearest to their centroid. Distances are Euclidean, in the unit of
    `vertices` (V, 3).
    """
    points = vertices[candidates].astype(np.float64)
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return candidates[np.array(chosen)]
