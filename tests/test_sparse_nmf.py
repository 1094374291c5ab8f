"""Sparse non-negative factorizations: cases by hand, an independent route, and what never happens."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.decomposition import NMF

from morphable.errors import InputError
from morphable.ops.sparse_nmf import hoyer, penalized, project_columns, sparseness, svd_start


def random_matrix(rows: int = 60, columns: int = 40, rank: int = 5) -> np.ndarray:
    random = np.random.default_rng(0)
    noise = 0.05 * random.random((rows, columns))
    return random.random((rows, rank)) @ random.random((rank, columns)) + noise


def blocks() -> np.ndarray:
    """Three groups of rows that move at different times: rows 0-9, 10-19 and 20-29."""
    random = np.random.default_rng(1)
    matrix = np.zeros((30, 24))
    for part in range(3):
        rows, columns = slice(10 * part, 10 * part + 10), slice(8 * part, 8 * part + 8)
        matrix[rows, columns] = np.outer(1 + random.random(10), 1 + random.random(8))
    return matrix


def objective(
    matrix: np.ndarray, w: np.ndarray, h: np.ndarray, beta: float = 0, eta: float = 0
) -> float:
    misfit = np.square(matrix - w @ h).sum()
    penalty = eta**2 * np.square(w).sum() + beta * np.square(h.sum(0)).sum()
    return float(0.5 * (misfit + penalty))


def test_blocks_are_found_exactly() -> None:
    matrix = blocks()
    for result in (penalized(matrix, 3), hoyer(matrix, 3, sparseness=0.5)):
        part = result.weights.argmax(1)
        assert sorted(np.unique(part[:10])) == [part[0]]
        assert len({part[0], part[10], part[20]}) == 3
        assert result.dead == 0
    assert penalized(matrix, 3).error < 1e-6


def test_a_matrix_of_rank_one_by_hand() -> None:
    """V = (1, 2)^T (3, 4): the only part is (1, 2) up to scale, and H has root mean square 1."""
    matrix = np.outer([1.0, 2.0], [3.0, 4.0])
    result = penalized(matrix, 1)
    scale = np.sqrt((9 + 16) / 2)
    np.testing.assert_allclose(result.weights[:, 0], scale * np.array([1, 2]), rtol=1e-9)
    np.testing.assert_allclose(result.activations[0], np.array([3, 4]) / scale, rtol=1e-9)


def test_without_penalties_it_is_plain_nmf() -> None:
    """The error is that of scikit-learn's solver, run to convergence from its own start."""
    matrix = random_matrix()
    ours = penalized(matrix, 5, sweeps=2000)
    theirs = NMF(5, init="nndsvda", max_iter=5000, tol=1e-9).fit(matrix)
    reference = theirs.reconstruction_err_ / np.linalg.norm(matrix)
    assert ours.error < 1.02 * reference


@pytest.mark.parametrize(("beta", "eta"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.3), (0.2, 0.3)])
def test_the_objective_never_rises_and_is_what_it_says(beta: float, eta: float) -> None:
    matrix = random_matrix()
    result = penalized(matrix, 4, beta=beta, eta=eta)
    steps = np.diff(result.objective)
    assert (steps <= 1e-9 * result.objective[0]).all()
    assert result.restarts == 0

    # One sweep by hand: the same blocks by alternating exact updates of single rows.
    w, h = svd_start(matrix, 4)
    for rows, gram, products in (
        (h, w.T @ w + beta, w.T @ matrix),
        (w.T, None, None),
    ):
        gram = h @ h.T + eta**2 * np.eye(4) if gram is None else gram
        products = (matrix @ h.T).T if products is None else products
        for k in range(4):
            others = [j for j in range(4) if j != k]
            rows[k] = np.maximum(0, (products[k] - gram[k, others] @ rows[others]) / gram[k, k])
    assert result.objective[0] == pytest.approx(objective(matrix, w, h, beta, eta))


def test_a_fixed_point_solves_the_stacked_least_squares() -> None:
    """At convergence, each column of H solves Kim and Park's stacked problem, by another solver."""
    matrix, beta, eta = random_matrix(20, 12, 3), 0.3, 0.2
    result = penalized(matrix, 3, beta=beta, eta=eta, sweeps=20_000)
    scale = _scale_of(result.objective[-1], matrix, result.weights, result.activations, beta, eta)
    w, h = result.weights / scale, result.activations * scale[:, None]
    stacked = np.vstack([w, np.full((1, 3), np.sqrt(beta))])
    for column in range(matrix.shape[1]):
        wanted, _ = nnls(stacked, np.append(matrix[:, column], 0.0))
        np.testing.assert_allclose(h[:, column], wanted, atol=2e-2)


def _scale_of(
    value: float, matrix: np.ndarray, w: np.ndarray, h: np.ndarray, beta: float, eta: float
) -> np.ndarray:
    """The scale of H's rows before they were given root mean square 1: the one at which the
    objective has its value, along the ray of least objective.
    """
    from scipy.optimize import minimize

    def cost(log_scale: np.ndarray) -> float:
        scale = np.exp(log_scale)
        return objective(matrix, w / scale, h * scale[:, None], beta, eta)

    best = minimize(cost, np.zeros(len(h)), method="Nelder-Mead", options={"xatol": 1e-10})
    assert best.fun == pytest.approx(value, rel=1e-3)
    return np.exp(best.x)


def test_activations_become_sparser_with_beta() -> None:
    matrix = random_matrix()
    shares = []
    for beta in (0.0, 0.2, 2.0):
        h = penalized(matrix, 4, beta=beta, eta=0.2).activations
        shares.append(sparseness(h).mean())
    assert shares[0] < shares[1] < shares[2]


def test_eta_is_squared() -> None:
    """One number c = w h: minimize 1/2 (c - w h)^2 + 1/2 eta^2 w^2 + 1/2 beta h^2.
    The two penalties of a product p = w h are least, eta sqrt(beta) p, if they are equal. So p is
    c - eta sqrt(beta). With eta in place of eta^2, it would be c - sqrt(eta beta).
    """
    c, beta, eta = 10.0, 4.0, 3.0
    result = penalized(np.array([[c]]), 1, beta=beta, eta=eta, sweeps=5000)
    product = float(result.weights[0, 0] * result.activations[0, 0])
    assert product == pytest.approx(c - eta * np.sqrt(beta), rel=1e-2)


def test_dead_parts_are_restarted_and_counted() -> None:
    result = penalized(blocks(), 3, beta=1e6, eta=1.0)
    assert result.restarts > 0
    assert result.dead > 0
    assert np.isfinite(result.weights).all()


@pytest.mark.parametrize("wanted", [0.1, 0.5, 0.75, 0.95])
def test_projection_on_hoyers_constraint(wanted: float) -> None:
    """Length and sparseness are as wanted, a projected column stays, and no other column of that
    kind is nearer.
    """
    random = np.random.default_rng(2)
    columns = random.standard_normal((50, 6))
    projected = project_columns(columns, wanted)
    assert (projected >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(projected, axis=0), 1, rtol=1e-9)
    np.testing.assert_allclose(sparseness(projected), wanted, atol=1e-9)
    np.testing.assert_allclose(project_columns(projected, wanted), projected, atol=1e-9)
    distance = np.linalg.norm(projected - columns, axis=0)
    others = project_columns(random.standard_normal((50, 500)), wanted)
    for column, nearest in zip(columns.T, distance, strict=True):
        assert nearest <= np.linalg.norm(others - column[:, None], axis=0).min() + 1e-9


def test_sparseness_by_hand() -> None:
    """(3, 4, 0, 0): (2 - 7/5) / (2 - 1) = 0.6."""
    assert sparseness(np.array([[3.0], [4.0], [0.0], [0.0]]))[0] == pytest.approx(0.6)


def test_hoyer_keeps_its_constraint_and_never_rises() -> None:
    result = hoyer(random_matrix(), 4, sparseness=0.6)
    np.testing.assert_allclose(sparseness(result.weights), 0.6, atol=1e-9)
    assert (np.diff(result.objective) <= 1e-9 * result.objective[0]).all()


def test_the_same_matrix_gives_the_same_parts() -> None:
    first, second = penalized(random_matrix(), 4), penalized(random_matrix(), 4)
    assert np.array_equal(first.weights, second.weights)


def test_the_order_of_the_columns_does_not_matter() -> None:
    matrix = random_matrix()
    order = np.random.default_rng(0).permutation(matrix.shape[1])
    a, b = penalized(matrix, 4), penalized(matrix[:, order], 4)
    np.testing.assert_allclose(a.weights, b.weights, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(a.activations[:, order], b.activations, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("matrix", "parts", "words"),
    [
        (np.ones((5, 4)), 6, "`parts` 6: expected at least 1 and at most 4"),
        (np.ones((5, 4)), 0, "`parts` 0: expected at least 1"),
        (np.zeros((5, 4)), 2, "all of it is zero"),
        (-np.ones((5, 4)), 2, "expected finite numbers of at least 0"),
        (np.full((5, 4), np.nan), 2, "expected finite numbers of at least 0"),
    ],
)
def test_bad_input(matrix: np.ndarray, parts: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        penalized(matrix, parts)


def test_a_sparseness_of_one_is_refused() -> None:
    with pytest.raises(InputError, match="from 0 to below 1"):
        hoyer(np.ones((5, 4)), 2, sparseness=1.0)
