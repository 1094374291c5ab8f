"""Exact principal components of any number of meshes: from the eigenvectors of the Gram matrix in
double precision, or, if that matrix is large, by an iteration that only multiplies by the meshes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from morphable.errors import InputError
from morphable.models.base import Shapes, blocks
from morphable.models.normalization import moments
from morphable.rows import evenly_spread

MAX_GRAM = 10_000
"""Up to this many meshes, the Gram matrix (N, N) may be held in memory. With more, every round of
the iteration reads the meshes again.
"""
OVERSAMPLED = 16
"""Vectors that the iteration carries in addition to those asked for, which makes it converge
faster.
"""
GRAM_PAYS = 40
"""Below this many meshes per component, forming the Gram matrix takes less arithmetic than a few
rounds on the meshes.
"""
PART = 1000
"""The iteration starts from the components of so many meshes, or of four for each vector that it
carries.
"""


@dataclass(frozen=True, eq=False)
class PrincipalBasis:
    """mean (3V,) mm, components (K, 3V) orthonormal, and deviations (K,) mm, the standard deviation
    along each component.
    """

    mean: np.ndarray
    components: np.ndarray
    deviations: np.ndarray

    def existing(self, nothing: str) -> PrincipalBasis:
        """The components along which the meshes vary. Raises InputError, saying `nothing`, if there
        are none.
        """
        kept = self.deviations > 0
        if not kept.any():
            raise InputError(nothing)
        return PrincipalBasis(self.mean, self.components[kept], self.deviations[kept])


def principal_basis(shapes: Shapes, rank: int) -> PrincipalBasis:
    """Compute the `rank` leading principal components of shapes (N, V, 3) mm.

    N meshes have at most N - 1 components. Beyond that, components and deviations are zero.

    Raises InputError if there are too many meshes for a Gram matrix and the iteration does not
    converge.
    """
    count = len(shapes)
    mean = moments(shapes)[0].ravel()
    n_found = min(rank, count - 1, len(mean))
    components = np.zeros((rank, len(mean)))
    deviations = np.zeros(rank)
    if n_found > 0:
        values, axes = _eigenpairs(shapes, mean, n_found)
        keep = _varying(values)
        components[:n_found] = np.where(keep[:, None], axes, 0.0)
        deviations[:n_found] = np.sqrt(np.where(keep, values, 0.0) / (count - 1))
    # The sign of a component is arbitrary. Its largest entry is made positive, so that a second run
    # gives the same model.
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    return PrincipalBasis(mean, components * np.where(largest < 0, -1.0, 1.0), deviations)


def _centered_blocks(shapes: Shapes, mean: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the centered meshes in blocks, as (number of the first mesh, (n, 3V) float64 mm)."""
    start = 0
    for block in blocks(shapes, 512):
        yield start, block.reshape(len(block), -1).astype(np.float64) - mean
        start += len(block)


def _eigenpairs(shapes: Shapes, mean: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The `rank` largest eigenvalues of X^T X, descending, and their eigenvectors (rank, 3V), where
    X (N, 3V) are the centered shapes.
    """
    count = len(shapes)
    # The iteration comes first if the Gram matrix does not fit, or would cost more than it. If it
    # fits, a few rounds decide: the Gram matrix is the fallback.
    fits = count <= MAX_GRAM
    if not fits or count > GRAM_PAYS * (rank + OVERSAMPLED):
        pairs = _matrix_free_eigenpairs(shapes, mean, rank, rounds=6 if fits else 60)
        if pairs is not None:
            return pairs
        if not fits:
            raise InputError(
                f"PCA of {count} meshes: {rank} components did not converge; ask for fewer"
            )
    return _gram_eigenpairs(shapes, mean, rank)


def _gram_eigenpairs(shapes: Shapes, mean: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The same eigenpairs from the Gram matrix X X^T."""
    count = len(shapes)
    gram = np.zeros((count, count))
    for i, left in _centered_blocks(shapes, mean):
        for j, right in _centered_blocks(shapes, mean):
            if j > i:
                break
            gram[i : i + len(left), j : j + len(right)] = left @ right.T
    # Only the lower half was computed.
    gram = np.tril(gram) + np.tril(gram, -1).T
    pairs = leading_eigenpairs(lambda x: gram @ x, count, rank)
    values, vectors = pairs if pairs is not None else _dense_eigenpairs(gram, rank)
    # If X X^T v = s^2 v, the eigenvector of X^T X is u = X^T v / s.
    axes = np.zeros((rank, len(mean)))
    for start, block in _centered_blocks(shapes, mean):
        axes += vectors[start : start + len(block)].T @ block
    keep = _varying(values)
    return values, np.where(
        keep[:, None], axes / np.sqrt(np.where(keep, values, 1.0))[:, None], 0.0
    )


def _varying(values: np.ndarray) -> np.ndarray:
    """Which eigenvalues belong to directions that vary; the others are rounding errors."""
    return values > max(values.max(initial=0.0), 0.0) * 1e-14


def _matrix_free_eigenpairs(
    shapes: Shapes, mean: np.ndarray, rank: int, rounds: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The same eigenpairs by an iteration with X^T X, which is never formed; None if it does not
    converge. It starts from the components of a part of the meshes, and then one round is mostly
    enough.
    """

    def multiply(x: np.ndarray) -> np.ndarray:
        return sum(
            (block.T @ (block @ x) for _, block in _centered_blocks(shapes, mean)), np.zeros_like(x)
        )

    block = rank + OVERSAMPLED
    some = min(max(PART, 4 * block), len(shapes) // 4)
    part = shapes[evenly_spread(len(shapes), some)]
    start = _gram_eigenpairs(part, mean, min(block, len(part), len(mean)))[1].T
    pairs = leading_eigenpairs(multiply, len(mean), rank, rounds, start=start)
    return None if pairs is None else (pairs[0], pairs[1].T)


def _dense_eigenpairs(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    size = len(matrix)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[size - rank, size - 1])
    return values[::-1], vectors[:, ::-1]


def leading_eigenpairs(
    multiply: Callable[[np.ndarray], np.ndarray],
    size: int,
    rank: int,
    rounds: int = 20,
    tolerance: float = 1e-10,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Compute the `rank` largest eigenpairs of a symmetric positive semidefinite operator, by block
    Krylov iteration.

    multiply: maps (size, k) to the operator times it. start: (size, at most rank + OVERSAMPLED)
    vectors near the eigenvectors; random if None. Every residual of the result is below
    `tolerance` times the largest eigenvalue. Returns None if that is not reached in `rounds`
    rounds, or if the operator is so small that a dense solver is faster.
    """
    block = rank + OVERSAMPLED
    if 4 * block > size:
        return None
    vectors = np.random.default_rng(0).standard_normal((size, block))
    if start is not None:
        vectors[:, : start.shape[1]] = start
    for _ in range(rounds):
        pieces = [np.linalg.qr(vectors)[0]]
        for _ in range(2):
            pieces.append(np.linalg.qr(multiply(pieces[-1]))[0])
        # Rayleigh-Ritz: the best eigenpairs within the span of x, A x and A^2 x. The next round
        # starts from them.
        space = np.linalg.qr(np.concatenate(pieces, 1))[0]
        image = multiply(space)
        values, mixes = np.linalg.eigh(space.T @ image)
        vectors = (space @ mixes)[:, ::-1][:, :block]
        residual = (image @ mixes)[:, ::-1][:, :rank] - vectors[:, :rank] * values[::-1][:rank]
        if np.linalg.norm(residual, axis=0).max() <= tolerance * values[-1]:
            return values[::-1][:rank], vectors[:, :rank]
    return None
