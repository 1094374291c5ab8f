"""Vertex errors: Euclidean distances in millimeters between registered meshes, pooled, per mesh,
and by region.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from morphable.evaluate.intervals import mean_interval, pair_interval
from morphable.models.base import MorphableModel, Shapes, blocks
from morphable.models.batched import BATCH

LITTLE = 0.9
"""A model has learned little if its error is above this share of the mean shape's."""


def little_learned(error: float, mean_shape: float, subset: str) -> str:
    """Say that a model's mean vertex error is hardly below that of the mean shape, both in mm; "" if
    it is.

    >>> little_learned(6.4, 6.5, "test")
    'The model has learned almost nothing: its error on the test meshes is 6.400 mm, that of the mean \
shape 6.500 mm.'
    >>> little_learned(3.0, 6.5, "test")
    ''
    """
    if error <= LITTLE * mean_shape:
        return ""
    return (
        f"The model has learned almost nothing: its error on the {subset} meshes is {error:.3f} mm, "
        f"that of the mean shape {mean_shape:.3f} mm."
    )


@torch.no_grad()
def mean_vertex_error(model: MorphableModel, shapes: Shapes, batch: int = BATCH) -> float:
    """Mean distance in mm between the vertices of shapes (N, V, 3) mm and of their reconstructions."""
    total = 0.0
    for block in blocks(shapes, batch):
        target = torch.from_numpy(np.asarray(block)).to(model.device)
        total += float((model(target) - target).norm(dim=-1).double().sum())
    return total / (len(shapes) * shapes.shape[1])


def summary(
    values: np.ndarray, groups: np.ndarray, seed: int = 0, *, partners: np.ndarray | None = None
) -> dict[str, Any]:
    """Statistics of values: mean, population std, median, p95, max, the number of groups, and ci95,
    the confidence interval of the mean; None if the groups are too few for one.

    values: (N,) or (N, V) mm, one row per mesh. groups: (N,) number of the group of each mesh: the
    meshes of a subject are not independent. partners: (N,) a second group of each value, if it was
    measured on meshes of two subjects.
    """
    flat = values.ravel()
    median, p95 = np.percentile(flat, [50, 95])
    per_mesh = values.reshape(len(values), -1).mean(1, dtype=np.float64)
    if partners is None:
        counted, bounds = groups, mean_interval(per_mesh, groups, seed)
    else:
        counted = np.concatenate([groups, partners])
        bounds = pair_interval(per_mesh, groups, partners, seed)
    return {
        "mean": float(flat.mean(dtype=np.float64)),
        "std": float(flat.std(dtype=np.float64)),
        "median": float(median),
        "p95": float(p95),
        "max": float(flat.max()),
        "ci95": None if bounds is None else [*bounds],
        "groups": len(set(counted.tolist())),
    }
