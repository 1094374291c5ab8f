"""Regions from skinning weights, and control vertices spread over each region by farthest-point
sampling.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from morphable.mesh.regions import connected_regions, farthest_points
from morphable.mesh.topology import adjacency

SMOOTHING_ROUNDS = 3


def skin_regions(weights: np.ndarray, groups: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Assign each vertex to the region whose joints have the largest weight, and make the regions
    connected. Returns region numbers (V,).

    weights: (V, J) skinning weights. groups: (J,) region number of every joint. The weights are
    first averaged over neighbors, so that borders are smooth between joints of similar weight.
    """
    member = (groups[:, None] == np.arange(groups.max() + 1)).astype(np.float64)
    average = adjacency(faces, len(weights)) + sp.identity(len(weights))
    pull = weights @ member
    for _ in range(SMOOTHING_ROUNDS):
        pull = (average @ pull) / average.sum(axis=1).A1[:, None]
    return connected_regions(pull.argmax(axis=1), faces)


def grow_regions(regions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Replace every -1 in regions (V,), ring by ring, by the most frequent region of its neighbors.

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


def control_points(vertices: np.ndarray, regions: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Choose `count` control vertices for each region 0, 1, ..."""
    return tuple(
        farthest_points(vertices, np.flatnonzero(regions == r), count)
        for r in range(regions.max() + 1)
    )


def mirror_map(vertices: np.ndarray, tolerance: float) -> np.ndarray | None:
    """Find the vertex (V,) nearest to the mirror image of each vertex across x = 0. Returns None if
    that does not pair the vertices.

    tolerance: maximum distance of an image from its partner, mm.
    """
    image = vertices * np.array([-1.0, 1.0, 1.0])
    distance, partner = cKDTree(vertices).query(image)
    paired = distance.max() <= tolerance and np.array_equal(
        partner[partner], np.arange(len(vertices))
    )
    return partner.astype(np.int64) if paired else None


def largest_along(vertices: np.ndarray, candidates: np.ndarray, direction: np.ndarray) -> int:
    """Return the candidate vertex that is farthest in a direction (3,)."""
    return int(candidates[(vertices[candidates] @ direction).argmax()])
