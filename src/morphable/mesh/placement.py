"""Placement: how a shape lies relative to a reference, turned, scaled and shifted, and how to bring
it there.

A registered shape is aligned in closed form. A cloud of points has no correspondences: it is
aligned by iterated closest points (Besl and McKay 1992) from the 24 rotations of a cube.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from scipy.spatial import cKDTree

from morphable.mesh.align import Similarity, procrustes
from morphable.rows import evenly_spread

CLOUD_POINTS = 400
"""Points of a cloud, evenly spread over its rows, that are matched."""
SHAPE_ROUNDS, START_ROUNDS, ROUNDS = 30, 8, 8
UNUSUAL_DEGREES, UNUSUAL_SCALE, UNUSUAL_SHIFT = 8.0, 0.08, 0.08
"""From here on a rotation, a change of size and a shift (as a share of the reference's diagonal)
are worth a word.
"""
UNIT_RATIOS = (
    (1e-3, "m read as mm"),
    (1e-2, "m read as cm"),
    (1e-1, "cm read as mm"),
    (1e1, "mm read as cm"),
    (1e2, "cm read as m"),
    (1e3, "mm read as m"),
    (25.4, "mm read as inches"),
    (1 / 25.4, "inches read as mm"),
)
"""Size ratios of units that were mistaken for each other."""
UNIT_TOLERANCE = 0.2
"""Logarithm of the size by which people differ."""
NEAR_QUARTER = 6.0
"""A rotation this near to quarter turns (degrees) is one; the rest is the shape's own difference."""


@dataclass(frozen=True, eq=False)
class Placement:
    """What brings a shape to a reference.

    map: the similarity. degrees, axis: its rotation. shift: (3,) mm from the reference's center to
    the shape's. diagonal: mm, of the reference's box.
    """

    map: Similarity
    degrees: float
    axis: np.ndarray
    shift: np.ndarray
    diagonal: float

    @property
    def causes(self) -> list[str]:
        """What is unusual about how the shape lies, in words; empty if nothing is."""
        found = []
        if self.degrees > UNUSUAL_DEGREES:
            quarter = 90 * round(self.degrees / 90)
            degrees = quarter if abs(self.degrees - quarter) < NEAR_QUARTER else self.degrees
            found.append(f"turned by {degrees:.0f} degrees about {_axis_name(self.axis)}")
        if self.is_scaled:
            found.append(f"scaled by {_scale_words(1 / float(self.map.scale))}")
        if np.linalg.norm(self.shift) > UNUSUAL_SHIFT * self.diagonal:
            x, y, z = np.round(self.shift) + 0.0  # no -0
            found.append(f"shifted by ({x:.0f}, {y:.0f}, {z:.0f}) mm")
        return found

    @property
    def is_scaled(self) -> bool:
        return abs(np.log(float(self.map.scale))) > UNUSUAL_SCALE


def align_shape(shape: np.ndarray, reference: np.ndarray, *, scale: bool = False) -> Similarity:
    """The map that brings a shape (V, 3) to a reference (V, 3) in correspondence with it.

    The sum of distances is minimized, not of their squares (Weiszfeld's reweighting), so that
    fingers that are bent do not turn the palm.
    """
    low, high = reference.min(axis=0), reference.max(axis=0)
    least = 1e-4 * float(np.linalg.norm(high - low))
    found = procrustes(shape, reference, scale=scale)
    for _ in range(SHAPE_ROUNDS):
        distance = np.linalg.norm(found.apply(shape) - reference, axis=-1)
        weights = 1 / np.maximum(distance, least)
        found = procrustes(shape, reference, weights=weights, scale=scale)
    return found


def align_cloud(points: np.ndarray, surface: np.ndarray) -> Similarity:
    """The rigid map that brings a cloud (P, 3) to the vertices (V, 3) of a surface, wherever it
    lies; deterministic.
    """
    few, size = _few(points), np.array(1.0)
    starts = []
    for rotation in _cube_rotations():
        translation = surface.mean(0) - rotation @ few.mean(0)
        starts.append(Similarity(rotation, translation, size))
    tree = cKDTree(surface)
    tried = [refine_cloud(few, surface, start, START_ROUNDS) for start in starts]
    return min(tried, key=lambda found: tree.query(found.apply(few))[0].mean())


def refine_cloud(
    points: np.ndarray,
    surface: np.ndarray,
    start: Similarity,
    rounds: int = ROUNDS,
    *,
    scale: bool = False,
) -> Similarity:
    """The map from `start` on, improved by closest points in both directions: from the cloud alone,
    the best size would be zero.
    """
    few, targets = _few(points), _few(surface)
    tree, found = cKDTree(surface), start
    for _ in range(rounds):
        moved = found.apply(few)
        source, target = [few], [surface[tree.query(moved)[1]]]
        if scale:
            source.append(few[cKDTree(moved).query(targets)[1]])
            target.append(targets)
        if on_one_line(np.concatenate(source)) or on_one_line(np.concatenate(target)):
            break  # the rotation is undetermined
        found = procrustes(np.concatenate(source), np.concatenate(target), scale=scale)
        if not scale:
            size = start.scale
            center = np.concatenate(target).mean(0)
            translation = center - size * found.rotation @ np.concatenate(source).mean(0)
            found = Similarity(found.rotation, translation, size)
    return found


def _few(points: np.ndarray) -> np.ndarray:
    return np.asarray(points[evenly_spread(len(points), CLOUD_POINTS)], np.float64)


def placement(found: Similarity, shape: np.ndarray, reference: np.ndarray) -> Placement:
    """How a shape (V, 3) or cloud lies, if `found` brings it to the reference (V, 3)."""
    low, high = reference.min(axis=0), reference.max(axis=0)
    rotation = found.rotation
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
    # The axis is the eigenvector of eigenvalue 1; seen against it, the shape is turned the other
    # way, so its sign follows from the inverse map: what was done to the shape.
    values, vectors = np.linalg.eig(rotation.T)
    axis = np.real(vectors[:, np.abs(values - 1).argmin()])
    skew = rotation.T - rotation
    sense = np.array([skew[2, 1], skew[0, 2], skew[1, 0]]) @ axis
    axis = -axis if sense < 0 else axis
    shift = np.asarray(shape, np.float64).mean(0) - np.asarray(reference, np.float64).mean(0)
    return Placement(found, degrees, axis, shift, float(np.linalg.norm(high - low)))


def _cube_rotations() -> list[np.ndarray]:
    """The 24 rotations that map the axes onto axes."""
    signed = [
        np.eye(3)[list(order)] * np.array(signs)[:, None]
        for order in permutations(range(3))
        for signs in product((1, -1), repeat=3)
    ]
    return [matrix for matrix in signed if np.linalg.det(matrix) > 0]


def _scale_words(ratio: float) -> str:
    """A ratio of sizes, and the units that were mistaken if it is near to one of theirs.

    >>> _scale_words(0.098), _scale_words(2.0)
    ('0.098, as of cm read as mm', '2.00')
    """
    text = f"{ratio:.2f}" if 0.2 < ratio < 100 else f"{ratio:.3g}"
    for factor, units in UNIT_RATIOS:
        if abs(np.log(ratio / factor)) < UNIT_TOLERANCE:
            return f"{text}, as of {units}"
    return text


def _axis_name(axis: np.ndarray) -> str:
    """x, y or z if the axis is near to one, `-` in front if it points the other way."""
    largest = int(np.abs(axis).argmax())
    if abs(axis[largest]) < 0.95:
        return "an oblique axis"
    return ("-" if axis[largest] < 0 else "") + "xyz"[largest]


def on_one_line(points: np.ndarray) -> bool:
    """Whether points (K, 3) lie on one line, or in one place, so that no rotation brings them
    anywhere in particular.
    """
    values = np.linalg.eigvalsh(np.cov(np.asarray(points, np.float64), rowvar=False, bias=True))
    return bool(values[1] <= 1e-10 * values[2])


def shape_size(points: np.ndarray) -> float:
    """Root mean squared distance of the points (K, 3) from their center; never zero."""
    return max(float(np.sqrt(points.var(axis=0).sum())), 1e-300)
