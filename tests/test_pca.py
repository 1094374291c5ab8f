"""PCA against numpy's SVD, and the block iteration against a dense solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import ball_template
from morphable.errors import InputError
from morphable.models.pca import Pca, PcaConfig
from morphable.models.principal_basis import leading_eigenpairs, principal_basis


def shapes(count: int, n_vertices: int, rank: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    weights = random.standard_normal((count, rank)) * 0.7 ** np.arange(rank)
    return (
        (weights @ random.standard_normal((rank, 3 * n_vertices)) + 5)
        .reshape(count, -1, 3)
        .astype(np.float32)
    )


@pytest.mark.parametrize(
    ("count", "n_vertices"), [(12, 30), (200, 30), (300, 400), (900, 30), (900, 10), (2600, 120)]
)
def test_equals_the_singular_value_decomposition(count: int, n_vertices: int) -> None:
    """By the Gram matrix, dense or iterated; with many meshes without it; and back to it where
    vertices are few.
    """
    data = shapes(count, n_vertices, 9)
    basis = principal_basis(data, 5)
    flat = data.reshape(count, -1).astype(np.float64)
    _, values, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    np.testing.assert_allclose(basis.deviations, values[:5] / np.sqrt(count - 1), rtol=1e-8)
    np.testing.assert_allclose(np.abs((basis.components * axes[:5]).sum(1)), 1, rtol=1e-8)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(5), atol=1e-8)


def test_a_start_near_the_eigenvectors_takes_fewer_products(rng: np.random.Generator) -> None:
    factor = rng.standard_normal((400, 90)) * 0.9 ** np.arange(90)
    products = []

    def multiply(x: np.ndarray) -> np.ndarray:
        products.append(x.shape[1])
        image: np.ndarray = factor @ (factor.T @ x)
        return image

    values, vectors = np.linalg.eigh(factor @ factor.T)
    for start in (None, vectors[:, ::-1][:, :22] + 1e-7 * rng.standard_normal((400, 22))):
        products.append(0)
        pairs = leading_eigenpairs(multiply, 400, 6, start=start)
        assert pairs is not None
        np.testing.assert_allclose(pairs[0], values[::-1][:6], rtol=1e-9)
    cut = len(products) - products[::-1].index(0)
    assert len(products) - cut < cut - 2


def test_principal_components_of_few_dimensions_need_no_more(rng: np.random.Generator) -> None:
    """Meshes that vary in three directions, so many that the Gram matrix is not formed."""
    data = shapes(2600, 120, 3)
    basis = principal_basis(data, 6)
    assert (basis.deviations[:3] > 0).all() and np.isfinite(basis.components).all()
    flat = data.reshape(len(data), -1) - basis.mean
    rest = flat - flat @ basis.components[:3].T @ basis.components[:3]
    assert np.abs(rest).max() < 1e-4


def test_exact_on_data_of_its_own_rank() -> None:
    data = shapes(40, 320, 3)
    model = Pca.estimate(ball_template(320), data, {}, PcaConfig(3))
    torch.testing.assert_close(
        model(torch.from_numpy(data)), torch.from_numpy(data), rtol=1e-4, atol=1e-4
    )


def test_codes_have_unit_deviation() -> None:
    data = shapes(60, 320, 8)
    codes = Pca.estimate(ball_template(320), data, {}, PcaConfig(4)).encode(torch.from_numpy(data))
    torch.testing.assert_close(torch.cov(codes.T), torch.eye(4), rtol=1e-3, atol=1e-3)


def test_there_are_fewer_components_than_meshes() -> None:
    data = shapes(4, 320, 9)
    said = "^latent 8: 4 training meshes carry only 3, so the model has 3$"
    with pytest.warns(UserWarning, match=said):
        model = Pca.estimate(ball_template(320), data, {}, PcaConfig(8))
    assert model.latent == 3 and (model.basis.deviations > 0).all()
    assert torch.isfinite(model(torch.from_numpy(data))).all()
    torch.testing.assert_close(
        model(torch.from_numpy(data)), torch.from_numpy(data), rtol=1e-4, atol=1e-3
    )


def test_meshes_of_lower_rank_carry_fewer_still() -> None:
    with pytest.warns(UserWarning, match="40 training meshes carry only 3"):
        model = Pca.estimate(
            ball_template(320), shapes(40, 320, 3).astype(np.float64), {}, PcaConfig(20)
        )
    assert model.latent == 3


def test_equal_meshes_carry_nothing() -> None:
    with pytest.raises(InputError, match="the training meshes are all equal"):
        Pca.estimate(ball_template(320), np.repeat(shapes(1, 320, 3), 12, 0), {}, PcaConfig(2))


def test_block_iteration_equals_a_dense_solve(rng: np.random.Generator) -> None:
    factor = rng.standard_normal((400, 90)) * 0.8 ** np.arange(90)
    matrix = factor @ factor.T
    pairs = leading_eigenpairs(lambda x: matrix @ x, 400, 6)
    assert pairs is not None
    np.testing.assert_allclose(pairs[0], np.linalg.eigvalsh(matrix)[::-1][:6], rtol=1e-9)
    np.testing.assert_allclose(matrix @ pairs[1], pairs[1] * pairs[0], atol=1e-8 * pairs[0][0])
