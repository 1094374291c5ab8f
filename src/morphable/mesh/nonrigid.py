"""deform: bring a template onto a scan by non-rigid iterated closest points with optimal steps
(Amberg, Romdhani and Vetter, CVPR 2007).

Every vertex i has an affine map X_i (4, 3). With stiffness a, each step minimizes

    sum_i w_i |x_i X_i - u_i|^2  +  a sum_(i,j) |(X_i - X_j) G|^2  +  b sum_l |x_l X_l - p_l|^2

over all maps at once, where x_i = (vertex, 1), u_i is its match on the scan (the place nearest in
position and normal), G = diag(1, 1, 1, g) weighs linear parts against shifts, and p_l are landmarks.
The problem is linear and sparse.
Stiffness falls from step to step, so the template first moves as a whole and then bends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from morphable.mesh.distance import balanced_length, closest_alike, closest_points
from morphable.mesh.landmarks import Landmarks
from morphable.mesh.placement import shape_size
from morphable.mesh.scan import Scan
from morphable.mesh.topology import boundary_edges, edges, vertex_normals

STIFFNESS = (200.0, 80.0, 32.0, 12.0, 5.0, 2.0, 0.8, 0.3, 0.1)
"""Schedule from the template alone, for vertices in units of the template's size and thousands of
them.
"""
LET_GO = (5.0, 2.0, 0.8, 0.3, 0.1)
"""Schedule if the shape is nearly right, as after a fit of a model."""
STEPS = 2
"""Matches and solves per stiffness."""
MIN_COSINE = 0.6
"""A match whose normal differs by more than 53 degrees does not count."""
NORMAL_LENGTH = 0.2
"""How far apart places with opposite normals count as in the first match and at most, in sizes of the
template, divided by two. Then normals count as much as positions: as they differ where they match.
"""
SPREAD = 4.0
"""Matches farther than this many robust standard deviations do not count."""
REACH, NARROWEST = 0.2, 0.02
"""Nor do those farther than this share of the template's size, at the first stiffness and at the
last; a spread of less than a tenth of that never shuts a match out.
"""
LANDMARK_WEIGHT = 10.0
"""Of a landmark against a vertex at the first stiffness; it falls with the stiffness."""
RIDGE = 1e-9
"""Keeps parts of the template that nothing determines in place."""


@dataclass(frozen=True, eq=False)
class Target:
    """A scan as matching needs it.

    scan: its points and, if known, normals. triangles: (T, 3) of its surface; none of a cloud.
    on_border: (P,) bool, points on the border of the surface.
    """

    scan: Scan
    triangles: np.ndarray
    on_border: np.ndarray

    @classmethod
    def of(cls, scan: Scan, triangles: np.ndarray) -> Target:
        """The target of a mesh's points and triangles, which may be none."""
        on_border = np.zeros(len(scan.points), bool)
        if len(triangles):
            on_border[boundary_edges(triangles)] = True
        return cls(scan, triangles, on_border)


@dataclass(frozen=True, eq=False)
class Matched:
    """The nearest place of a target for each of V vertices.

    positions: (V, 3). distance: (V,). usable: (V,) bool: the place is not on the target's border
    and has a normal like the vertex's. normal_length: by which a difference of normals would be
    multiplied to count as much as the distances do here; 0 if normals are unknown.
    """

    positions: np.ndarray
    distance: np.ndarray
    usable: np.ndarray
    normal_length: float


def match_target(
    target: Target, vertices: np.ndarray, triangles: np.ndarray, normal_length: float = 0.0
) -> Matched:
    """Find the nearest place on the target for each vertex (V, 3) of a surface (T, 3), in the unit
    of the target; with a normal_length, the place nearest in position and normal, see
    `closest_alike`.
    """
    own = vertex_normals(vertices, triangles)
    points, normals = target.scan.points, target.scan.normals
    if len(target.triangles):
        if normals is None or not normal_length:
            nearest = closest_points(vertices, points, target.triangles)
        else:
            nearest = closest_alike(vertices, own, points, normals, target.triangles, normal_length)
        corners = target.triangles[nearest.face]
        weights = nearest.barycentric
        positions = np.einsum("vc,vcx->vx", weights, points[corners])
        on_border = (target.on_border[corners] | (weights <= 1e-9)).all(1)
        usable = ~on_border
        if normals is not None:
            there = np.einsum("vc,vcx->vx", weights, normals[corners])
    else:
        if normals is None:
            row = cKDTree(points).query(vertices)[1]
        else:
            both = np.concatenate([points, normal_length * normals], 1)
            row = cKDTree(both).query(np.concatenate([vertices, normal_length * own], 1))[1]
        positions, usable = points[row], np.ones(len(vertices), bool)
        if normals is not None:
            there = normals[row]
    distance, balanced = np.linalg.norm(positions - vertices, axis=1), 0.0
    if normals is not None:
        length = np.linalg.norm(there, axis=1)
        there = there / np.maximum(length, 1e-30)[:, None]
        known = length > 1e-12
        usable = usable & (~known | ((there * own).sum(1) > MIN_COSINE))
        if (usable & known).any():
            turned = np.linalg.norm(there - own, axis=1)
            balanced = balanced_length(distance[usable & known], turned[usable & known])
    return Matched(positions, distance, usable, balanced)


def deform(
    vertices: np.ndarray,
    faces: np.ndarray,
    triangles: np.ndarray,
    target: Target,
    stiffness: tuple[float, ...] = STIFFNESS,
    landmarks: Landmarks | None = None,
) -> np.ndarray:
    """Move the vertices (V, 3) mm of a template, roughly in place, onto a target: (V, 3) mm.

    faces: (F, K) the template's; triangles: (T, 3) the same split. landmarks: vertices with their
    positions in the target's frame. Vertices without a match follow their neighbors.
    """
    start = np.asarray(vertices, np.float64)
    center, size = start.mean(0), shape_size(start)
    pairs = edges(faces)
    unit = (start - center) / size
    system = _System.of(unit, pairs)
    seen = landmarks or Landmarks.none()
    moved, normal_length = start, NORMAL_LENGTH * size
    for value in stiffness:
        share = (value / stiffness[0]) ** 0.5
        reach = max(REACH * share, NARROWEST) * size
        for _ in range(STEPS):
            found = match_target(target, moved, triangles, normal_length)
            normal_length = min(found.normal_length, NORMAL_LENGTH * size)
            weights = _weights(found, reach)
            goals = (found.positions - center) / size
            if len(seen.vertices):
                strength = LANDMARK_WEIGHT * share
                known = (seen.positions - center) / size
                mixed = weights[seen.vertices, None] * goals[seen.vertices] + strength * known
                weights[seen.vertices] += strength
                goals[seen.vertices] = mixed / weights[seen.vertices, None]
            moved = center + size * system.solve(weights, goals, value)
    return moved


def _weights(found: Matched, reach: float) -> np.ndarray:
    """(V,) Tukey's weights of matches within reach."""
    usable = found.usable & (found.distance < reach)
    if not usable.any():
        return np.zeros(len(usable))
    spread = max(1.4826 * float(np.median(found.distance[usable])), reach / 10)
    limit = min(reach, SPREAD * spread)
    return usable * np.square(np.clip(1 - np.square(found.distance / limit), 0, None))


@dataclass(frozen=True, eq=False)
class _System:
    """The normal equations of a template with V vertices.

    places: (V, 4V) the vertices in homogeneous coordinates. differences: (4V, 4V) the stiffness
    term for a stiffness of one. still: (4V, 3) identity maps.
    """

    places: sp.csr_matrix
    differences: sp.csr_matrix
    still: np.ndarray

    @classmethod
    def of(cls, vertices: np.ndarray, pairs: np.ndarray) -> _System:
        """vertices: (V, 3), of size one. pairs: (E, 2) edges."""
        count, n_edges = len(vertices), len(pairs)
        rows = np.repeat(np.arange(n_edges), 2)
        signs = np.tile([-1.0, 1.0], n_edges)
        incidence = sp.csr_matrix((signs, (rows, pairs.ravel())), (n_edges, count))
        # The sum over the edges of a smooth field is that of any resolution, the sum over the
        # matches grows with their number.
        laplacian = incidence.T @ incidence * (count / 1000)
        homogeneous = np.concatenate([vertices, np.ones((count, 1))], 1)
        where = (np.repeat(np.arange(count), 4), np.arange(4 * count))
        places = sp.csr_matrix((homogeneous.ravel(), where), (count, 4 * count))
        differences = sp.kron(laplacian, sp.eye_array(4), format="csr")
        return cls(places, differences, np.tile(np.eye(4, 3), (count, 1)))

    def solve(self, weights: np.ndarray, goals: np.ndarray, stiffness: float) -> np.ndarray:
        """(V, 3) where the best maps bring the vertices, for matches (V, 3) with weights (V,)."""
        weighted = self.places.T @ sp.diags_array(weights)
        ridge = RIDGE * sp.eye_array(len(self.still))
        matrix = weighted @ self.places + stiffness * self.differences + ridge
        right = weighted @ goals + RIDGE * self.still
        # The matrix is symmetric and positive definite: no pivots, and a symmetric order.
        factor = splu(
            sp.csc_matrix(matrix),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        return np.asarray(self.places @ factor.solve(right))
