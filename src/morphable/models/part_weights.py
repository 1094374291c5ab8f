"""Part weights: how much each vertex of a template belongs to each of K parts, found by sparse
non-negative factorization of how far the vertices of the training meshes move.

Kim and Kim, "Synthesizing human faces using latent space factorization and local weights", 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from morphable.config import Configuration, Count, Positive, PositiveOrZero
from morphable.errors import InputError
from morphable.mesh.align import procrustes
from morphable.models.base import Shapes
from morphable.models.normalization import moments
from morphable.ops.sparse_nmf import Factorization, hoyer, penalized
from morphable.rows import evenly_spread

MAX_SHAPES = 2_000
"""The weights are computed from at most this many training meshes, evenly spread."""
BLOCK = 64
"""Number of meshes that are aligned at once."""
MIN_MOVEMENT = 1e-6
"""A vertex whose movement is nowhere larger than this share of the mean's extent does not move."""

Displacement = Literal["aligned", "relative", "mm"]


@dataclass(frozen=True)
class PartWeightsConfig(Configuration):
    """parts: K, their number.

    displacement: what is factorized. `relative` = the squared distance of each vertex from its
    mean position, divided by the root mean square of these over the meshes, so that a lip counts
    as much as a shoulder. `aligned` = the same after each mesh was moved, turned and scaled onto
    the mean; otherwise vertices that only follow the position or the size of the whole belong
    together. `mm` = the distance in mm, as the paper seems to do; then the vertices that move far
    decide.

    factorization: `penalized` or `hoyer`, see `ops/sparse_nmf.py`. sparsity: `beta` of the first,
    which depends on the unit of the matrix, or the sparseness of the second, below 1.
    weight_penalty: `eta` of `penalized`; 0 = none.

    sharpness: the exponent of the weights before those of each vertex are divided by their sum. A
    large one makes the borders between parts narrow.
    """

    parts: Count = 4
    displacement: Displacement = "aligned"
    factorization: Literal["penalized", "hoyer"] = "penalized"
    sparsity: PositiveOrZero = 7.5
    weight_penalty: PositiveOrZero = 1.0
    sharpness: Positive = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factorization == "hoyer" and self.sparsity >= 1:
            raise self.error(
                "sparsity", f"expected a sparseness from 0 to below 1, got {self.sparsity}"
            )


def displacement_matrix(shapes: Shapes, displacement: Displacement) -> np.ndarray:
    """(V, N) float32: how far each vertex of each mesh is from its mean position, in mm, or
    relative to the vertex's own movement. At most MAX_SHAPES of the meshes are used.

    Raises InputError if nothing moves, or if a mesh that has to be aligned lies on one line.
    """
    mean, _ = moments(shapes)
    rows = evenly_spread(len(shapes), MAX_SHAPES)
    if displacement == "aligned":
        moved = (_aligned(block, mean).sum(0) for block in _blocks(shapes, rows))
        mean = np.asarray(sum(moved)) / len(rows)

    columns = []
    for block in _blocks(shapes, rows):
        placed = _aligned(block, mean) if displacement == "aligned" else block
        columns.append(np.linalg.norm(placed - mean, axis=2).T.astype(np.float32))
    matrix = np.concatenate(columns, axis=1)

    still = matrix.max(1) <= MIN_MOVEMENT * np.ptp(mean, axis=0).max()
    if still.all():
        raise InputError("training meshes: all are the same shape, so they have no parts")
    matrix[still] = 0
    if displacement == "mm":
        return matrix
    matrix = np.square(matrix)
    size = np.sqrt(np.square(matrix).mean(1, keepdims=True, dtype=np.float64))
    return (matrix / np.where(size > 0, size, 1)).astype(np.float32)


def _blocks(shapes: Shapes, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The meshes in these rows, in blocks (b, V, 3) in double precision."""
    for start in range(0, len(rows), BLOCK):
        chosen = rows[start : start + BLOCK]
        yield np.stack([np.asarray(shapes[int(row)], np.float64) for row in chosen])


def _aligned(block: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Meshes (b, V, 3), each moved, turned and scaled onto the mean (V, 3)."""
    return procrustes(block, mean, scale=True).apply(block)


def factorize(shapes: Shapes, config: PartWeightsConfig) -> Factorization:
    """Factorize the movement of shapes (N, V, 3) mm into parts.

    Raises InputError if there are more parts than meshes or vertices, or if nothing moves.
    """
    if config.parts > min(len(shapes), shapes.shape[1]):
        raise InputError(
            f"model.parts {config.parts}: expected at most {min(len(shapes), shapes.shape[1])}, "
            f"for {len(shapes)} training meshes of {shapes.shape[1]} vertices"
        )
    matrix = displacement_matrix(shapes, config.displacement)
    if config.factorization == "hoyer":
        return hoyer(matrix, config.parts, sparseness=config.sparsity)
    return penalized(matrix, config.parts, beta=config.sparsity, eta=config.weight_penalty)


def part_weights(
    factorization: Factorization, positions: np.ndarray, sharpness: float
) -> np.ndarray:
    """(V, K) weights from 0 to 1 whose rows sum to one.

    positions: (V, 3) mm of the template. Parts are in order of height, the highest first; dead
    ones are last. A vertex that does not move belongs equally to all parts.
    """
    weights = factorization.weights.astype(np.float64)
    weights = weights / max(weights.max(), 1e-300)  # so that a large exponent does not underflow
    top = np.maximum(weights.max(1, keepdims=True), 1e-300)
    sharp = (weights / top) ** sharpness
    total = sharp.sum(1, keepdims=True)
    shares = np.where(total > 0, sharp / np.where(total > 0, total, 1), 1 / weights.shape[1])
    return shares[:, _by_height(shares, np.asarray(positions, np.float64))]


def _by_height(weights: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(K,) the parts by the height of their centers; those that no vertex prefers are last."""
    mass = weights.sum(0)
    center = (weights.T @ positions[:, 1]) / np.maximum(mass, 1e-300)
    unused = np.bincount(weights.argmax(1), minlength=weights.shape[1]) == 0
    return np.lexsort((-center, unused))
