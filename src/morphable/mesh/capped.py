"""decimate_capped: decimation that keeps the borders of an open mesh in place."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from morphable.mesh.decimate import Decimation, decimate
from morphable.mesh.topology import boundary_edges


def decimate_capped(vertices: np.ndarray, triangles: np.ndarray, target: int) -> Decimation:
    """Select about `target` vertices of a mesh and the faces between them, as `decimate` does.

    A border vertex may slide inwards at no cost in quadric error, which leaves the border ragged.
    So every border is closed by a cone while vertices are selected.
    """
    caps, tips = _caps(vertices, triangles)
    closed = np.concatenate([vertices, tips])
    made = decimate(closed, np.concatenate([triangles, caps]), target + len(tips))
    real = made.kept < len(vertices)
    if (~real).sum() < len(tips):  # a tip was merged into a border, so cap and mesh are one
        return decimate(vertices, triangles, target)
    faces = made.triangles[real[made.triangles].all(axis=1)]
    # Tips come after all vertices, so the numbers of the remaining vertices stay as they are.
    used, corners = np.unique(faces, return_inverse=True)
    return Decimation(made.kept[used], corners.reshape(-1, 3))


def _caps(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (E, 3) from each border edge to the tip of a cone over its border, and the tips
    (C, 3). The tips are numbered after the vertices.
    """
    edges = boundary_edges(triangles)
    places, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = sp.coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (len(places),) * 2)
    count, border = connected_components(graph, directed=False)
    tips = [_tip(vertices[places[border == number]]) for number in range(count)]
    caps = np.column_stack([edges, len(vertices) + border[ends[:, 0]]])
    return caps.astype(np.int64).reshape(-1, 3), np.array(tips).reshape(-1, 3)


def _tip(points: np.ndarray) -> np.ndarray:
    """The tip of a cone over a border (P, 3), as high as the border is wide. A flat cap would be
    merged into the border, because it costs nothing to move its center within its plane.
    """
    offsets = points - points.mean(axis=0)
    normal = np.linalg.svd(offsets, full_matrices=False)[2][-1]
    return np.asarray(points.mean(axis=0) + np.linalg.norm(offsets, axis=1).mean() * normal)
