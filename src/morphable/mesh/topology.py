"""Topology, computed from the faces: triangles, edges, neighbors, borders, components; and vertex
normals.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components


def triangulate(faces: np.ndarray, vertices: np.ndarray | None = None) -> np.ndarray:
    """Split faces (F, K) into triangles (T, 3), in face order.

    vertices: (V, 3); if given, a quad is split along its shorter diagonal and a larger polygon by
    cutting off corners, the shortest cut first; otherwise all diagonals start at corner 0. A row
    that ends in -1 is a polygon with fewer than K corners.

    >>> triangulate(np.array([[0, 1, 2, 3], [4, 5, 6, -1]])).tolist()
    [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
    """
    if faces.shape[1] == 3:
        return faces
    corners = (faces >= 0).sum(axis=1)
    starts = np.cumsum(corners - 2) - (corners - 2)
    result = np.empty((int((corners - 2).sum()), 3), faces.dtype)
    for n in np.unique(corners).tolist():
        rows = np.flatnonzero(corners == n)
        place = starts[rows, None] + np.arange(n - 2)
        result[place] = _split(faces[rows, :n], vertices)
    return result


def _split(polygons: np.ndarray, vertices: np.ndarray | None) -> np.ndarray:
    """Split polygons (P, n) of equal size into (P, n - 2, 3) triangles."""
    n = polygons.shape[1]
    if n > 4 and vertices is not None:
        return _cut_corners(polygons, np.asarray(vertices, np.float64))
    fan = np.stack([[0] * (n - 2), range(1, n - 1), range(2, n)], axis=1)
    triangles = polygons[:, fan]
    if n == 4 and vertices is not None:
        a, b, c, d = np.moveaxis(vertices[polygons], 1, 0)
        other = np.linalg.norm(b - d, axis=1) < np.linalg.norm(a - c, axis=1)
        triangles[other] = polygons[other][:, [[0, 1, 3], [1, 2, 3]]]
    return triangles


def _cut_corners(polygons: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Split polygons (P, n) by cutting off one corner after another (ear clipping). The cut is the
    shortest that lies inside the polygon as seen along its normal.
    """
    first = vertices[polygons[:, :1]]
    spokes = vertices[polygons] - first
    normal = np.cross(spokes[:, :-1], spokes[:, 1:]).sum(axis=1)[:, None]
    triangles = []
    left = polygons
    for n in range(polygons.shape[1], 3, -1):
        points = vertices[left]
        before, after = np.roll(points, 1, axis=1), np.roll(points, -1, axis=1)
        inside = np.ones((len(left), n, n), bool)  # whether the cut from corner i contains corner j
        for start, end in ((before, points), (points, after), (after, before)):
            inward = np.cross(normal, end - start)
            offset = points[:, None] - start[:, :, None]
            inside &= (offset * inward[:, :, None]).sum(axis=-1) > 0
        convex = (np.cross(points - before, after - points) * normal).sum(axis=-1) > 0
        length = np.linalg.norm(after - before, axis=-1)
        allowed = convex & ~inside.any(axis=-1)
        allowed |= ~allowed.any(axis=1, keepdims=True)  # a degenerate polygon is cut anywhere
        cut = np.where(allowed, length, np.inf).argmin(axis=1)
        rows = np.arange(len(left))
        triangles.append(np.stack([left[rows, (cut + k) % n] for k in (-1, 0, 1)], axis=1))
        left = left[np.arange(n) != cut[:, None]].reshape(-1, n - 1)
    return np.stack([*triangles, left], axis=1)


def edges(faces: np.ndarray) -> np.ndarray:
    """Return the undirected edges (E, 2), each once, smaller index first, sorted."""
    directed = half_edges(faces)
    return np.unique(np.sort(directed, axis=1), axis=0)


def half_edges(faces: np.ndarray) -> np.ndarray:
    """Return the directed sides (H, 2) of the polygons in face order; a quad has four."""
    following = np.roll(faces, -1, axis=1)
    following = np.where(following >= 0, following, faces[:, :1])
    return np.stack([faces, following], axis=2)[faces >= 0]


def adjacency(faces: np.ndarray, n_vertices: int) -> sp.csr_matrix:
    """Compute the binary symmetric adjacency (V, V). An edge counts once, however many faces share
    it.
    """
    pairs = edges(faces)
    rows = np.concatenate([pairs[:, 0], pairs[:, 1]])
    cols = np.concatenate([pairs[:, 1], pairs[:, 0]])
    return sp.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(n_vertices, n_vertices))


def boundary_edges(faces: np.ndarray) -> np.ndarray:
    """Return the undirected edges (E, 2) that exactly one face uses."""
    undirected = np.sort(half_edges(faces), axis=1)
    unique, count = np.unique(undirected, axis=0, return_counts=True)
    return unique[count == 1]


def nonmanifold_edges(faces: np.ndarray) -> np.ndarray:
    """Return the undirected edges (E, 2) that three or more faces use."""
    undirected = np.sort(half_edges(faces), axis=1)
    unique, count = np.unique(undirected, axis=0, return_counts=True)
    return unique[count > 2]


def components(faces: np.ndarray, n_vertices: int) -> np.ndarray:
    """Number the connected components: (V,) number of each vertex's component. A vertex that no
    face uses is a component of its own.
    """
    return connected_components(adjacency(faces, n_vertices), directed=False)[1]


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Compute unit normals (..., V, 3), weighted by triangle area; zero at vertices without a face.

    vertices: (..., V, 3). triangles: (T, 3).
    """
    a, b, c = (vertices[..., triangles[:, i], :] for i in range(3))
    area = np.cross(b - a, c - a)
    incidence = sp.csr_matrix(
        (np.ones(triangles.size), (triangles.ravel(), np.repeat(np.arange(len(triangles)), 3))),
        shape=(vertices.shape[-2], len(triangles)),
    )
    flat = area.reshape(-1, len(triangles), 3)
    normals = np.stack([incidence @ item for item in flat]).reshape(vertices.shape)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-30)


def hinges(triangles: np.ndarray) -> np.ndarray:
    """Return the pairs (H, 2) of triangles that share an edge, for each edge that exactly two
    triangles use.

    >>> hinges(np.array([[0, 1, 2], [2, 1, 3]])).tolist()
    [[0, 1]]
    """
    sides = np.sort(half_edges(triangles), axis=1)
    owner = np.repeat(np.arange(len(triangles)), 3)
    order = np.lexsort(sides.T[::-1])
    _, start, count = np.unique(sides[order], axis=0, return_index=True, return_counts=True)
    first = start[count == 2]
    return np.stack([owner[order[first]], owner[order[first + 1]]], axis=1)


def inconsistent_edges(faces: np.ndarray) -> np.ndarray:
    """Return the undirected edges (E, 2) that two faces run along in the same direction, so that
    one of the two is turned inside out.
    """
    directed, count = np.unique(half_edges(faces), axis=0, return_counts=True)
    return np.unique(np.sort(directed[count > 1], axis=1), axis=0)
