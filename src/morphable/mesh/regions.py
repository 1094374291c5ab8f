"""Regions: disjoint pieces that cover a template, each with the control vertices that edit it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from morphable.errors import InputError
from morphable.mesh.mesh import Mesh
from morphable.mesh.stored_arrays import stored_indices, stored_texts
from morphable.mesh.topology import adjacency, components

CONTROLS = 10
"""Number of control vertices per region: two fifths on its border, the others inside."""

CONTROL_KEY = "control_vertices/"
"""Before the number of the region, the name of the array of its control vertices."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Disjoint regions that cover a template.

    labels: (V,) region number 0..R-1 of each vertex. names: the R names. controls: for each region
    the vertices that act as its handles; () if none are known.

    Raises InputError if a region has no vertex, or a control vertex lies outside its region.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    controls: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        numbers, count = np.unique(self.labels), len(self.names)
        if not np.array_equal(numbers, np.arange(count)):
            raise InputError(
                f"regions: expected the numbers 0..{count - 1}, each used, got {numbers}"
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
        """Return the number of the region called `name`. Raises InputError, listing the known
        names, if there is none.
        """
        if name not in self.names:
            raise InputError(
                f"region {name!r}: not in this template, which has {', '.join(self.names)}"
            )
        return self.names.index(name)

    def vertices(self, region: int) -> np.ndarray:
        """Return the vertex indices of a region, ascending."""
        return np.flatnonzero(self.labels == region)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all fields as plain arrays, in the format of template.npz."""
        controls = {
            f"{CONTROL_KEY}{region}": np.asarray(vertices, np.int32)
            for region, vertices in enumerate(self.controls)
        }
        return {"regions": self.labels, "region_names": np.array(self.names)} | controls

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self | None:
        """Invert `to_arrays`, ignoring other keys. Returns None if the arrays hold no regions.

        Raises InputError if an array is missing or wrong, whatever the file holds.
        """
        if "regions" not in arrays:
            return None
        names = stored_texts(arrays, "region_names")
        labels = stored_indices(arrays, "regions", (None,), len(names))
        stored = {key for key in arrays if key.startswith(CONTROL_KEY)}
        keys = [f"{CONTROL_KEY}{region}" for region in range(len(names))] if stored else []
        if stored - set(keys):
            raise InputError(f"{min(stored - set(keys))}: there is no region of this number")
        controls = [stored_indices(arrays, key, (None,), len(labels)) for key in keys]
        return cls(labels, names, tuple(controls))


def handle_list(controls: Iterable[int]) -> str:
    """The handles of a region with their vertices, as text.

    >>> handle_list([40, 7])
    'h0=40 h1=7'
    """
    return " ".join(f"h{number}={vertex}" for number, vertex in enumerate(controls))


def border_vertices(faces: np.ndarray, labels: np.ndarray, region: int) -> np.ndarray:
    """Return the vertices of a region that share an edge with another region, ascending."""
    pairs = adjacency(faces, len(labels)).tocoo()
    crossing = (labels[pairs.row] == region) & (labels[pairs.col] != region)
    return np.unique(pairs.row[crossing])


def spread_controls(
    mesh: Mesh, labels: np.ndarray, count: int = CONTROLS
) -> tuple[np.ndarray, ...]:
    """Choose at most `count` control vertices for each region 0, 1, ..., spread by farthest-point
    sampling: two fifths of them along the border, the others inside.
    """
    controls = []
    for region in range(int(labels.max()) + 1):
        inside = np.flatnonzero(labels == region)
        border = border_vertices(mesh.faces, labels, region)
        on_border = (
            farthest_points(mesh.vertices, border, count * 2 // 5) if len(border) else border
        )
        # A region may be so thin that it is all border; the others are then border vertices too.
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


def regions_of_weights(mesh: Mesh, weights: np.ndarray, names: Sequence[str]) -> Regions:
    """Connected regions with control vertices from weights (V, K) of K parts: each vertex belongs
    to the part with its largest weight. A part that no vertex prefers has no region.
    """
    labels = connected_regions(weights.argmax(1), mesh.faces)
    used, labels = np.unique(labels, return_inverse=True)
    kept = tuple(names[int(part)] for part in used)
    return Regions(labels, kept, spread_controls(mesh, labels))


def connected_regions(regions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Make regions connected: every fragment except a region's largest goes to the neighboring
    region that it shares most edges with.

    regions: (V,) region numbers. faces: (F, K). Returns new numbers (V,). A region keeps its
    largest fragment on each connected component of the mesh, so that an eyeball stays in its
    region.
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
        # Sort fragments by component, region and descending size: the first of each pair stays.
        first = np.unique(fragment, return_index=True)[1]
        order = np.lexsort((-size, regions[first], island[first]))
        key = np.stack([island[first], regions[first]], 1)[order]
        largest = np.ones(len(order), bool)
        largest[1:] = (key[1:] != key[:-1]).any(axis=1)
        small = np.ones(len(size), bool)
        small[order[largest]] = False
        if not small.any():
            return regions
        # Reassign one fragment per round, smallest first: its neighbors are most likely to stay.
        chosen = np.flatnonzero(small)[size[small].argmin()]
        touching = (fragment[graph.row] == chosen) & ~same
        regions[fragment == chosen] = np.bincount(regions[graph.col[touching]]).argmax()


def farthest_points(vertices: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` of the vertices `candidates`, each the farthest from those chosen before it.

    vertices: (V, 3), any unit; distances are Euclidean. candidates: vertex indices, at least one.
    The first choice is the candidate nearest to their centroid. Returns all candidates if there
    are no more than `count`.
    """
    points = vertices[candidates].astype(np.float64)
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return candidates[np.array(chosen)]
