"""Vertex errors: Euclidean distances in millimeters between registered meshes, pooled, per mesh,
and by region.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from morphable.models.base import MorphableModel, Shapes, blocks
from morphable.models.batched import BATCH

BOOTSTRAP_DRAWS = 1000
"""Number of bootstrap resamples for a confidence interval."""


@torch.no_grad()
def mean_vertex_error(model: MorphableModel, shapes: Shapes, batch: int = BATCH) -> float:
    """Mean distance in mm between the vertices of shapes (N, V, 3) mm and of their reconstructions."""
    total = 0.0
    for block in blocks(shapes, batch):
        target = torch.from_numpy(np.asarray(block)).to(model.device)
        total += float((model(target) - target).norm(dim=-1).double().sum())
    return total / (len(shapes) * shapes.shape[1])


def summary(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Statistics of values: mean, population std, median, p95, max, and ci95, the bootstrap
    confidence interval of the mean.

    values: (N,) or (N, V) mm, one row per mesh. groups: (N,) subject number of each mesh. The
    bootstrap redraws whole subjects, because meshes of one subject are not independent.
    """
    flat = values.ravel()
    median, p95 = np.percentile(flat, [50, 95])
    low, high = bootstrap_interval(
        values.reshape(len(values), -1).mean(1, dtype=np.float64), groups, seed
    )
    return {
        "mean": float(flat.mean(dtype=np.float64)),
        "std": float(flat.std(dtype=np.float64)),
        "median": float(median),
        "p95": float(p95),
        "max": float(flat.max()),
        "ci95": [low, high],
    }


def bootstrap_interval(
    per_mesh: np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % confidence interval of the mean of `per_mesh` (N,), by a seeded bootstrap that redraws
    whole groups with replacement.
    """
    _, number = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(number, per_mesh), np.bincount(number)
    draws = np.random.default_rng(seed).integers(len(sums), size=(BOOTSTRAP_DRAWS, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
