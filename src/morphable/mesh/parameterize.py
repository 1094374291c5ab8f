"""parameterize: a UV map for a surface that has none, if it is a disc (with or without holes) or a
sphere.

- A sphere is cut open along a path between two vertices far apart.
- The border goes onto a strictly convex curve, and every other vertex to a weighted mean of its
  neighbors (Tutte 1963, Floater 2003), so no triangle is folded over.
- The weights are then divided by the stretch around each neighbor, as often as that lowers the
  stretch of the map (Yoshizawa, Belyaev and Seidel, SMI 2004).
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.sparse.linalg import spsolve

from morphable.errors import InputError
from morphable.mesh.mesh import Mesh
from morphable.mesh.topology import edges, half_edges

ROUNDNESS = 4
"""The border is the curve |x|^4 + |y|^4 = 1: nearly a square, but without straight sides, on which
a triangle with three corners on the border would have no area."""
MAX_ROUNDS = 10
MIN_AREA = 1e-12
"""Smallest area of a triangle, as a share of the mean, below which its stretch is not trusted."""
HOW = (
    "add texture coordinates (the arrays uv and uv_faces of template.npz, or a template file with "
    "them)"
)


def parameterize(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Compute texture coordinates uv (U, 2) and their indices (T, 3) per corner of the mesh's
    triangles. The first V rows of uv belong to the vertices in order; a cut adds further ones.

    Raises InputError if the surface is neither a disc nor a sphere.
    """
    triangles, vertices = mesh.triangles, np.asarray(mesh.vertices, np.float64)
    loops = _border_loops(triangles)
    _require_flat_or_round(triangles, len(loops))
    points = vertices
    if not loops:
        triangles, sources = _cut(vertices, triangles)
        points = vertices[sources]
        loops = _border_loops(triangles)

    loops.sort(key=lambda loop: -_length(points, loop))
    filled, points = _fill_holes(triangles, points, loops[1:])
    uv = _flatten(points, filled, loops[0])[: len(points) - len(loops) + 1]
    return uv, triangles


def _require_flat_or_round(triangles: np.ndarray, n_borders: int) -> None:
    used = np.unique(triangles)
    sides = edges(triangles)
    graph = sp.coo_matrix((np.ones(len(sides)), sides.T), shape=(triangles.max() + 1,) * 2)
    pieces = len(np.unique(connected_components(graph, directed=False)[1][used]))
    euler = len(used) - len(sides) + len(triangles)
    if pieces > 1:
        fault = f"its surface has {pieces} pieces"
    elif euler != 2 - n_borders:
        fault = f"its surface has handles or tunnels (Euler characteristic {euler + n_borders})"
    else:
        return
    raise InputError(
        f"template: it has no UV map, and one can be computed for a disc or a sphere only, but "
        f"{fault}; {HOW}"
    )


def _border_loops(triangles: np.ndarray) -> list[list[int]]:
    """The borders as loops of vertices, in the direction of their triangles.

    Raises InputError if an edge has more than two triangles, or borders touch in a vertex.
    """
    directed = half_edges(triangles)
    size = int(triangles.max()) + 1
    code, reverse = directed @ [size, 1], directed @ [1, size]
    border = directed[~np.isin(code, reverse)]
    following = dict(border.tolist())
    if len(np.unique(code)) < len(code) or len(following) < len(border):
        raise InputError(
            f"template: it has no UV map, and none can be computed because its surface is not "
            f"manifold; {HOW}"
        )
    loops = []
    while following:
        loop = [next(iter(following))]
        while (after := following.pop(loop[-1])) != loop[0]:
            loop.append(after)
        loops.append(loop)
    return loops


def _length(points: np.ndarray, loop: list[int]) -> float:
    return float(np.linalg.norm(np.roll(points[loop], -1, axis=0) - points[loop], axis=1).sum())


def _cut(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a closed surface open along a shortest path between two vertices far apart.

    Returns the triangles (T, 3) over the cut surface's vertices, and the vertex (U,) of the mesh
    that each of these is.
    """
    sides = edges(triangles)
    lengths = np.linalg.norm(vertices[sides[:, 0]] - vertices[sides[:, 1]], axis=1)
    graph = sp.coo_matrix((np.maximum(lengths, 1e-12), sides.T), shape=(len(vertices),) * 2).tocsr()
    start = int(triangles[0, 0])
    # Twice the farthest vertex: the ends of the path are then nearly as far apart as possible.
    for _ in range(2):
        distance, before = dijkstra(graph, False, start, return_predecessors=True)
        end, start = start, int(np.where(np.isfinite(distance), distance, -1).argmax())
    path = [start]
    while path[-1] != end:
        path.append(int(before[path[-1]]))
    if len(path) == 2:
        # A border needs three vertices, and one edge has two. In a tetrahedron all are neighbors.
        beside = triangles[np.isin(triangles, path).sum(axis=1) == 2][0]
        path.append(int(beside[~np.isin(beside, path)][0]))

    cut, sources = triangles.copy(), np.arange(len(vertices)).tolist()
    steps = {frozenset(pair) for pair in itertools.pairwise(path)}
    for here, after in itertools.pairwise(path[1:]):
        around = np.flatnonzero((triangles == here).any(axis=1))
        for row in _side_of(triangles[around], here, after, steps):
            cut[around[row], triangles[around[row]] == here] = len(sources)
        sources.append(here)
    return cut, np.array(sources)


def _side_of(fan: np.ndarray, center: int, after: int, steps: set[frozenset[int]]) -> list[int]:
    """The rows of a fan of triangles around `center` that lie on the left of the path, which
    leaves to `after`: from that edge, triangle by triangle until the next edge of the path.
    """
    # In a triangle (center, a, b), the edge to a is shared with the triangle before, that to b
    # with the triangle after.
    turned = [np.roll(row, -int(np.flatnonzero(row == center)[0])).tolist() for row in fan]
    by_first = {a: (row, b) for row, (_, a, b) in enumerate(turned)}
    rows: list[int] = []
    edge = after
    while not rows or frozenset((center, edge)) not in steps:
        row, edge = by_first[edge]
        rows.append(row)
    return rows


def _fill_holes(
    triangles: np.ndarray, points: np.ndarray, holes: list[list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Close each hole by a fan around an additional vertex in its middle."""
    for hole in holes:
        center = np.full(len(hole), len(points))
        fan = np.stack([np.roll(hole, -1), np.array(hole), center], axis=1)
        triangles = np.concatenate([triangles, fan])
        points = np.concatenate([points, points[hole].mean(axis=0, keepdims=True)])
    return triangles, points


def _flatten(points: np.ndarray, triangles: np.ndarray, border: list[int]) -> np.ndarray:
    """(U, 2) places of a disc's vertices in the square from -1 to 1."""
    uv = np.zeros((len(points), 2))
    uv[border] = _on_curve(points, border)
    inside = np.setdiff1d(np.unique(triangles), border)
    weights = _mean_value_weights(points, triangles)
    best, best_stretch = uv, np.inf
    for _ in range(MAX_ROUNDS):
        laplacian = sp.csr_matrix(sp.diags_array(np.asarray(weights.sum(axis=1)).ravel()) - weights)
        uv = uv.copy()
        if len(inside):
            right = -laplacian[inside][:, border] @ uv[border]
            uv[inside] = spsolve(laplacian[inside][:, inside].tocsc(), right)
        by_vertex, stretch = _stretch(points, triangles, uv)
        if not stretch < best_stretch:
            break
        best, best_stretch = uv, stretch
        weights = sp.csr_matrix(weights @ sp.diags_array(1 / by_vertex))
    return best


def _on_curve(points: np.ndarray, border: list[int]) -> np.ndarray:
    """(n, 2) places of the border's vertices on the curve, spaced as they are on the surface."""
    steps = np.linalg.norm(np.roll(points[border], -1, axis=0) - points[border], axis=1)
    steps = np.maximum(steps, 1e-9 * max(steps.max(), 1e-30))
    angle = 2 * np.pi * (np.cumsum(steps) - steps) / steps.sum()
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.sign(circle) * np.abs(circle) ** (2 / ROUNDNESS)


def _mean_value_weights(points: np.ndarray, triangles: np.ndarray) -> sp.csr_matrix:
    """(U, U) positive weights: tan of half of each angle at i beside the edge ij, over its length
    (Floater 2003).
    """
    rows, columns, values = [], [], []
    for k in range(3):
        i, j, other = (triangles[:, (k + step) % 3] for step in range(3))
        to_j, to_other = points[j] - points[i], points[other] - points[i]
        length = np.linalg.norm(to_j, axis=1), np.linalg.norm(to_other, axis=1)
        sine = np.linalg.norm(np.cross(to_j, to_other), axis=1)
        product = length[0] * length[1]
        half = sine / np.maximum(product + (to_j * to_other).sum(axis=1), 1e-9 * product + 1e-30)
        half = np.clip(half, 1e-6, 1e6)
        for target, size in ((j, length[0]), (other, length[1])):
            rows.append(i)
            columns.append(target)
            values.append(half / np.maximum(size, 1e-12))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_matrix(entries, shape=(len(points),) * 2)


def _stretch(points: np.ndarray, triangles: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, float]:
    """The stretch of the map from the plane to the surface: around each vertex (U,), with mean one,
    and of the whole (Sander et al. 2001).
    """
    a, b, c = (uv[triangles[:, k]] for k in range(3))
    p, q, r = (points[triangles[:, k]] for k in range(3))
    doubled = (b - a)[:, 0] * (c - a)[:, 1] - (c - a)[:, 0] * (b - a)[:, 1]
    doubled = np.maximum(np.abs(doubled), MIN_AREA * np.abs(doubled).mean() + 1e-300)[:, None]
    ds = (p * (b - c)[:, 1:] + q * (c - a)[:, 1:] + r * (a - b)[:, 1:]) / doubled
    dt = (p * (c - b)[:, :1] + q * (a - c)[:, :1] + r * (b - a)[:, :1]) / doubled
    squared = (np.square(ds).sum(axis=1) + np.square(dt).sum(axis=1)) / 2
    area = np.linalg.norm(np.cross(q - p, r - p), axis=1) / 2 + 1e-12
    corners, share = triangles.ravel(), np.repeat(area, 3)
    total = np.bincount(corners, share * np.repeat(squared, 3), minlength=len(points))
    around = np.bincount(corners, share, minlength=len(points))
    by_vertex = np.sqrt(np.divide(total, around, out=np.ones_like(total), where=around > 0))
    mean = float(np.sqrt((area * squared).sum() / area.sum()))
    return np.maximum(by_vertex / mean, 1e-6), mean
