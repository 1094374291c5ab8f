"""Usual: what the meshes of a dataset have in common, measured on a sample of them. Every mesh is
then compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from morphable.data.audit.finding import Audited
from morphable.mesh.align import procrustes
from morphable.mesh.topology import edges, hinges
from morphable.rows import evenly_spread

SAMPLE = 128
"""Meshes, evenly spread, that define what is usual."""
MAX_EDGES, PAIRS = 100_000, 4000
"""Edges of the template, evenly spread, and random pairs of vertices that are measured."""
FOLDED = -0.7
"""Two faces at an edge are folded if the cosine of the angle between their normals is less."""
STIFF = 0.3
"""Only stiff edges are tested for folds: those with a larger cosine in nearly all of the sample. The
others fold by nature, as at the lips.
"""
EXTREME = 0.05
"""Nearly all: but for this share of the sample, and at least one mesh, which may be broken."""
STRETCHED, MUCH_STRETCHED = 5.0, 2.5
"""An edge is stretched if it is so many times as long as usual, and so many times as long as in
nearly all of the sample.
"""
MIRRORED = 0.6
"""A mesh is mirrored if its mirror image fits the usual shape by this much better."""


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual. The lengths and areas are those of a mesh of the usual size.

    shape: (V, 3) mm, the median. size: mm, root mean squared distance from the center. edges: (E,
    2) edges that are measured, lengths: (E,) mm, the median of each, limits: (E,) mm, beyond which it is
    stretched. pair_distance: mm, the mean
    distance of two random vertices. triangles: (T, 3), areas: (T,) mm^2. hinges: (H, 2) pairs of
    triangles with a common edge that is stiff.
    """

    shape: np.ndarray
    size: float
    edges: np.ndarray
    lengths: np.ndarray
    limits: np.ndarray
    pair_distance: float
    triangles: np.ndarray
    areas: np.ndarray
    hinges: np.ndarray

    @classmethod
    def of(cls, audited: Audited) -> Usual:
        sample = audited.vertices[evenly_spread(len(audited), SAMPLE)].astype(np.float64)
        sample = _one_handed(sample)
        faces = audited.template.mesh.faces
        measured = edges(faces)
        measured = measured[evenly_spread(len(measured), MAX_EDGES)]
        random = np.random.default_rng(0)
        pairs = random.integers(0, audited.template.n_vertices, (PAIRS, 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        shape = np.median(sample, axis=0)
        sizes = shape_sizes(sample)
        size = float(np.median(sizes))
        scale = (size / sizes)[:, None]
        triangles = audited.template.mesh.triangles
        both = hinges(triangles)
        lengths, areas, cosines = [], [], []
        for mesh in sample:
            lengths.append(edge_lengths(mesh, measured))
            normals, area = face_normals(mesh, triangles)
            areas.append(area)
            cosines.append(_fold_cosines(normals, both).astype(np.float32))
        extreme = min(max(1, int(EXTREME * len(sample))), len(sample) - 1)
        stiff = np.partition(np.stack(cosines), extreme, axis=0)[extreme] > STIFF
        sides = np.stack(lengths) * scale
        usual = np.median(sides, axis=0)
        longest = np.partition(sides, -1 - extreme, axis=0)[-1 - extreme]
        return cls(
            shape,
            size,
            measured,
            usual,
            np.maximum(STRETCHED * usual, MUCH_STRETCHED * longest),
            float(edge_lengths(sample, pairs).mean()),
            triangles,
            np.median(np.stack(areas) * scale**2, axis=0),
            both[stiff],
        )

    @cached_property
    def diagonal(self) -> float:
        return float(np.linalg.norm(np.ptp(self.shape, axis=0)))

    def folds(self, normals: np.ndarray) -> np.ndarray:
        """How many of the hinges are folded, (n,), by unit normals (n, T, 3)."""
        return (_fold_cosines(normals, self.hinges) < FOLDED).sum(axis=-1)


def face_normals(shapes: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (..., T, 3), zero for a triangle without area, and areas (..., T)."""
    a, b, c = (shapes[..., triangles[:, corner], :] for corner in range(3))
    normals = cross(b - a, c - a)
    length = np.sqrt(np.einsum("...x,...x->...", normals, normals))
    normals /= np.maximum(length, 1e-30)[..., None]
    return normals, length / 2


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cross product along the last axis; `np.cross` takes four times as long."""
    out = np.empty_like(a)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[..., i] = a[..., j] * b[..., k] - a[..., k] * b[..., j]
    return out


def _fold_cosines(normals: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.einsum(
        "...hx,...hx->...h", normals[..., pairs[:, 0], :], normals[..., pairs[:, 1], :]
    )


def shape_sizes(shapes: np.ndarray) -> np.ndarray:
    """(...) root mean squared distance of the vertices (..., V, 3) from their center; not zero."""
    return np.maximum(np.sqrt(shapes.var(axis=-2).sum(axis=-1)), 1e-30)


def edge_lengths(shapes: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(..., E) mm, of shapes (..., V, 3)."""
    sides = shapes[..., pairs[:, 0], :] - shapes[..., pairs[:, 1], :]
    return np.sqrt(np.einsum("...x,...x->...", sides, sides))


def mirror_misfits(shapes: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) squared misfit, as a share of the target's square, that the best similarity leaves
    between shapes (n, V, 3) and the target (V, 3), and the one that the best reflection leaves.
    """
    own = shapes - shapes.mean(axis=-2, keepdims=True)
    aim = target - target.mean(axis=0)
    covariance = np.einsum("nvi,vj->nij", own, aim, optimize=True)
    squares = np.einsum("nvi,nvi->n", own, own) * np.square(aim).sum()
    left, strength, right = np.linalg.svd(covariance)
    sign = np.sign(np.linalg.det(left @ right))
    best = strength.sum(axis=1)
    other = best - 2 * strength[:, 2]
    rotation, reflection = np.where(sign > 0, best, other), np.where(sign > 0, other, best)
    squares = np.maximum(squares, 1e-60)
    return 1 - rotation**2 / squares, 1 - reflection**2 / squares


def is_mirrored(shapes: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) bool: the mirror image of each of the shapes (n, V, 3) fits the target (V, 3) much
    better than the shape.
    """
    rotation, reflection = mirror_misfits(shapes, target)
    return reflection < MIRRORED**2 * rotation


def _one_handed(sample: np.ndarray) -> np.ndarray:
    """The sample without the side that fewer of its meshes have, if left and right are mixed."""
    other = is_mirrored(sample, sample[0])
    if other.any() and not other.all():
        larger = other == (other.mean() > 0.5)
        return sample[larger]
    return sample


def misfit(shape: np.ndarray, target: np.ndarray) -> float:
    """The mean distance (mm) that a similarity leaves between two shapes (V, 3)."""
    fitted = procrustes(shape, target, scale=True).apply(shape)
    return float(np.linalg.norm(fitted - target, axis=1).mean())
