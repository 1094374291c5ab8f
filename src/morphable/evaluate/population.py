"""Compare a population of generated shapes with real ones: how near the nearest are to each other,
whether the two can be told apart, and how much either varies.

- Specificity: of a sample, the distance to the nearest training mesh (Styner et al. 2003).
- Coverage: of a held-out mesh, the distance to the nearest sample.
- 1-nearest-neighbor accuracy: how often the nearest other shape is of the same kind, real or
  generated (Lopez-Paz and Oquab 2017; Yang et al. 2019). 0.5 means that the two cannot be told
  apart, 1 that they can, 0 that samples are copies.
- Diversity: the distance between two shapes (Abrevaya et al. 2019).

All distances are means over vertices, in mm, on evenly spread vertices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.models.base import Shapes
from morphable.rows import evenly_spread

VERTICES = 600
"""Distances are measured on at most this many vertices: those on every sixteenth vertex of a face
are within 1 % of those on every eighth."""
COARSE = 60
"""The nearest are first searched on this many vertices."""
CANDIDATES = 24
"""Then the distances to so many of them are measured on all."""
Summary = dict[str, Any]


def reduced(shapes: Shapes, rows: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(n, v, 3) mm the given vertices of the given rows, read one mesh at a time."""
    return np.stack([np.asarray(shapes[int(row)])[vertices] for row in rows])


def mean_distances(a: Tensor, b: Tensor) -> Tensor:
    """(..., V, 3) and (..., V, 3) to (...,) mean vertex distances."""
    return (a - b).norm(dim=-1).mean(-1)


def nearest(shapes: np.ndarray, others: np.ndarray, *, same: bool = False) -> np.ndarray:
    """For each of `shapes` (N, v, 3), the row of the nearest of `others` (M, v, 3), and its
    distance in mm: (N, 2).

    same: the two are the same shapes, and none is its own neighbor.
    """
    few = evenly_spread(shapes.shape[1], COARSE)
    coarse = torch.from_numpy(np.ascontiguousarray(others[:, few]))
    fine, result = torch.from_numpy(others), np.empty((len(shapes), 2))
    count = min(CANDIDATES, len(others) - same)
    for row, shape in enumerate(torch.from_numpy(shapes)):
        far = mean_distances(coarse, shape[torch.from_numpy(few)])
        if same:
            far[row] = torch.inf
        candidates = far.topk(count, largest=False).indices
        distance = mean_distances(fine[candidates], shape)
        best = distance.argmin()
        result[row] = float(candidates[best]), float(distance[best])
    return result


def nearest_neighbor_accuracy(generated: np.ndarray, real: np.ndarray, seed: int = 0) -> Summary:
    """Accuracy of telling as many generated (N, v, 3) and real (M, v, 3) shapes apart by their
    nearest neighbor. The mean and the spread of three draws, each of other generated shapes.
    """
    random = np.random.default_rng(seed)
    size, order = min(len(real), len(generated) // 3), random.permutation(len(generated))
    scores = []
    for draw in range(3):
        chosen = generated[order[draw * size : (draw + 1) * size]]
        both = np.concatenate([chosen, real[random.permutation(len(real))[:size]]])
        own = np.arange(2 * size) < size
        scores.append(float((own[nearest(both, both, same=True)[:, 0].astype(int)] == own).mean()))
    return {"mean": float(np.mean(scores)), "std": float(np.std(scores)), "values": scores}


def distances_summary(values: np.ndarray) -> Summary:
    """The mean of distances (N,) mm, their standard deviation, and their number."""
    return {"mean": float(values.mean()), "std": float(values.std()), "count": len(values)}


def pair_distances(shapes: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) mm distances between the rows `first` and `second` (n,) of shapes (N, v, 3)."""
    return np.array(
        [
            np.linalg.norm(shapes[a] - shapes[b], axis=-1).mean()
            for a, b in zip(first.tolist(), second.tolist(), strict=True)
        ]
    )


def random_pairs(count: int, pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two different rows of 0..count-1 for each of `pairs` pairs."""
    random = np.random.default_rng(seed)
    first = random.integers(count, size=pairs)
    return first, (first + random.integers(1, count, size=pairs)) % count


def class_pairs(
    classes: np.ndarray, others: np.ndarray, pairs: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pairs of rows of one class, drawn class by class; None if no class has two.

    classes: (N,) class numbers, -1 = unknown. others: (N,) numbers of the other factor, in which
    the two of a pair differ if they are known.
    """
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(classes == number) for number in np.unique(classes[classes >= 0])]
    groups = [rows for rows in groups if len(rows) > 1]
    if not groups:
        return None
    drawn = random.integers(len(groups), size=pairs)
    picked = np.stack([random.choice(groups[group], 2, replace=False) for group in drawn])
    first, second = picked.T
    different = (others[first] != others[second]) | (others[first] < 0)
    return (first[different], second[different]) if different.any() else None
