"""first_poses: how a scan may lie and what its shape may roughly be.

A scan may be turned in any way, have any size within reason, and show only a part of the shape. So
many rotations are tried by iterated closest points (Besl and McKay 1992) with trimming, from the
scan to the surface only, since what the scan does not show must not pull. The best of them are
refined together with the shape, for which the model's linearization around its mean stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from morphable.mesh.align import Similarity, after, procrustes
from morphable.mesh.placement import on_one_line, shape_size
from morphable.mesh.scan import Scan
from morphable.mesh.topology import vertex_normals
from morphable.rows import evenly_spread

ROTATIONS = 96
"""Starts, evenly spread over all rotations, about 45 degrees from one to the next."""
SIZES = (0.85, 1.0, 1.2)
"""Starts of the size, relative to the scan's spread: a scan of a part is smaller than the whole."""
POINTS, VERTICES = 400, 2500
"""Points of the scan and vertices of the model that are matched."""
RIGID_ROUNDS, SHAPE_ROUNDS = 6, 30
SURVIVORS = 36
"""Starts that get the later rounds."""
TRIMMED = 0.8
"""Share of the points that count, those with the smallest distances."""
NORMAL_LENGTH = 0.5
"""How far apart places with opposite normals count as, in sizes of the model, divided by two."""
INDEPENDENT = 40
"""Independent pieces of surface that the points see, at a guess: a prior of full weight would be
outvoted by hundreds of points that say the same.
"""
SIZE_DEVIATION = 0.15
"""Standard deviation of the logarithm of the size about that of a start: a part of a smooth surface
fits a surface of any size.
"""
FAR = 0.2
"""Distances count up to this share of the size."""
APART = 0.1
"""Two results are the same if they move the scan's points alike within this share of its size."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A model around its mean, at some vertices: vertices (V, 3) mm and unit normals (V, 3), and
    the derivatives (V, 3, W) of the vertices by the coordinates of the code.
    """

    vertices: np.ndarray
    normals: np.ndarray
    slopes: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, triangles: np.ndarray, slopes: np.ndarray) -> Reference:
        rows = evenly_spread(len(mean), VERTICES)
        return cls(mean[rows], vertex_normals(mean, triangles)[rows], slopes[rows])

    @property
    def size(self) -> float:
        return shape_size(self.vertices)


@dataclass(frozen=True, eq=False)
class Start:
    """map: brings the scan to the model's frame. coordinates: (W,) of the code. distance: how far
    scan and surface are apart, in both directions, as a share of the model's size.
    """

    map: Similarity
    coordinates: np.ndarray
    distance: float


def first_poses(scan: Scan, reference: Reference, count: int, *, scale: bool) -> list[Start]:
    """At most `count` starts of a fit to a scan, the best first.

    scale: whether the size is fitted too.
    """
    few = scan.rows(evenly_spread(len(scan.points), POINTS))
    nothing = np.zeros(reference.slopes.shape[2])
    ratio = reference.size / shape_size(few.points) if scale else 1.0
    center = few.points.mean(0)
    normals = None if scan.normals is None else reference.normals
    features = _features(reference.vertices, normals, reference.size)
    tree = cKDTree(features)
    tried = []
    for size in SIZES if scale else (1.0,):
        for rotation in _rotations():
            shift = reference.vertices.mean(0) - size * ratio * rotation @ center
            start = Similarity(rotation, shift, np.array(size * ratio))
            tried.append(_rigid(few, reference, features, tree, start))
    tried.sort(key=lambda start: start.distance)
    later = [
        _shaped(few, reference, start.map, nothing, scale)
        for start in _different(tried, few, SURVIVORS)
    ]
    later.sort(key=lambda start: start.distance)
    return _different(later, few, count)


def refine_start(scan: Scan, reference: Reference, map: Similarity, *, scale: bool) -> Start:
    """The start from one pose that is known roughly, as from landmarks."""
    few = scan.rows(evenly_spread(len(scan.points), POINTS))
    return _shaped(few, reference, map, np.zeros(reference.slopes.shape[2]), scale)


def _different(starts: list[Start], scan: Scan, count: int) -> list[Start]:
    """The first `count` that differ from those before them."""
    kept: list[tuple[Start, np.ndarray]] = []
    for start in starts:
        moved = start.map.apply(scan.points)
        limit = APART * shape_size(moved)
        if all(np.linalg.norm(other - moved, axis=1).mean() > limit for _, other in kept):
            kept.append((start, moved))
        if len(kept) == count:
            break
    return [start for start, _ in kept]


def _features(points: np.ndarray, normals: np.ndarray | None, size: float) -> np.ndarray:
    """Points (P, 3) with their normals as further coordinates, where they are known."""
    if normals is None:
        return points
    return np.concatenate([points, NORMAL_LENGTH * size * normals], 1)


def _rigid(
    scan: Scan, reference: Reference, features: np.ndarray, tree: cKDTree, start: Similarity
) -> Start:
    """Iterated closest points of the mean shape, without a change of size.

    features, tree: those of the reference.
    """
    found = start
    for _ in range(RIGID_ROUNDS):
        moved = scan.moved(found)
        distance, row = tree.query(_features(moved.points, moved.normals, reference.size))
        near = distance <= np.quantile(distance, TRIMMED)
        source, goal = moved.points[near], reference.vertices[row[near]]
        if on_one_line(source) or on_one_line(goal):
            break
        found = after(procrustes(source, goal), found)
    distance = _apart(scan.moved(found), features, reference)
    return Start(found, np.zeros(reference.slopes.shape[2]), distance)


def _apart(moved: Scan, features: np.ndarray, reference: Reference) -> float:
    """The mean of the distances from scan to surface, as a share of the scan's size, and back, as a
    share of the surface's: so neither is best if it is tiny. A part that the scan does not show is
    farther than FAR wherever it lies, and so decides nothing.
    """
    own = _features(moved.points, moved.normals, reference.size)
    forth, back = cKDTree(features).query(own)[0], cKDTree(own).query(features[::4])[0]
    shares = (forth / shape_size(moved.points), back / reference.size)
    return float(sum(np.minimum(share, FAR).mean() for share in shares))


def _shaped(
    scan: Scan, reference: Reference, start: Similarity, coordinates: np.ndarray, scale: bool
) -> Start:
    """Iterated closest points in which code and pose move together, by Gauss-Newton steps on the
    distances across the surface.
    """
    has_normals = scan.normals is not None
    normals = reference.normals if has_normals else None
    found, latent, log_size = start, len(coordinates), 0.0
    center = reference.vertices.mean(0)
    for _ in range(SHAPE_ROUNDS):
        vertices = reference.vertices + reference.slopes @ coordinates
        features = _features(vertices, normals, reference.size)
        moved = scan.moved(found)
        own = _features(moved.points, moved.normals, reference.size)
        distance, row = cKDTree(features).query(own)
        weights = _tukey(distance)
        across, offsets = reference.normals[row], vertices[row] - moved.points
        residual = (across * offsets).sum(1)
        # The pose moves the scan, the code the surface.
        arms = moved.points - center
        slopes = [
            np.einsum("kc,kcw->kw", across, reference.slopes[row]),
            -np.cross(arms, across),
            -across,
        ]
        if scale:
            slopes.append(-(arms * across).sum(1)[:, None])
        design = np.concatenate(slopes, 1)
        level2 = max((weights * residual**2).sum() / weights.sum(), (1e-3 * reference.size) ** 2)
        prior = np.zeros(design.shape[1])
        prior[:latent] = 1.0
        if scale:
            prior[-1] = SIZE_DEVIATION**-2
        prior *= level2 * max(1.0, weights.sum() / INDEPENDENT)
        at = np.concatenate([coordinates, np.zeros(design.shape[1] - latent)])
        if scale:
            at[-1] = log_size
        second = design.T @ (weights[:, None] * design) + np.diag(prior + 1e-9 * reference.size)
        step = -np.linalg.solve(second, design.T @ (weights * residual) + prior * at)
        coordinates = coordinates + step[:latent]
        turn, shift = step[latent : latent + 3], step[latent + 3 : latent + 6]
        growth = float(step[-1]) if scale else 0.0
        log_size += growth
        rotation = Rotation.from_rotvec(turn).as_matrix()
        size = np.array(np.exp(growth))
        move = Similarity(rotation, center + shift - size * rotation @ center, size)
        found = after(move, found)
        if np.abs(step[:latent]).max(initial=0.0) < 0.01 and np.linalg.norm(turn) < 1e-3:
            break
    vertices = reference.vertices + reference.slopes @ coordinates
    distance = _apart(scan.moved(found), _features(vertices, normals, reference.size), reference)
    return Start(found, coordinates, distance)


def _tukey(distance: np.ndarray) -> np.ndarray:
    limit = 4 * 1.4826 * max(float(np.median(distance)), 1e-12)
    return np.asarray(np.square(np.clip(1 - np.square(distance / limit), 0, None)))


def _rotations() -> np.ndarray:
    """(ROTATIONS, 3, 3) rotations evenly spread by super-Fibonacci spirals (Alexa 2022)."""
    s = np.arange(ROTATIONS) + 0.5
    t = s / ROTATIONS
    alpha, beta = 2 * np.pi * s / np.sqrt(2.0), 2 * np.pi * s / 1.533751168755204288118041
    inner, outer = np.sqrt(t), np.sqrt(1 - t)
    quaternions = [
        inner * np.sin(alpha),
        inner * np.cos(alpha),
        outer * np.sin(beta),
        outer * np.cos(beta),
    ]
    return np.asarray(Rotation.from_quat(np.stack(quaternions, 1)).as_matrix())
