"""Spirals: the neighbors of each vertex in a fixed order, so that a convolution is a gather and a
matrix product.

`reference_spirals` starts each spiral on the shortest path to a reference point (Bouritsas et al.,
"Neural 3D Morphable Models", ICCV 2019); `ring_spirals` needs the mesh only (Gong et al.,
"SpiralNet++", ICCV Workshops 2019). Both follow the winding of the faces. Trained weights depend on
the order of the neighbors, so store the spirals with the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from morphable.errors import InputError
from morphable.mesh.hierarchy import Hierarchy, Level
from morphable.mesh.topology import edges

PADDING = -1
"""Entry that stands for no vertex: a convolution reads zero there."""

SAME = 1e-9
"""Lengths that differ by less than this share of themselves count as equal, so that rounding errors
do not decide the order.
"""

Star = list[tuple[int, int]]
"""The sides opposite a vertex in each of its faces, directed by the winding of the face."""


def reference_spirals(
    hierarchy: Hierarchy,
    n_steps: Sequence[int] = (2, 2, 1, 1, 1),
    dilation: Sequence[int] = (2, 2, 1, 1, 1),
    references: Sequence[int] | None = None,
) -> tuple[np.ndarray, ...]:
    """Build Neural3DMM's spirals: for each level (n, length) int64, padded with -1, each spiral
    starting with its own vertex.

    n_steps: number of rings on each level. dilation: d on each level, keeps every d-th entry after
    the vertex itself. references: template vertices, one per connected component; by default the
    vertex nearest to the component's centroid. Coarser levels use the vertices nearest to the
    references (the last one if several are in one component); a component without any uses its
    default.

    The first ring starts at the neighbor on the shortest edge path to the reference (at the
    reference itself: at the nearest neighbor) and follows the face winding. A ring that meets a
    border continues from its start in the other direction, with one -1 between the halves. The
    second ring starts at the vertex beyond the first ring's last and first vertices. The length is
    int(mean + 2 standard deviations) over the level's spirals; longer ones are cut.

    Raises InputError if the number of steps or dilations is not the number of levels, or a
    reference is not a vertex.
    """
    for name, values in (("n_steps", n_steps), ("dilation", dilation)):
        if len(values) != len(hierarchy.levels) or min(values) < 1:
            raise InputError(
                f"{name}: expected one positive number for each of {len(hierarchy.levels)} levels, "
                f"got {values}"
            )
    count = hierarchy.sizes[0]
    chosen = np.asarray([] if references is None else references, np.int64)
    if chosen.ndim != 1 or (chosen < 0).any() or (chosen >= count).any():
        raise InputError(f"references: expected vertex indices in 0..{count - 1}, got {references}")
    roots = _roots(hierarchy.levels[0], chosen)
    positions = hierarchy.levels[0].vertices[roots]
    result = []
    for level, steps, stride in zip(hierarchy.levels, n_steps, dilation, strict=True):
        start = _starts(level, _roots(level, cKDTree(level.vertices).query(positions)[1]))
        stars = _stars(level)
        spirals = [
            _reference_spiral(stars, vertex, start[vertex], steps) for vertex in range(len(stars))
        ]
        result.append(_table([spiral[:1] + spiral[1::stride] for spiral in spirals]))
    return tuple(result)


def ring_spirals(
    hierarchy: Hierarchy, seq_length: int = 9, dilation: int = 1
) -> tuple[np.ndarray, ...]:
    """Build SpiralNet++'s spirals: for each level (n, seq_length) int64 without padding, each
    spiral starting with its own vertex.

    The first ring starts at the neighbor of lowest index and follows the face winding. Further
    rings are appended until there are seq_length * dilation entries, of which every dilation-th is
    kept. If the vertex's component has too few vertices, the spiral holds the nearest vertices of
    the level instead, itself first; if the level has too few, these repeat in the same order.

    Raises InputError if seq_length or dilation is not positive.
    """
    if seq_length < 1 or dilation < 1:
        raise InputError(
            f"spirals: seq_length and dilation must be positive, got {seq_length} and {dilation}"
        )
    return tuple(
        _ring_level(level, seq_length * dilation)[:, ::dilation] for level in hierarchy.levels
    )


def _stars(level: Level) -> list[Star]:
    stars: list[Star] = [[] for _ in level.vertices]
    for a, b, c in level.triangles.tolist():
        if a != b and b != c and c != a:
            stars[a].append((b, c))
            stars[b].append((c, a))
            stars[c].append((a, b))
    return stars


# Neural3DMM: rings start on the shortest path to a reference point


def _roots(level: Level, chosen: np.ndarray) -> np.ndarray:
    """One vertex per component: the last of the chosen ones in it, or else the vertex nearest to
    its centroid.
    """
    labels = connected_components(_lengths(level), directed=False)[1]
    root = np.full(labels.max() + 1, -1)
    sizes = np.bincount(labels)
    centroids = (
        np.stack([np.bincount(labels, axis) for axis in level.vertices.T], axis=1) / sizes[:, None]
    )
    distance = np.linalg.norm(level.vertices - centroids[labels], axis=1)
    least = np.full(len(root), np.inf)
    np.minimum.at(least, labels, distance)
    nearest = np.flatnonzero(distance <= least[labels] * (1 + SAME))[::-1]
    # An assignment keeps the last of several values: of equally near vertices the lowest index.
    root[labels[nearest]] = nearest
    root[labels[chosen]] = chosen
    return root


def _starts(level: Level, roots: np.ndarray) -> list[int]:
    """The next vertex of each vertex on the shortest path to its component's root; -1 if it has no
    neighbor.
    """
    lengths = _lengths(level)
    distance = dijkstra(lengths, indices=roots, min_only=True)
    pairs = lengths.tocoo()
    to_root = distance[pairs.col] + pairs.data
    least = np.full(len(distance), np.inf)
    np.minimum.at(least, pairs.row, to_root)
    best = to_root <= least[pairs.row] * (1 + SAME)
    row, col = pairs.row[best], pairs.col[best]
    order = np.lexsort((-col, row))
    start = np.full(len(distance), PADDING)
    start[row[order]] = col[order]
    return list(start.tolist())


def _lengths(level: Level) -> sp.csr_matrix:
    """(n, n) symmetric edge lengths. An edge of length zero gets a tiny one, because a zero entry
    would mean no edge.
    """
    pairs = edges(level.triangles)
    a, b = pairs[pairs[:, 0] != pairs[:, 1]].T
    length = np.maximum(
        np.linalg.norm(level.vertices[a] - level.vertices[b], axis=1), np.finfo(float).tiny
    )
    entries = (np.tile(length, 2), (np.concatenate([a, b]), np.concatenate([b, a])))
    return sp.csr_matrix(entries, shape=(len(level.vertices),) * 2)


def _reference_spiral(stars: list[Star], vertex: int, start: int, steps: int) -> list[int]:
    spiral = ring = [vertex]
    seen = {vertex}
    for step in range(steps):
        following, preceding = _rim(stars, ring, seen)
        if step:
            start = next(_beyond(stars, ring, following.keys() | preceding.keys()), PADDING)
        if start not in following and start not in preceding:
            break
        ring = _turn(following, preceding, start)
        seen.update(ring)
        seen.discard(PADDING)
        spiral = spiral + ring
    return spiral


def _rim(
    stars: list[Star], ring: list[int], seen: set[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Successor and predecessor of each vertex on the rim, the unseen vertices opposite a ring. At
    a branching the first one met is taken.
    """
    following: dict[int, int] = {}
    preceding: dict[int, int] = {}
    for center in ring:
        if center != PADDING:
            for a, b in stars[center]:
                if a not in seen and b not in seen:
                    following.setdefault(a, b)
                    preceding.setdefault(b, a)
    return following, preceding


def _turn(following: dict[int, int], preceding: dict[int, int], start: int) -> list[int]:
    """Follow a rim from `start` with the winding. If it does not close, append -1 and the other
    half, from its far end towards `start`.
    """
    ring = [start]
    visited = {start}
    vertex = following.get(start)
    while vertex is not None and vertex not in visited:
        ring.append(vertex)
        visited.add(vertex)
        vertex = following.get(vertex)
    if vertex == start:
        return ring
    back = []
    vertex = preceding.get(start)
    while vertex is not None and vertex not in visited:
        back.append(vertex)
        visited.add(vertex)
        vertex = preceding.get(vertex)
    return [*ring, PADDING, *reversed(back)]


def _beyond(stars: list[Star], ring: list[int], rim: set[int]) -> Iterator[int]:
    """Yield the rim vertices beyond the sides of a ring: beyond its last and first vertex, then its
    first and second, ...
    """
    for first, second in zip([ring[-1], *ring], ring, strict=False):
        if first != PADDING and second != PADDING:
            for a, b in stars[first]:
                if second in (a, b) and (other := a + b - second) in rim:
                    yield other


def _table(spirals: list[list[int]]) -> np.ndarray:
    sizes = np.array([len(spiral) for spiral in spirals])
    length = max(1, int(sizes.mean() + 2 * sizes.std()))
    table = np.full((len(spirals), length), PADDING, np.int64)
    for row, spiral in zip(table, spirals, strict=True):
        row[: len(spiral)] = spiral[:length]
    return table


# SpiralNet++: whole rings


def _ring_level(level: Level, length: int) -> np.ndarray:
    stars = _stars(level)
    rings = [_first_ring(stars, vertex) for vertex in range(len(stars))]
    spirals = np.full((len(stars), length), PADDING, np.int64)
    short = []
    for vertex in range(len(stars)):
        spiral = _ring_spiral(rings, vertex, length)
        if len(spiral) < length:
            short.append(vertex)
        else:
            spirals[vertex] = spiral[:length]
    spirals[short] = _nearest(level.vertices, np.array(short, np.int64), length)
    return spirals


def _first_ring(stars: list[Star], vertex: int) -> list[int]:
    """All neighbors in the order of the winding, from the one of lowest index. Further fans of a
    non-manifold vertex follow in the same way.
    """
    following, preceding = _rim(stars, [vertex], {vertex})
    remaining = following.keys() | preceding.keys()
    ring: list[int] = []
    while remaining:
        fan = [other for other in _turn(following, preceding, min(remaining)) if other in remaining]
        ring += fan
        remaining -= set(fan)
    return ring


def _ring_spiral(rings: list[list[int]], vertex: int, length: int) -> list[int]:
    """The vertex and whole rings until `length` is reached, or until the component ends."""
    spiral = [vertex]
    seen = {vertex}
    ring = rings[vertex]
    while ring and len(spiral) < length:
        spiral = spiral + ring
        seen.update(ring)
        following: list[int] = []
        for center in ring if len(spiral) < length else ():
            # Start at a vertex already in the spiral, so that new ones come in winding order.
            around = rings[center]
            turn = next(i for i, other in enumerate(around) if other in seen)
            for other in around[turn:] + around[:turn]:
                if other not in seen:
                    seen.add(other)
                    following.append(other)
        ring = following
    return spiral


def _nearest(vertices: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """(len(rows), length) the nearest vertices in space, the vertex itself first; they repeat if
    there are too few.
    """
    count = min(length, len(vertices))
    if not len(rows):
        return np.zeros((0, length), np.int64)
    neighbors = cKDTree(vertices).query(vertices[rows], k=np.arange(1, count + 1))[1]
    spirals = np.empty((len(rows), count), np.int64)
    for spiral, vertex, nearest in zip(spirals, rows, neighbors, strict=True):
        # If other vertices have the same position, the tree may return those instead of `vertex`.
        spiral[0] = vertex
        spiral[1:] = nearest[nearest != vertex][: count - 1]
    return spirals[:, np.arange(length) % count]
