"""Decimate a mesh to a subset of its vertices by quadric half-edge collapse (Garland & Heckbert,
SIGGRAPH 1997).

An edge collapses onto one of its own ends, so a coarse level is a subset of the fine one, as mesh
autoencoders need (Ranjan et al., "Generating 3D faces using convolutional mesh autoencoders", ECCV
2018). In addition to the published method, collapses that would fold the surface over or make it
non-manifold are postponed until the target cannot be reached without them.
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
"""A face counts as flipped if the cosine between its original and its new normal is not above this
(an angle of about 78 degrees).
"""

STABILIZER = 1e-9
"""Weight of the squared distance to the vertex itself, relative to that to its planes. In flat
areas the distances to planes are all zero; this term then spreads the collapses evenly. Without it
rounding errors decide, and single vertices absorb whole areas.
"""

# The faults of a collapse, worst last. A collapse with a fault is made only if none with a lesser
# fault is left. FLIPPED: a face turns over. NONMANIFOLD: the result is not manifold. OVERSHOOTING:
# a separate triangle vanishes, which does no harm except that fewer vertices remain than asked for.
# EMPTYING: nothing would remain; such a collapse is never made.
SOUND, FLIPPED, NONMANIFOLD, OVERSHOOTING, EMPTYING = range(5)


@dataclass(frozen=True, eq=False)
class Decimation:
    """The result of `decimate`.

    kept: (n',) int64 indices of the remaining vertices, ascending. triangles: (F', 3) int64 faces
    of the coarse mesh, in which the remaining vertices are numbered 0..n'-1; each has a face.
    """

    kept: np.ndarray
    triangles: np.ndarray


def decimate(vertices: np.ndarray, triangles: np.ndarray, target: int) -> Decimation:
    """Select `target` vertices of a mesh, and the faces between them, by quadric error.

    vertices: (n, 3), any unit. triangles: (F, 3); repeated and degenerate faces and unreferenced
    vertices are allowed. target: number of vertices to keep, at least 3. The result has exactly
    that many, with two exceptions: a mesh with fewer referenced vertices keeps all of those, and if
    only separate triangles are left, one or two fewer may remain.

    The cost of an edge is the error x^T (Q_a + Q_b) x at the better of its two ends. Q_v sums the
    squared distances to the planes of the faces around v, without area weights, plus the squared
    distance to v itself with the tiny weight STABILIZER. The time is nearly linear in n; the result
    is deterministic.

    Raises InputError if `target` is below 3 or no face has three different corners.
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
    """Compute the unit normals (F, 3) of triangles; zero for a face without area."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    longest = np.maximum(((b - a) ** 2).sum(1), ((c - a) ** 2).sum(1))[:, None]
    return np.where(length > 1e-14 * longest, normal / np.where(length > 0, length, 1), 0)


def vertex_quadrics(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Compute the 4x4 quadric of each vertex: the sum of p p^T over the unit planes
    p = (a, b, c, d) of its faces, plus the stabilizer.

    Returns (10, n), the upper triangles row by row. A face without area has no plane and adds
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
    """[x y z 1] Q [x y z 1]^T. One formula for floats and arrays, so that both round the same way:
    the queue is built with arrays and its costs are compared with floats.
    """
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
    """The mesh during decimation. It uses lists and floats, because they are several times faster
    than numpy scalars in this sequential loop.
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
        self.heir = list(range(len(points)))  # the vertex that each vertex collapsed onto
        self.heap = _queue(points, quadrics, triangles)

    def reduce(self, target: int) -> None:
        """Collapse the edge of least fault and then least cost, until `target` vertices are in use
        or no edge can be collapsed.
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
            if now > cost:  # the entry is out of date: quadrics have grown since it was queued
                heappush(heap, (fault, now, a, b))
                continue
            gone, kept = (b, a) if keep_a < keep_b else (a, b)
            shared = [face for face in self.faces[gone] if kept in self.corners[face]]
            if not shared:  # no longer an edge
                continue
            actual = self._fault(gone, kept, shared, target)
            if actual <= fault:
                self._collapse(gone, kept, shared)
                quadrics[kept] = quadric
            elif actual < EMPTYING:
                heappush(heap, (actual, now, a, b))

    def result(self) -> Decimation:
        alive = sorted(set().union(*self.faces))
        triangles = np.array([self.corners[face] for face in alive], np.int64)
        kept, triangles = np.unique(triangles, return_inverse=True)
        return Decimation(kept, triangles.reshape(-1, 3))

    def _living(self, vertex: int) -> int:
        """The vertex that `vertex` has become: the end of its chain of collapses, which is
        shortened on the way (union-find).
        """
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
        """Number of vertices that lose their last face: `gone`, and others whose only faces
        vanish.
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
        """Whether the collapse violates the link condition of Dey et al. (1999): the only common
        neighbors of the two ends are the apexes of the faces at their edge.
        """
        around_gone, around_kept = self._degrees(gone), self._degrees(kept)
        apexes = {vertex for face in shared for vertex in self.corners[face]} - {gone, kept}
        borders_touch = len(shared) > 1 and 1 in around_gone.values() and 1 in around_kept.values()
        return borders_touch or len(around_gone.keys() & around_kept.keys()) != len(apexes)

    def _degrees(self, vertex: int) -> dict[int, int]:
        """For each neighbor of a vertex, the number of faces at the edge between them."""
        degrees: dict[int, int] = {}
        for face in self.faces[vertex]:
            for other in self.corners[face]:
                if other != vertex:
                    degrees[other] = degrees.get(other, 0) + 1
        return degrees

    def _flips(self, gone: int, kept: int, shared: list[int]) -> bool:
        """Whether a face would lose its area, or its normal would turn too far from the one that it
        had before all collapses.
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
    """All edges as (SOUND, cost, smaller end, larger end), sorted; a sorted list is a heap."""
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    first, second = np.unique(np.sort(pairs, axis=1), axis=0).T
    joint = quadrics[:, first] + quadrics[:, second]
    cost = np.minimum(_error(joint, points[first].T), _error(joint, points[second].T))
    order = np.lexsort((second, first, cost))
    ends = (end[order].tolist() for end in (first, second))
    return [(SOUND, *entry) for entry in zip(cost[order].tolist(), *ends, strict=True)]
