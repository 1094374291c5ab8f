"""One subdivision step of a polygon mesh as a constant sparse matrix (Catmull & Clark,
Computer-Aided Design 1978).

Every polygon becomes as many quads as it has corners. The new vertices are the moved old ones, then
one per edge, then one per face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, eq=False)
class Subdivision:
    """The result of `subdivide`.

    matrix: (V', V) new positions = matrix @ old positions; rows sum to one. faces: (F', 4). edges:
    (E, 2) old vertices at the ends of each edge.
    """

    matrix: sp.csr_matrix
    faces: np.ndarray
    edges: np.ndarray


def subdivide(faces: np.ndarray, n_vertices: int, smooth: bool = True) -> Subdivision:
    """Subdivide faces once.

    faces: (F, 3 or 4), -1 padded. smooth: if False, only insert midpoints, which is right for
    texture coordinates. Border edges and border vertices follow the cubic B-spline of the border.
    """
    corner_face, start, end = _sides(faces)
    edges, side_edge = np.unique(
        np.sort(np.stack([start, end], 1), axis=1), axis=0, return_inverse=True
    )
    side_edge = side_edge.ravel()
    n_edges, n_faces = len(edges), len(faces)

    centers = _averages(corner_face, start, (n_faces, n_vertices))
    middles = _averages(np.repeat(np.arange(n_edges), 2), edges.ravel(), (n_edges, n_vertices))
    if smooth:
        border_edge = np.bincount(side_edge, minlength=n_edges) == 1
        beside = _averages(side_edge, corner_face, (n_edges, n_faces)) @ centers
        edge_points = _choose(border_edge, middles, 0.5 * (middles + beside))
        vertex_points = _vertex_rule(
            edges,
            border_edge,
            middles,
            _averages(start, corner_face, (n_vertices, n_faces)) @ centers,
        )
    else:
        edge_points, vertex_points = middles, sp.identity(n_vertices, format="csr")

    previous = _previous_side(corner_face)
    quads = np.stack([start, n_vertices + side_edge, n_vertices + n_edges + corner_face], axis=1)
    quads = np.concatenate([quads, (n_vertices + side_edge[previous])[:, None]], axis=1)
    return Subdivision(sp.vstack([vertex_points, edge_points, centers]).tocsr(), quads, edges)


def _sides(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Face, start vertex and end vertex of every polygon side, (H,) each, in face order."""
    corners = faces.shape[1]
    length = (faces >= 0).sum(axis=1)
    position = np.arange(corners)[None, :]
    following = np.take_along_axis(faces, (position + 1) % length[:, None], axis=1)
    inside = position < length[:, None]
    return np.repeat(np.arange(len(faces)), length), faces[inside], following[inside]


def _previous_side(corner_face: np.ndarray) -> np.ndarray:
    """(H,) number of the previous side of the same face, for each side."""
    length = np.bincount(corner_face)
    last = np.cumsum(length) - 1
    previous = np.arange(len(corner_face)) - 1
    previous[last - length + 1] = last
    return previous


def _averages(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    """The matrix whose rows average the columns that they are paired with."""
    matrix = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    count = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1)
    return sp.diags(1 / count) @ matrix


def _choose(first: np.ndarray, one: sp.csr_matrix, other: sp.csr_matrix) -> sp.csr_matrix:
    """The rows of `one` at which `first` is true, and the other rows of `other`."""
    pick = sp.diags(first.astype(np.float64))
    return (pick @ one + (sp.identity(len(first)) - pick) @ other).tocsr()


def _vertex_rule(
    edges: np.ndarray, border_edge: np.ndarray, middles: sp.csr_matrix, around: sp.csr_matrix
) -> sp.csr_matrix:
    """(V, V) new positions of the old vertices: (Q + 2 R + (n - 3) S) / n inside, and the spline
    rule on a border.

    n: edges at the vertex. Q: mean center of its faces. R: mean midpoint of its edges. S: the
    vertex itself.
    """
    n_vertices = middles.shape[1]
    ends, edge = edges.ravel(), np.repeat(np.arange(len(edges)), 2)
    shape = (n_vertices, len(edges))
    valence = np.maximum(np.bincount(ends, minlength=n_vertices), 1).astype(np.float64)
    keep = sp.identity(n_vertices, format="csr")
    spokes = _averages(ends, edge, shape) @ middles
    inside = (
        sp.diags(1 / valence) @ around
        + sp.diags(2 / valence) @ spokes
        + sp.diags(1 - 3 / valence) @ keep
    )
    on_border = border_edge[edge]
    along = _averages(ends[on_border], edge[on_border], shape) @ middles
    border_vertex = np.bincount(ends[on_border], minlength=n_vertices) > 0
    rule = _choose(border_vertex, 0.5 * keep + 0.5 * along, inside)
    lonely = np.bincount(ends, minlength=n_vertices) == 0
    return _choose(lonely, keep, rule)
