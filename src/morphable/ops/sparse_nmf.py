"""Sparse non-negative matrix factorization: V (n, m) = W (n, K) H (K, m) with W, H >= 0, and with
sparse factors in one of two ways.

- `penalized` minimizes the objective of SNMF/R (Kim and Park, "Sparse non-negative matrix
  factorizations via alternating non-negativity-constrained least squares", Bioinformatics 2007):

      1/2 |V - W H|^2 + 1/2 eta^2 |W|^2 + 1/2 beta sum_j |H_:j|_1^2

  Kim and Park write eta instead of eta^2. The widespread implementations stack `eta I` under the
  least squares problem, which makes it eta^2; so do we.

- `hoyer` minimizes |V - W H|^2 under the constraint that every column of W has a given sparseness
  (Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 2004), where a
  column of n equal numbers has sparseness 0, and one with a single nonzero number has 1.

Letters: n rows, m columns, K parts. Arrays may be float32 or float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from morphable.errors import InputError

SWEEPS = 100
"""Largest number of sweeps. A sweep updates all rows of H, then all columns of W."""
TOLERANCE = 1e-4
"""Sweeps end when one lowers the objective by less than this share."""
MAX_RESTARTS = 3
"""How often a part that died is started again, before it stays dead."""
DEAD = 1e-6
"""A part is dead if it contributes less than this share of the matrix's largest number."""
MIN_STEP = 1e-10
"""Smallest step that the search along the gradient tries, relative to the first one."""


@dataclass(frozen=True, eq=False)
class Factorization:
    """V = W H, approximately.

    weights: W (n, K). activations: H (K, m), whose rows have root mean square 1, so that columns
    of W can be compared; a dead part has zeros. error: |V - W H| / |V|. objective: its value after
    each sweep since the last restart, before the scaling of H; it never rises. restarts: how many
    times a dead part was started again. dead: how many parts are dead in the end.
    """

    weights: np.ndarray
    activations: np.ndarray
    error: float
    objective: np.ndarray
    restarts: int
    dead: int


def penalized(
    matrix: np.ndarray, parts: int, *, beta: float = 0.0, eta: float = 0.0, sweeps: int = SWEEPS
) -> Factorization:
    """Factorize by minimizing the penalized objective, exactly in one row or column at a time.

    beta: penalty of the squared sum of each column of H. eta: its square penalizes W. Without both,
    this is plain NMF. Both depend on the unit of the matrix.

    Raises InputError if the matrix has a negative or infinite number, is zero, or has fewer rows
    or columns than parts.
    """
    weights, activations = svd_start(_checked(matrix, parts), parts)
    size, restarts = _squares(matrix), 0
    values: list[float] = []

    while len(values) < sweeps:
        _update(activations, weights.T @ weights + beta, weights.T @ matrix)
        products = matrix @ activations.T
        gram = activations @ activations.T
        _update(weights.T, gram + eta**2 * np.eye(parts), products.T)

        fit = size - 2 * _dot(products, weights) + _dot(weights.T @ weights, gram)
        penalty = eta**2 * _squares(weights) + beta * _squares(activations.sum(0))
        values.append(0.5 * (fit + penalty))

        dead = _dead(matrix, weights, activations)
        if dead.any() and restarts < MAX_RESTARTS * parts:
            restarts += int(dead.sum())
            _restart(matrix, weights, activations, dead)
            values = []
        elif len(values) > 1 and values[-2] - values[-1] <= TOLERANCE * values[-1]:
            break

    return _scaled(matrix, weights, activations, values, restarts)


def hoyer(
    matrix: np.ndarray, parts: int, *, sparseness: float, sweeps: int = SWEEPS
) -> Factorization:
    """Factorize with columns of W that have this sparseness, from 0 to 1. H is updated exactly in
    one row at a time, W by a step along its gradient and a projection onto the constraint.

    The sparser the columns, the fewer rows of the matrix they reach: K columns that share the n
    rows evenly, each its own, have sparseness near 1 - 1/sqrt(K), which is 0.5 for K = 4.

    Raises InputError as `penalized`, and if the sparseness is not from 0 to below 1.
    """
    if not 0 <= sparseness < 1:
        raise InputError(f"sparseness: expected a number from 0 to below 1, got {sparseness}")
    weights, activations = svd_start(_checked(matrix, parts), parts)
    weights = project_columns(weights, sparseness)
    size, values, step = _squares(matrix), [], 0.0

    for _ in range(sweeps):
        _update(activations, weights.T @ weights, weights.T @ matrix)
        products, gram = matrix @ activations.T, activations @ activations.T

        def misfit(
            w: np.ndarray, products: np.ndarray = products, gram: np.ndarray = gram
        ) -> float:
            return 0.5 * (size - 2 * _dot(products, w) + _dot(w.T @ w, gram))

        # Twice the step of the sweep before, then halved until the objective falls.
        first = 1 / max(float(np.trace(gram)), 1e-300)
        step, before = max(2 * step, first), misfit(weights)
        slope = weights @ gram - products
        while step > MIN_STEP * first:
            moved = project_columns(weights - step * slope, sparseness)
            if misfit(moved) <= before:
                weights = moved
                break
            step /= 2

        values.append(misfit(weights))
        if len(values) > 1 and values[-2] - values[-1] <= TOLERANCE * values[-1]:
            break

    return _scaled(matrix, weights, activations, values, 0)


def sparseness(columns: np.ndarray) -> np.ndarray:
    """(K,) Hoyer's sparseness of the columns (n, K): (sqrt(n) - L1 / L2) / (sqrt(n) - 1).

    >>> sparseness(np.array([[1.0, 0.0], [1.0, 3.0]])).tolist()
    [0.0, 1.0]
    """
    n = len(columns)
    length = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    ratio = np.abs(columns).sum(0) / length
    return np.asarray(np.round((n**0.5 - ratio) / (n**0.5 - 1), 12))


def project_columns(columns: np.ndarray, sparseness: float) -> np.ndarray:
    """The nearest non-negative columns (n, K) of length 1 with this sparseness (Hoyer 2004)."""
    n = len(columns)
    total = n**0.5 - sparseness * (n**0.5 - 1)  # the L1 norm of such a column
    return np.stack([_projected(column, total) for column in columns.T], axis=1)


def _projected(x: np.ndarray, total: float) -> np.ndarray:
    """The nearest non-negative vector with sum `total` and length 1."""
    kind, x = x.dtype, x.astype(np.float64)
    free = np.ones(len(x), bool)
    s = x + (total - x.sum()) / len(x)
    while True:
        middle = np.where(free, total / free.sum(), 0.0)
        way = s - middle
        if way @ way <= 1e-20:  # all equal: any direction is as near as any other
            way = np.where(free, np.arange(len(x)) - np.flatnonzero(free).mean(), 0.0)
        # Length 1 at middle + root * way, for the positive root of a quadratic equation.
        a, b, c = way @ way, 2 * (middle @ way), middle @ middle - 1
        root = (-b + max(b * b - 4 * a * c, 0.0) ** 0.5) / (2 * a) if a > 0 else 0.0
        s = middle + root * way
        if (s >= 0).all():
            return s.astype(kind)
        free &= s > 0
        s = np.where(free, s, 0.0)
        s[free] -= (s.sum() - total) / free.sum()


def svd_start(matrix: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """A deterministic start (Boutsidis and Gallopoulos, "SVD based initialization", 2008): of each
    singular pair the stronger of its positive and its negative part, with zeros replaced by the
    mean of the matrix.

    Returns W (n, K) and H (K, m).
    """
    left, values, right = _leading(matrix, parts)
    weights = np.empty((matrix.shape[0], parts), matrix.dtype)
    activations = np.empty((parts, matrix.shape[1]), matrix.dtype)

    for k in range(parts):
        sides = [
            (np.maximum(sign * left[:, k], 0), np.maximum(sign * right[:, k], 0))
            for sign in (1, -1)
        ]
        norms = [np.linalg.norm(u) * np.linalg.norm(v) for u, v in sides]
        u, v = sides[int(np.argmax(norms))]
        strength = np.sqrt(values[k] * max(norms))
        weights[:, k] = strength * u / max(float(np.linalg.norm(u)), 1e-300)
        activations[k] = strength * v / max(float(np.linalg.norm(v)), 1e-300)

    mean = matrix.mean(dtype=np.float64)
    for factor in (weights, activations):
        factor[factor <= 1e-12] = mean
    return weights, activations


def _leading(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The leading singular vectors (n, count), (m, count) and values (count,), by the eigenvectors
    of the smaller Gram matrix.
    """
    tall = matrix.shape[0] >= matrix.shape[1]
    gram = (matrix.T @ matrix if tall else matrix @ matrix.T).astype(np.float64)
    last = len(gram) - 1
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=[last - count + 1, last])
    values = np.sqrt(np.maximum(values[::-1], 0.0))
    own = vectors[:, ::-1]
    other = (matrix @ own if tall else matrix.T @ own) / np.maximum(values, 1e-300)
    return (other, values, own) if tall else (own, values, other)


def _checked(matrix: np.ndarray, parts: int) -> np.ndarray:
    if matrix.ndim != 2 or not np.isfinite(matrix).all() or (matrix < 0).any():
        raise InputError("matrix: expected finite numbers of at least 0 in rows and columns")
    if not 1 <= parts <= min(matrix.shape):
        raise InputError(
            f"`parts` {parts}: expected at least 1 and at most {min(matrix.shape)}, "
            f"for a matrix of {matrix.shape[0]} x {matrix.shape[1]}",
            "parts",
        )
    if not matrix.any():
        raise InputError("matrix: all of it is zero, so it has no parts")
    return matrix


def _update(rows: np.ndarray, gram: np.ndarray, products: np.ndarray) -> None:
    """Minimize 1/2 x^T gram x - products x over each of the K `rows` (K, m) in turn, at least zero,
    in place.
    """
    for k in range(len(rows)):
        if gram[k, k] > 0:
            step = (products[k] - gram[k] @ rows) / gram[k, k]
            np.maximum(rows[k] + step, 0, out=rows[k])


def _dead(matrix: np.ndarray, weights: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """(K,) True for parts that contribute nothing."""
    return np.asarray(weights.max(0) * activations.max(1) <= DEAD * matrix.max())


def _restart(
    matrix: np.ndarray, weights: np.ndarray, activations: np.ndarray, dead: np.ndarray
) -> None:
    """Start dead parts again, in place: each at the row of the matrix that the others explain
    worst.
    """
    weights[:, dead], activations[dead] = 0, 0
    for k in np.flatnonzero(dead):
        missing = np.maximum(matrix - weights @ activations, 0)
        worst = int(np.square(missing).sum(1).argmax())
        activations[k] = missing[worst]
        size = max(_squares(activations[k]), 1e-300)
        weights[:, k] = np.maximum(missing @ activations[k], 0) / size


def _scaled(
    matrix: np.ndarray,
    weights: np.ndarray,
    activations: np.ndarray,
    objective: list[float],
    restarts: int,
) -> Factorization:
    """The factorization with rows of H of root mean square 1."""
    gram, products = activations @ activations.T, matrix @ activations.T
    size = _squares(matrix)
    misfit = size - 2 * _dot(products, weights) + _dot(weights.T @ weights, gram)
    dead = _dead(matrix, weights, activations)
    scale = np.where(dead, 0.0, np.sqrt(np.square(activations).mean(1)))
    return Factorization(
        weights * scale,
        np.where(dead[:, None], 0.0, activations / np.where(dead, 1.0, scale)[:, None]),
        float(np.sqrt(max(misfit, 0.0) / size)),
        np.array(objective),
        restarts,
        int(dead.sum()),
    )


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b, dtype=np.float64))


def _squares(a: np.ndarray) -> float:
    return float(np.sum(np.square(a), dtype=np.float64))
