"""Align registered shapes by rigid or similarity maps: least squares in closed form (Umeyama 1991),
and generalized Procrustes analysis (Gower 1975).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from morphable.errors import InputError


@dataclass(frozen=True, eq=False)
class Similarity:
    """The map x -> scale * rotation @ x + translation, or N such maps with a leading axis N.

    rotation: (..., 3, 3) with determinant +1. translation: (..., 3) in the unit of the vertices.
    scale: (...).
    """

    rotation: np.ndarray
    translation: np.ndarray
    scale: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., V, 3). The computation is in double precision, the result in the
        precision of `points`.
        """
        turned = np.asarray(points, np.float64) @ np.swapaxes(self.rotation, -1, -2)
        moved = self.scale[..., None, None] * turned + self.translation[..., None, :]
        return moved.astype(points.dtype) if np.issubdtype(points.dtype, np.floating) else moved


def inverse(map: Similarity) -> Similarity:
    """The maps that undo these."""
    rotation = np.swapaxes(map.rotation, -1, -2)
    scale = 1 / np.asarray(map.scale)
    moved = (rotation @ map.translation[..., None])[..., 0]
    return Similarity(rotation, -scale[..., None] * moved, scale)


def after(second: Similarity, first: Similarity) -> Similarity:
    """The maps that apply `first`, then `second`."""
    moved = (second.rotation @ first.translation[..., None])[..., 0]
    return Similarity(
        second.rotation @ first.rotation,
        second.scale[..., None] * moved + second.translation,
        np.asarray(second.scale * first.scale),
    )


class Aligned(NamedTuple):
    """Shapes (N, V, 3) brought into one frame, and their mean (V, 3)."""

    shapes: np.ndarray
    mean: np.ndarray


def procrustes(
    source: np.ndarray,
    target: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    scale: bool = False,
) -> Similarity:
    """Find the rotation and translation, and with `scale` also the size change, that bring `source`
    nearest to `target`. The result is never a reflection.

    source: (V, 3), or (N, V, 3) for N maps at once. target: (V, 3) or (N, V, 3). rows: the vertices
    to use, as indices or (V,) bool; None: all. weights: (V,) weight of each vertex, not negative;
    None: equal.

    Raises InputError if the shapes do not match, or if the used vertices lie on one line, which
    leaves the rotation undetermined.
    """
    if source.shape[-2:] != target.shape[-2:] or source.shape[-1] != 3:
        raise InputError(
            f"alignment: expected two shapes (V, 3) of equal V, got {source.shape} and "
            f"{target.shape}"
        )
    pick = slice(None) if rows is None else rows
    share = np.ones(source.shape[-2]) if weights is None else np.asarray(weights, np.float64)
    if share.shape != source.shape[-2:-1] or (share < 0).any():
        raise InputError(
            f"alignment weights: expected {source.shape[-2]} numbers >= 0, got shape {share.shape}"
        )
    return _fit(
        np.asarray(source[..., pick, :], np.float64),
        np.asarray(target[..., pick, :], np.float64),
        share[pick],
        scale,
    )


def generalized_procrustes(
    shapes: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    scale: bool = False,
    reference: np.ndarray | None = None,
    tolerance: float = 1e-7,
    max_rounds: int = 100,
) -> Aligned:
    """Bring shapes (N, V, 3) into one frame by aligning each to their mean, round after round.

    rows: the vertices to use, as indices or (V,) bool; None: all. scale: also give every shape the
    centroid size of the reference. (Fitting sizes by least squares instead would shrink all shapes
    a little in every round.) reference: (V, 3) shape that defines the frame; None: the first one.
    tolerance: stop when the mean moves by less than this share of its size. The result is
    deterministic and has the precision of `shapes`.

    Raises InputError if `shapes` is not (N, V, 3) with N >= 1, and as `procrustes`.
    """
    if shapes.ndim != 3 or shapes.shape[2] != 3 or len(shapes) == 0:
        raise InputError(
            f"alignment: expected at least one shape in an array (N, V, 3), got {shapes.shape}"
        )
    pick = slice(None) if rows is None else rows
    counted = np.asarray(shapes[:, pick], np.float64)
    frame = np.asarray(shapes[0] if reference is None else reference, np.float64)[pick]
    size = _size(frame) / _size(counted) if scale else np.ones(len(shapes))
    counted = counted * size[:, None, None]
    mean = frame
    for _ in range(max_rounds):
        moved = procrustes(counted, mean).apply(counted).mean(axis=0)
        moved = procrustes(moved, frame).apply(moved)  # else the mean drifts away from the frame
        change = np.sqrt(np.square(moved - mean).sum(axis=1).mean())
        mean = moved
        if change < tolerance * _size(frame):
            break
    rigid = procrustes(counted, mean)
    aligned = Similarity(rigid.rotation, rigid.translation, size).apply(shapes)
    return Aligned(aligned, aligned.mean(axis=0, dtype=np.float64).astype(aligned.dtype))


def _fit(source: np.ndarray, target: np.ndarray, weights: np.ndarray, scale: bool) -> Similarity:
    """Umeyama's closed form on the used vertices: (..., K, 3), (..., K, 3) and weights (K,)."""
    share = weights / max(weights.sum(), 1e-300)
    source_center, target_center = share @ source, share @ target
    centered = source - source_center[..., None, :]
    covariance = np.swapaxes(target - target_center[..., None, :], -1, -2) @ (
        share[:, None] * centered
    )
    if not np.isfinite(covariance).all():
        raise InputError("alignment: a position is not finite")
    left, strength, right = np.linalg.svd(covariance)
    line = strength[..., 1] <= 1e-12 * strength[..., 0]
    if line.any():
        which = f" of shape {np.flatnonzero(line)[0]}" if line.ndim else ""
        raise InputError(
            f"alignment: the {source.shape[-2]} vertices{which} that count lie on one line"
        )
    # If the best orthogonal map is a reflection, flip its weakest axis to get a rotation.
    flip = np.ones_like(strength)
    flip[..., 2] = np.sign(np.linalg.det(left @ right))
    rotation = (left * flip[..., None, :]) @ right
    size = np.ones(strength.shape[:-1])
    if scale:
        size = (strength * flip).sum(-1) / (share[:, None] * centered**2).sum((-1, -2))
    translation = target_center - size[..., None] * (rotation @ source_center[..., None])[..., 0]
    return Similarity(rotation, translation, size)


def _size(shapes: np.ndarray) -> np.ndarray:
    """Root mean squared distance of the vertices (..., K, 3) from their center; never zero."""
    return np.maximum(np.sqrt(shapes.var(axis=-2).sum(axis=-1)), 1e-300)
