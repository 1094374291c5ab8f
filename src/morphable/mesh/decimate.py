"""Decimation by quadric half-edge collapse that only ever selects vertices (Garland & Heckbert,
SIGGRAPH 1997).

An edge collapses onto one of its own ends, so a coarse level is a subset of the fine one, as mesh
autoencoders need (Ranjan et al., "Generating 3D faces using convolutional mesh autoencoders", ECCV
2018). Beyond that construction, collapses that would fold the surface over or make it non-manifold
wait until the target cannot be reached otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np
import scipy.sparse as sp

from morphable.errors import InputError

LEAST_COSINE = 0.2
"""A face counts as flipped when collapses turn its normal further than this cosine (about 78
degrees).
"""

STABILIZER = 1e-9
"""Weight of the squared distance to a vertex itself beside that to its planes. On flat ground,
where the planes say nothing, it spreads the collapses evenly; without it rounding decides, and
single vertices gather whole regions.
"""

# What is wrong with a collapse, worst last; one with a fault is made only where none with a lesser
# fault is left. Flipped: a face turns over. Nonmanifold: the result is. Overshooting: a separate
# triangle vanishes, which by itself is sound, and leaves fewer vertices than asked for. Emptying:
# nothing would be left; never made.
SOUND, FLIPPED, NONMANIFOLD, OVERSHOOTING, EMPTYING = range(5)


@dataclass(frozen=True, eq=False)
class Decimation:
    """The result of `decimate`.

    kept: (n',) int64 indices of the surviving vertices, ascending. triangles: (F', 3) int64 faces
    of the coarse mesh, numbering the survivors 0..n'-1; every survivor has a face.
    """

    kept: np.ndarray
    triangles: np.ndarray


def decimate(vertices: np.ndarray, triangles: np.ndarray, target: int) -> Decimation:
    """Select `target` vertices of a mesh, and the faces between them, by quadric error.

    vertices: (n, 3), any unit. triangles: (F, 3); repeated and degenerate faces and unreferenced
    vertices are fine. target: how many vertices to keep, at least 3. The result has exactly that
    many, except that a mesh with fewer referenced vertices keeps those, and where only separate
    triangles are left one or two fewer may remain.

    The cost of an edge is the error x^T (Q_a + Q_b) x at the better of its two ends, where Q_v sums
    the squared distance to the planes of the faces around v, without area weights, and very lightly
    that to v itself. Near-linear in n; deterministic.

    Raises InputError where `target` is below 3 or no face has three different corners.
    """
    if target < 3:
        raise InputError(f"target: a level needs at least 3 vertices, got {target}")
    corners = np.asarray(triangles, np.int64)
    corners = corners[(corners != np.roll(corners, 1, axis=1)).all(axis=1)]
    if not len(corners):
        raise InputError(
            "triangles: expected at least one face with three different corners, got none"
        )
    surface = _Surface(np.asarray(vertices, np.float64), corners)
    surface.reduce(target)
    return surface.result()


def face_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(F, 3) unit normals; zero where a face has no area."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    longest = np.maximum(((b - a) ** 2).sum(1), ((c - a) ** 2).sum(1))[:, None]
    return np.where(length > 1e-14 * longest, normal / np.where(length > 0, length, 1), 0)


def vertex_quadrics(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(10, n) upper triangles, row by row, of 4x4 quadrics: the sum of p p^T over the unit planes p
    = (a, b, c, d) around each vertex, and its stabilizer. A face without area has no plane and adds
    nothing.
    """
    normal = face_normals(points, triangles)
    plane = np.concatenate(
        [normal, -(normal * points[triangles[:, 0]]).sum(1, keepdims=True)], axis=1
    )
    rows, cols = np.triu_indices(4)
    ones = np.ones(triangles.size)
    incidence = sp.csr_matrix(
        (ones, (triangles.T.ravel(), np.tile(np.arange(len(triangles)), 3))),
        (len(points), len(plane)),
    )
    x, y, z = points.T
    one, none = np.ones(len(points)), np.zeros(len(points))
    own = np.stack([one, none, none, -x, one, none, -y, one, -z, x * x + y * y + z * z])
    return np.asarray(incidence @ (plane[:, rows] * plane[:, cols])).T + STABILIZER * own


def _error(quadric: Any, point: Any) -> Any:
    """[x y z 1] Q [x y z 1]^T, for floats and for arrays alike, so that both round alike."""
    xx, xy, xz, xd, yy, yz, yd, zz, zd, dd = quadric
    x, y, z = point
    return (
        x * (xx * x + 2 * (xy * y + xz * z + xd))
        + y * (yy * y + 2 * (yz * z + yd))
        + z * (zz * z + 2 * zd)
        + dd
    )


def _normal(
    p: tuple[float, ...], q: tuple[float, ...], r: tuple[float, ...]
) -> tuple[float, float, float]:
    ax, ay, az = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    bx, by, bz = r[0] - p[0], r[1] - p[1], r[2] - p[2]
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


class _Surface:
    """The mesh while it shrinks: plain lists and floats, which are several times faster here than
    numpy scalars.
    """

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        points = vertices - vertices.mean(axis=0)  # quadrics lose digits far from the origin
        quadrics = vertex_quadrics(points, triangles)
        first = np.unique(np.sort(triangles, axis=1), axis=0, return_index=True)[1]
        triangles = triangles[np.sort(first)]
        self.point: list[tuple[float, ...]] = list(map(tuple, points.tolist()))
        self.quadric: list[tuple[float, ...]] = list(zip(*quadrics.tolist(), strict=True))
        self.corners: list[list[int]] = triangles.tolist()
        self.normal: list[list[float]] = face_normals(points, triangles).tolist()
        self.faces: list[set[int]] = [set() for _ in points]
        for face, corners in enumerate(self.corners):
            for vertex in corners:
                self.faces[vertex].add(face)
        self.used = sum(map(bool, self.faces))
        self.heir = list(range(len(points)))  # whom a destroyed vertex collapsed onto
        self.heap = _queue(points, quadrics, triangles)

    def reduce(self, target: int) -> None:
        """Collapse the least edge, by fault and then by cost, until `target` vertices are in use or
        none can go.
        """
        heap, quadrics, point = self.heap, self.quadric, self.point
        while self.used > target and heap:
            fault, cost, a, b = heappop(heap)
            a, b = self._living(a), self._living(b)
            if a == b:
                continue
            quadric = tuple([p + q for p, q in zip(quadrics[a], quadrics[b], strict=True)])
            keep_a, keep_b = _error(quadric, point[a]), _error(quadric, point[b])
            now = min(keep_a, keep_b)
            if now > cost:
                heappush(heap, (fault, now, a, b))
                continue
            gone, kept = (b, a) if keep_a < keep_b else (a, b)
            shared = [face for face in self.faces[gone] if kept in self.corners[face]]
            if not shared:  # no longer an edge
                continue
            found = self._fault(gone, kept, shared, target)
            if found <= fault:
                self._collapse(gone, kept, shared)
                quadrics[kept] = quadric
            elif found < EMPTYING:
                heappush(heap, (found, now, a, b))

    def result(self) -> Decimation:
        alive = sorted(set().union(*self.faces))
        triangles = np.array([self.corners[face] for face in alive], np.int64)
        kept, triangles = np.unique(triangles, return_inverse=True)
        return Decimation(kept, triangles.reshape(-1, 3))

    def _living(self, vertex: int) -> int:
        heir = self.heir
        while heir[vertex] != vertex:
            heir[vertex] = vertex = heir[heir[vertex]]
        return vertex

    def _fault(self, gone: int, kept: int, shared: list[int], target: int) -> int:
        lost = self._lost(gone, kept, shared)
        if self.used - lost < target:
            return OVERSHOOTING if lost < self.used else EMPTYING
        if self._makes_nonmanifold(gone, kept, shared):
            return NONMANIFOLD
        return FLIPPED if self._flips(gone, kept, shared) else SOUND

    def _lost(self, gone: int, kept: int, shared: list[int]) -> int:
        """How many vertices are without a face afterwards: one, unless faces vanish that were a
        vertex's only ones.
        """
        lost = 1
        faces = self.faces
        if len(faces[gone]) == len(shared) and len(faces[kept]) == len(shared):
            lost += 1
        apexes = [
            vertex
            for face in shared
            for vertex in self.corners[face]
            if vertex != gone and vertex != kept
        ]
        return lost + sum(len(faces[apex]) == apexes.count(apex) for apex in set(apexes))

    def _makes_nonmanifold(self, gone: int, kept: int, shared: list[int]) -> bool:
        """The link condition of Dey et al. (1999): the ends of the edge have in common only what
        its faces show.
        """
        around_gone, around_kept = self._degrees(gone), self._degrees(kept)
        apexes = {vertex for face in shared for vertex in self.corners[face]} - {gone, kept}
        borders_touch = len(shared) > 1 and 1 in around_gone.values() and 1 in around_kept.values()
        return borders_touch or len(around_gone.keys() & around_kept.keys()) != len(apexes)

    def _degrees(self, vertex: int) -> dict[int, int]:
        """Each neighbor of a vertex with the number of faces at the edge between them."""
        degrees: dict[int, int] = {}
        for face in self.faces[vertex]:
            for other in self.corners[face]:
                if other != vertex:
                    degrees[other] = degrees.get(other, 0) + 1
        return degrees

    def _flips(self, gone: int, kept: int, shared: list[int]) -> bool:
        """Whether a face would turn too far from the direction it had before all collapses, or lose
        its area.
        """
        point = self.point
        target = point[kept]
        for face in self.faces[gone]:
            if face in shared or not any(self.normal[face]):
                continue
            a, b, c = self.corners[face]
            while a != gone:
                a, b, c = b, c, a
            ux, uy, uz = self.normal[face]
            vx, vy, vz = _normal(target, point[b], point[c])
            if ux * vx + uy * vy + uz * vz <= LEAST_COSINE * math.sqrt(vx * vx + vy * vy + vz * vz):
                return True
        return False

    def _collapse(self, gone: int, kept: int, shared: list[int]) -> None:
        self.used -= self._lost(gone, kept, shared)
        for face in shared:
            self._remove(face)
        for face in list(self.faces[gone]):
            corners = [kept if vertex == gone else vertex for vertex in self.corners[face]]
            if self._exists(corners):
                self._remove(face)
            else:
                self.corners[face] = corners
                self.faces[kept].add(face)
        self.faces[gone] = set()
        self.heir[gone] = kept

    def _remove(self, face: int) -> None:
        for vertex in self.corners[face]:
            self.faces[vertex].discard(face)

    def _exists(self, corners: list[int]) -> bool:
        a, b, c = corners
        return bool(self.faces[a] & self.faces[b] & self.faces[c])


def _queue(
    points: np.ndarray, quadrics: np.ndarray, triangles: np.ndarray
) -> list[tuple[int, float, int, int]]:
    """All edges as (no fault known, cost, smaller end, larger end), sorted, which is a heap."""
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    first, second = np.unique(np.sort(pairs, axis=1), axis=0).T
    joint = quadrics[:, first] + quadrics[:, second]
    cost = np.minimum(_error(joint, points[first].T), _error(joint, points[second].T))
    order = np.lexsort((second, first, cost))
    ends = (end[order].tolist() for end in (first, second))
    return [(SOUND, *entry) for entry in zip(cost[order].tolist(), *ends, strict=True)]
