"""Make regions automatically: geodesic Voronoi cells of farthest points, centered (Lloyd) and
smoothed, and symmetric if the template is.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from morphable.errors import InputError
from morphable.mesh.laplacian import mass_matrix
from morphable.mesh.mesh import Mesh
from morphable.mesh.regions import Regions, connected_regions, spread_controls
from morphable.mesh.template import Template
from morphable.mesh.topology import adjacency, components

COUNT = 11
"""Default number of regions of a template that has none of its own."""
MIN_SIZE = 8
"""Vertices that a region has on average at least, if their number is not given."""
CENTRING_ROUNDS = 4
SMOOTHING_ROUNDS = 6
MIRROR_ROUNDS = 5


def template_regions(
    template: Template, count: int = 0, merged_from: Sequence[int] = ()
) -> Regions:
    """Return the template's own regions with control vertices. If it has none, or `count` is not 0,
    make `count` (by default COUNT) automatic ones instead, as `automatic_regions` does.
    """
    own = template.regions
    if not count and own is None:
        count = min(COUNT, max(1, template.n_vertices // MIN_SIZE))
        if count < COUNT:
            warnings.warn(
                f"the template has {template.n_vertices} vertices, enough for {count} of {COUNT} "
                "regions"
            )
    if count or own is None:
        return automatic_regions(template.mesh, count, template.mirror, merged_from)
    if own.controls:
        return own
    return replace(own, controls=spread_controls(template.mesh, own.labels))


def automatic_regions(
    mesh: Mesh, count: int, mirror: np.ndarray | None = None, merged_from: Sequence[int] = ()
) -> Regions:
    """Make `count` connected regions of similar size.

    mirror: (V,) the vertex that mirrors each vertex; if given, the regions are symmetric.
    merged_from: numbers of finer regions, falling. First the finest are made, and then merged,
    smallest first, to each of these numbers in turn and at last to `count`. So a set nests in all
    sets that it is merged from.

    Raises InputError if a count is not in 1..V, or the numbers do not fall.
    """
    n_vertices = len(mesh.vertices)
    counts = [*merged_from, count]
    for number in counts:
        if not 1 <= number <= n_vertices:
            raise InputError(
                f"regions: expected a count from 1 to {n_vertices} (the vertices), got {number}"
            )
    for finer, coarser in itertools.pairwise(counts):
        if finer < coarser:
            raise InputError(f"regions: {coarser} cannot be merged from {finer}, which is fewer")
    finest = counts[0]
    mirror = np.arange(n_vertices) if mirror is None else mirror
    graph = _geodesic_graph(mesh, mirror)
    labels = _voronoi(graph, _seeds(graph, mesh.vertices, mirror, finest))
    labels = _mirrored(_smooth(labels, mesh.faces, finest), mesh, mirror, finest)
    for number in counts:
        labels = _fit_count(labels, mesh, mirror, number)
    labels, names = _named(labels, mesh.vertices, mirror)
    return Regions(labels, names, spread_controls(mesh, labels))


def _geodesic_graph(mesh: Mesh, mirror: np.ndarray) -> sp.csr_matrix:
    """(V, V) edge lengths of the symmetrized shape; the shortest possible extra edge joins each
    further component, because geodesics cannot cross gaps.
    """
    points = np.asarray(mesh.vertices, np.float64)
    if not np.array_equal(mirror, np.arange(len(points))):
        points = 0.5 * (points + points[mirror] * [-1, 1, 1])
    pairs = adjacency(mesh.faces, len(points)).tocoo()
    rows, cols = [pairs.row], [pairs.col]
    island = components(mesh.faces, len(points))
    joined = island == np.bincount(island).argmax()
    while not joined.all():
        rest = np.flatnonzero(~joined)
        distance, near = cKDTree(points[joined]).query(points[rest])
        best = distance.argmin()
        a, b = rest[best], np.flatnonzero(joined)[near[best]]
        rows, cols = [*rows, np.array([a, b])], [*cols, np.array([b, a])]
        joined |= island == island[a]
    row, col = np.concatenate(rows), np.concatenate(cols)
    length = np.linalg.norm(points[row] - points[col], axis=1) + 1e-9
    return sp.csr_matrix((length, (row, col)), shape=(len(points),) * 2)


def _seeds(graph: sp.csr_matrix, vertices: np.ndarray, mirror: np.ndarray, count: int) -> list[int]:
    """Choose `count` vertices by farthest-point sampling, in mirror pairs or on the midline, and
    center them in their cells.
    """
    middle = np.flatnonzero(mirror == np.arange(len(mirror)))
    paired = len(middle) < len(mirror)
    center = int(np.linalg.norm(vertices - vertices.mean(0), axis=1).argmin())
    nearest = dijkstra(graph, indices=center)
    seeds: list[int] = []
    while len(seeds) < count:
        seed = int(nearest.argmax())
        reach = dijkstra(graph, indices=seed)
        single = mirror[seed] == seed
        if (
            paired
            and not single
            and len(middle)
            and (count - len(seeds) == 1 or reach[mirror[seed]] < nearest[seed])
        ):
            # A pair would lie too close together, or only one seed is left: use the midline.
            free = middle[~np.isin(middle, seeds)]
            seed = int(free[reach[free].argmin()]) if len(free) else seed
            reach, single = dijkstra(graph, indices=seed), True
        new = [seed] if single or count - len(seeds) == 1 else [seed, int(mirror[seed])]
        nearest = reach if not seeds else np.minimum(nearest, reach)
        for other in new[1:]:
            nearest = np.minimum(nearest, dijkstra(graph, indices=other))
        seeds += new
        nearest[seeds] = -1.0
    for _ in range(CENTRING_ROUNDS):
        seeds = _centered(graph, vertices, mirror, seeds)
    return seeds


def _centered(
    graph: sp.csr_matrix, vertices: np.ndarray, mirror: np.ndarray, seeds: list[int]
) -> list[int]:
    """Move every seed to the vertex of its cell nearest to the cell's centroid. Mirror pairs stay
    pairs, and seeds on the midline stay on it.
    """
    labels = _voronoi(graph, seeds)
    moved = list(seeds)
    for number, seed in enumerate(seeds):
        partner = int(mirror[seed])
        if partner != seed and partner in seeds[:number]:
            moved[number] = int(mirror[moved[seeds.index(partner)]])
            continue
        cell = np.flatnonzero(labels == number)
        on_middle = cell[mirror[cell] == cell]
        candidates = on_middle if partner == seed and len(on_middle) else cell
        centroid = vertices[cell].mean(0)
        moved[number] = int(
            candidates[np.linalg.norm(vertices[candidates] - centroid, axis=1).argmin()]
        )
    return moved if len(set(moved)) == len(moved) else seeds


def _voronoi(graph: sp.csr_matrix, seeds: list[int]) -> np.ndarray:
    """(V,) number of the geodesically nearest seed; of equally near seeds the first."""
    return dijkstra(graph, indices=seeds).argmin(0)


def _smooth(labels: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """Straighten borders: average memberships over neighbors and give each vertex to the largest.
    If a region would vanish, nothing changes.
    """
    member = (labels[:, None] == np.arange(count)).astype(np.float64)
    average = adjacency(faces, len(labels)) + sp.identity(len(labels))
    weight = np.asarray(average.sum(axis=1))
    for _ in range(SMOOTHING_ROUNDS):
        member = (average @ member) / weight
    result = connected_regions(member.argmax(1), faces)
    return result if len(np.unique(result)) == count else labels


def _mirrored(labels: np.ndarray, mesh: Mesh, mirror: np.ndarray, count: int) -> np.ndarray:
    """Copy the labels of the side x > 0 to the other side, mirrored, because smoothing may break
    ties differently on the two sides.
    """
    own = np.arange(len(labels))
    if np.array_equal(mirror, own):
        return connected_regions(labels, mesh.faces)
    partner = _partners(labels, mirror, count)
    right = np.asarray(mesh.vertices)[:, 0] - np.asarray(mesh.vertices)[mirror, 0] > 0
    result = labels.copy()
    # Connecting the regions may break the symmetry again, so repeat until nothing changes.
    for _ in range(MIRROR_ROUNDS):
        result[mirror[right]] = partner[result[right]]
        mirrored, result = result, connected_regions(result, mesh.faces)
        if np.array_equal(mirrored, result):
            break
    return result if len(np.unique(result)) == count else connected_regions(labels, mesh.faces)


def _partners(labels: np.ndarray, mirror: np.ndarray, count: int) -> np.ndarray:
    """(R,) for each region, the region that contains most of its mirror image."""
    shared = np.zeros((count, count), np.int64)
    np.add.at(shared, (labels, labels[mirror]), 1)
    return (shared + shared.T).argmax(1)


def _fit_count(labels: np.ndarray, mesh: Mesh, mirror: np.ndarray, count: int) -> np.ndarray:
    """Merge the smallest region, or mirror pair of regions, into the neighbor with the longest
    common border, until `count` regions are left.
    """
    pairs = adjacency(mesh.faces, len(labels)).tocoo()
    area = mass_matrix(mesh.vertices, mesh.triangles).diagonal()
    while (n_regions := int(labels.max()) + 1) > count:
        border = np.zeros((n_regions, n_regions), np.int64)
        np.add.at(border, (labels[pairs.row], labels[pairs.col]), 1)
        np.fill_diagonal(border, 0)
        isolated = border.sum(1, keepdims=True) == 0
        border += _nearness(labels, mesh.vertices, n_regions) * isolated
        into = _merge(
            border,
            np.bincount(labels, area),
            _partners(labels, mirror, n_regions),
            n_regions - count,
        )
        labels = np.unique(into[labels], return_inverse=True)[1]
    return labels


def _merge(
    border: np.ndarray, size: np.ndarray, partner: np.ndarray, max_merges: int
) -> np.ndarray:
    """(R,) the region that each region becomes if the smallest one and its mirror partner are
    merged, in at most `max_merges` merges.

    A region on the midline is merged into another on the midline. A mirror pair is merged into
    another pair, into a region on the midline, or, if one merge is left, into one region.
    """
    into = np.arange(len(size))
    middle = partner == into
    for small in np.argsort(size, kind="stable"):
        other = partner[small]
        allowed = border[small] * (middle if middle[small] else into != other)
        if not middle[small] and max_merges < 2:
            allowed = border[small] * (into == other)
        if allowed.any():
            goal = int(allowed.argmax())
            into[small] = goal
            if not middle[small] and goal != other:
                into[other] = partner[goal]
            return into
    # No symmetric merge is possible: give up the symmetry rather than the count.
    smallest = int(size.argmin())
    into[smallest] = int(border[smallest].argmax())
    return into


def _nearness(labels: np.ndarray, vertices: np.ndarray, count: int) -> np.ndarray:
    """(R, R) 1 at the region with the nearest centroid, the one that a region without neighbors is
    merged into.
    """
    center = np.stack([vertices[labels == r].mean(0) for r in range(count)])
    distance = np.linalg.norm(center[:, None] - center, axis=-1) + np.diag(np.full(count, np.inf))
    return (distance == distance.min(1, keepdims=True)).astype(np.int64)


def _named(
    labels: np.ndarray, vertices: np.ndarray, mirror: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number the regions from the top down and name them r1, r2, ...; the regions of a mirror pair
    are called r3-left (x > 0) and r3-right.
    """
    count = int(labels.max()) + 1
    partner = _partners(labels, mirror, count)
    partner = np.where(partner[partner] == np.arange(count), partner, np.arange(count))
    height = np.array([vertices[labels == r, 1].mean() for r in range(count)])
    side = np.array([vertices[labels == r, 0].mean() for r in range(count)])
    key = np.minimum(np.arange(count), partner)
    order = sorted(
        range(count), key=lambda r: (-max(height[r], height[partner[r]]), key[r], -side[r])
    )
    names, number, seen = [], 0, set()
    for region in order:
        if key[region] not in seen:
            seen.add(key[region])
            number += 1
        pair = partner[region] != region
        names.append(
            f"r{number}"
            + (("-left" if side[region] > side[partner[region]] else "-right") if pair else "")
        )
    position = np.empty(count, np.int64)
    position[order] = np.arange(count)
    return position[labels], tuple(names)
