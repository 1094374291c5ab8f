"""Topology, computed from the faces: triangles, edges, neighbors, borders, components; and vertex
normals.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components


def triangulate(faces: np.ndarray, vertices: np.ndarray | None = None) -> np.ndarray:
    """Split faces (F, 3 or 4) into triangles (T, 3), in face order.

    vertices: (V, 3); if given, a quad is split along its shorter diagonal, otherwise from corner 0
    to corner 2. A row whose fourth entry is -1 is a triangle already.

    >>> triangulate(np.array([[0, 1, 2, 3], [4, 5, 6, -1]])).tolist()
    [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
    """
    if faces.shape[1] == 3:
        return faces
    a, b, c, d = faces.T
    quad = d >= 0
    split_bd = np.zeros(len(faces), bool)
    if vertices is not None:
        ac = np.linalg.norm(vertices[a] - vertices[c], axis=1)
        bd = np.linalg.norm(vertices[b] - vertices[np.where(quad, d, b)], axis=1)
        split_bd = quad & (bd < ac)
    first = np.where(split_bd[:, None], np.stack([a, b, d], 1), np.stack([a, b, c], 1))
    second = np.where(split_bd[:, None], np.stack([b, c, d], 1), np.stack([a, c, d], 1))
    both = np.stack([first, second], 1).reshape(-1, 3)
    keep = np.stack([np.ones(len(faces), bool), quad], 1).reshape(-1)
    return both[keep]


def edges(faces: np.ndarray) -> np.ndarray:
    """Return the undirected edges (E, 2), each once, smaller index first, sorted."""
    directed = half_edges(faces)
    return np.unique(np.sort(directed, axis=1), axis=0)


def half_edges(faces: np.ndarray) -> np.ndarray:
    """Return the directed sides (H, 2) of the polygons in face order; a quad has four."""
    if faces.shape[1] == 3:
        a, b, c = faces.T
        return np.stack([np.stack([a, b], 1), np.stack([b, c], 1), np.stack([c, a], 1)], 1).reshape(
            -1, 2
        )
    a, b, c, d = faces.T
    quad = d >= 0
    third = np.stack([c, np.where(quad, d, a)], 1)
    sides = np.stack([np.stack([a, b], 1), np.stack([b, c], 1), third, np.stack([d, a], 1)], 1)
    keep = np.ones(sides.shape[:2], bool)
    keep[:, 3] = quad
    return sides[keep]


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
