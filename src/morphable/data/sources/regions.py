"""Regions from skinning weights, and control vertices spread over a region by farthest-point sampling."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from morphable.mesh.topology import adjacency, components

SMOOTHING_ROUNDS = 3


def skin_regions(weights: np.ndarray, groups: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) the region whose joints pull each vertex most, made connected.

    weights: (V, J) skinning weights; groups: (J,) region number of every joint. The pulls are averaged over neighbours
    first, so that borders run smoothly where two joints pull alike.
    """
    member = (groups[:, None] == np.arange(groups.max() + 1)).astype(np.float64)
    average = adjacency(faces, len(weights)) + sp.identity(len(weights))
    pull = weights @ member
    for _ in range(SMOOTHING_ROUNDS):
        pull = (average @ pull) / average.sum(axis=1).A1[:, None]
    return connected_regions(pull.argmax(axis=1), faces)


def connected_regions(regions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) the same regions, where every fragment but the largest has gone over to the neighbour it touches most.

    Each connected component of the mesh keeps its own largest fragment, so an eyeball stays with its head.
    """
    regions = regions.copy()
    graph = adjacency(faces, len(regions)).tocoo()
    island = components(faces, len(regions))
    while True:
        same = regions[graph.row] == regions[graph.col]
        inside = sp.coo_matrix((np.ones(same.sum()), (graph.row[same], graph.col[same])), shape=graph.shape)
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
        # The smallest fragment goes first: what it touches is then most likely to stay.
        chosen = np.flatnonzero(small)[size[small].argmin()]
        touching = (fragment[graph.row] == chosen) & ~same
        regions[fragment == chosen] = np.bincount(regions[graph.col[touching]]).argmax()


def grow_regions(regions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) with every -1 replaced ring by ring by the most frequent region among its neighbours.

    Vertices that no face path connects to a known region stay -1.
    """
    regions = regions.copy()
    graph = adjacency(faces, len(regions))
    while True:
        known = np.flatnonzero(regions >= 0)
        votes = np.zeros((len(regions), regions.max() + 1))
        votes[known, regions[known]] = 1
        votes = graph @ votes
        ring = (regions < 0) & (votes.sum(axis=1) > 0)
        if not ring.any():
            return regions
        regions[ring] = votes[ring].argmax(axis=1)


def farthest_points(vertices: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """(count,) vertex indices out of `candidates`, each the farthest from those before it; fewer if there are fewer.

    The first is the candidate nearest to their centroid. Distances are Euclidean, in the unit of `vertices` (V, 3).
    """
    points = vertices[candidates].astype(np.float64)
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return candidates[np.array(chosen)]


def control_points(vertices: np.ndarray, regions: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """`count` control vertices for each region 0, 1, ..."""
    return tuple(farthest_points(vertices, np.flatnonzero(regions == r), count) for r in range(regions.max() + 1))


def mirror_map(vertices: np.ndarray, tolerance: float) -> np.ndarray | None:
    """(V,) the vertex nearest to each vertex's image across x = 0, or None where that is no exact pairing.

    tolerance: mm by which an image may miss its partner.
    """
    image = vertices * np.array([-1.0, 1.0, 1.0])
    distance, partner = cKDTree(vertices).query(image)
    paired = distance.max() <= tolerance and np.array_equal(partner[partner], np.arange(len(vertices)))
    return partner.astype(np.int64) if paired else None


def largest_along(vertices: np.ndarray, candidates: np.ndarray, direction: np.ndarray) -> int:
    """The candidate vertex that lies farthest along a direction."""
    return int(candidates[(vertices[candidates] @ direction).argmax()])
