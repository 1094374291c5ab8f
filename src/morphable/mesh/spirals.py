"""Spirals: around every vertex its neighbors in one fixed order, so that a convolution is a gather
and a matrix.

`reference_spirals` orders by the geodesic to a reference point (Bouritsas et al., "Neural 3D
Morphable Models", ICCV 2019); `ring_spirals` by the mesh alone (Gong et al., "SpiralNet++", ICCV
Workshops 2019). Both follow the winding of the faces. Spirals belong to one hierarchy and one
construction: store them with the model that was trained on them.
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
"""Stands for no vertex: a convolution reads zero there."""

SAME = 1e-9
"""Lengths that differ by less than this share of themselves are equal, so that rounding decides
nothing.
"""

Star = list[tuple[int, int]]
"""The sides opposite a vertex in its faces, each in face order."""


def reference_spirals(
    hierarchy: Hierarchy,
    n_steps: Sequence[int] = (2, 2, 1, 1, 1),
    dilation: Sequence[int] = (2, 2, 1, 1, 1),
    references: Sequence[int] | None = None,
) -> tuple[np.ndarray, ...]:
    """Neural3DMM's spirals, per level (n, length) int64, -1 where there is no vertex; each starts
    with its own vertex.

    n_steps: rings per level. dilation: per level, keep every so-many-th entry after the vertex
    itself. references: template vertices to start from, one per connected component; by default the
    vertex nearest to the component's centroid. Coarser levels use the vertices nearest to them (the
    last one, where several fall on one component), and a component that has none uses its default.

    A ring starts at the neighbor on the shortest edge path to the reference (at the reference
    itself: the nearest neighbor) and turns with the face winding. A ring that meets a border goes
    on from the start the other way round; one -1 stands between the halves. The second ring starts
    at the vertex beyond the first ring's last and first. Length: int(mean + 2 std) over the level's
    spirals; longer ones are cut.

    Raises InputError where the number of steps or dilations is not that of the levels, or a
    reference is no vertex.
    """
    for name, values in (("n_steps", n_steps), ("dilation", dilation)):
        if len(values) != len(hierarchy.levels) or min(values) < 1:
            raise InputError(
                f"{name}: expected one positive number for each of {len(hierarchy.levels)} levels, got {values}"
            )
    count = hierarchy.sizes[0]
    given = np.asarray([] if references is None else references, np.int64)
    if given.ndim != 1 or (given < 0).any() or (given >= count).any():
        raise InputError(f"references: expected vertex indices in 0..{count - 1}, got {references}")
    roots = _roots(hierarchy.levels[0], given)
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
    """SpiralNet++'s spirals, per level (n, seq_length) int64 without padding; each starts with its
    own vertex.

    The first ring starts at the neighbor of lowest index and turns with the face winding; further
    rings follow whole, until seq_length * dilation entries are there, of which every dilation-th
    stays. Where the component has too few vertices the spiral is the vertex's nearest ones instead,
    itself first, and where the whole level has too few these repeat in the same order.

    Raises InputError where seq_length or dilation is not positive.
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


# Neural3DMM: start on the way to a reference point


def _roots(level: Level, given: np.ndarray) -> np.ndarray:
    """One vertex per component: the last of the given ones there, else the nearest to the
    component's centroid.
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
    root[labels[nearest]] = nearest  # of equals the last written stays, which is the lowest index
    root[labels[given]] = given
    return root


def _starts(level: Level, roots: np.ndarray) -> list[int]:
    """For every vertex the next one on the shortest path to its component's root; -1 where it has
    no neighbor.
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
    """(n, n) symmetric edge lengths; coincident neighbors get a tiny one, as zero would mean no
    edge.
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
    """The next vertex, and the one before, along the rim of unseen vertices opposite a ring; any
    one at a branching.
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
    """Walk a rim from `start` with the winding; where it stays open, add -1 and the other way, far
    end first.
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
    """Rim vertices beyond the sides of a ring: that of its last and first, then of first and
    second, ...
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
    """All neighbors by winding from the one of lowest index; further fans of a non-manifold vertex
    follow likewise.
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
    """The vertex and whole rings until `length` is reached, fewer entries where the component ends."""
    spiral = [vertex]
    seen = {vertex}
    ring = rings[vertex]
    while ring and len(spiral) < length:
        spiral = spiral + ring
        seen.update(ring)
        following: list[int] = []
        for center in ring if len(spiral) < length else ():
            around = rings[center]
            turn = next(i for i, other in enumerate(around) if other in seen)
            for other in around[turn:] + around[:turn]:
                if other not in seen:
                    seen.add(other)
                    following.append(other)
        ring = following
    return spiral


def _nearest(vertices: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """(len(rows), length) the nearest vertices in space, the vertex itself first, repeated where
    there are too few.
    """
    count = min(length, len(vertices))
    if not len(rows):
        return np.zeros((0, length), np.int64)
    found = cKDTree(vertices).query(vertices[rows], k=np.arange(1, count + 1))[1]
    spirals = np.empty((len(rows), count), np.int64)
    for spiral, vertex, nearest in zip(spirals, rows, found, strict=True):
        spiral[0] = (
            vertex  # which need not be the first found, nor found at all, where others lie in the same place
        )
        spiral[1:] = nearest[nearest != vertex][: count - 1]
    return spirals[:, np.arange(length) % count]
