"""Reconstruct a shape wherever it lies: its pose, and the size too if asked, are fitted by turns with
its code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from morphable.mesh.align import Similarity
from morphable.mesh.distance import point_to_surface
from morphable.mesh.placement import (
    Placement,
    align_cloud,
    align_shape,
    on_one_line,
    placement,
    refine_cloud,
    shape_size,
)
from morphable.models.base import Given, MorphableModel

ROUNDS = 30
"""At most so many times the shape is aligned to its reconstruction and encoded again."""
GAIN = 0.995
"""A round that leaves more than this share of the error is the last one."""
MUCH_BETTER = 2 / 3
"""A shape is called misplaced if aligning it lowers its error to less than this share."""
OTHER_SIZE = 0.3
"""A logarithm of a size ratio that no class of shapes is likely to have."""
SAMPLES = 32
AS_IT_LIES = Similarity(np.eye(3), np.zeros(3), np.array(1.0))


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A shape as a model makes it.

    code: (L,). vertices: (V, 3) mm in the model's frame. distance: mm in the model's frame, of each
    vertex, or of each point of a cloud, from the reconstruction. map: what brought the shape there.
    """

    code: Tensor
    vertices: np.ndarray
    distance: np.ndarray
    map: Similarity

    @property
    def error(self) -> float:
        """Mean distance in the size that the shape came in: else a tiny copy would fit best."""
        return float(self.distance.mean() / self.map.scale)


@torch.no_grad()
def reconstruct(
    model: MorphableModel,
    shape: np.ndarray,
    given: Given | None = None,
    *,
    points: bool = False,
    place: Similarity = AS_IT_LIES,
) -> Reconstruction:
    """Encode and decode a shape (V, 3) mm, or with `points` a cloud (P, 3) mm, moved by `place`."""
    moved = place.apply(shape)
    target = torch.from_numpy(moved)[None]
    code = model.encode_points(target, given) if points else model.encode(target, given)
    vertices = model.decode(code)[0].numpy()
    if points:
        distance = point_to_surface(moved, vertices, model.template.mesh.triangles)
    else:
        distance = np.linalg.norm(vertices - moved, axis=-1)
    return Reconstruction(code[0], vertices, distance, place)


def fit_pose(
    model: MorphableModel,
    shape: np.ndarray,
    given: Given | None = None,
    *,
    points: bool = False,
    scale: bool = False,
) -> Reconstruction:
    """The reconstruction of a shape that is first turned and shifted, with `scale` also scaled, to
    where the model fits it best.

    Two starts are tried: as the shape lies, and aligned to the mean shape.
    """

    def align(target: np.ndarray, start: Similarity) -> Similarity:
        if not points:
            return align_shape(shape, target, scale=scale)
        return refine_cloud(shape, target, start, scale=scale)

    tried = []
    for start in (AS_IT_LIES, _to_mean(model, shape, points, scale)):
        best = reconstruct(model, shape, given, points=points, place=start)
        for _ in range(ROUNDS):
            place = align(best.vertices, best.map)
            found = reconstruct(model, shape, given, points=points, place=place)
            better, enough = found.error < best.error, found.error > GAIN * best.error
            best = found if better else best
            if enough:
                break
        tried.append(best)
    return min(tried, key=lambda found: found.error)


def misplaced(
    model: MorphableModel,
    shape: np.ndarray,
    fitted: Reconstruction,
    given: Given | None = None,
    *,
    points: bool = False,
) -> tuple[Placement, Reconstruction] | None:
    """How a shape lies wrongly, and what it would be reconstructed as if it were aligned.

    fitted: its reconstruction as it lies. None if nothing is unusual about its place, aligning it
    would not help much, or its points lie on one line.
    """
    if on_one_line(shape):
        return None
    start = placement(_to_mean(model, shape, points, True), shape, mean_shape(model))
    if not start.causes:
        return None
    other_size = abs(np.log(start.map.scale)) > OTHER_SIZE
    for scale in (True, False) if other_size else (False, True):
        found = fit_pose(model, shape, given, points=points, scale=scale)
        place = placement(found.map, shape, mean_shape(model))
        if found.error < MUCH_BETTER * fitted.error and place.causes:
            return place, found
    return None


def mean_shape(model: MorphableModel) -> np.ndarray:
    """(V, 3) mm: what the prior's mean decodes to, or the template if the model has no prior."""
    if model.prior is None:
        return np.asarray(model.template.mesh.vertices, np.float64)
    with torch.no_grad():
        return model.decode(model.prior.mean[None])[0].double().numpy()


def _to_mean(model: MorphableModel, shape: np.ndarray, points: bool, scale: bool) -> Similarity:
    """A first guess: rigidly to the mean shape, with `scale` after the shape has the size of the
    model's samples. (Their mean is smaller than they are if they bend.)
    """
    size = _typical_size(model) / shape_size(shape) if scale else 1.0
    align = align_cloud if points else align_shape
    found = align(shape * size, mean_shape(model))
    return Similarity(found.rotation, found.translation, found.scale * size)


@torch.no_grad()
def _typical_size(model: MorphableModel) -> float:
    if model.prior is None:
        return shape_size(mean_shape(model))
    samples = model.sample(SAMPLES, torch.Generator().manual_seed(0)).numpy()
    return float(np.median([shape_size(sample) for sample in samples]))
