"""Fits with known truth: registered shapes, masks and landmarks; the posterior of a linear model;
poses; and targets that do not fit.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import morphable
from helpers import shapes
from morphable.errors import InputError
from morphable.mesh.landmarks import Landmarks
from morphable.mesh.scan import Scan
from morphable.mesh.template import Template
from morphable.models.pca import Pca, PcaConfig

NOISE = 0.5


@pytest.fixture(scope="module")
def pca(ball: Template) -> Pca:
    return Pca.estimate(ball, shapes(ball, 40), {}, PcaConfig(4)).eval()


@pytest.fixture(scope="module")
def unseen(ball: Template) -> np.ndarray:
    return shapes(ball, 6, seed=7)


def distances(a: np.ndarray | Tensor, b: np.ndarray | Tensor) -> np.ndarray:
    """(B,) mm mean vertex distances."""
    return np.asarray(np.linalg.norm(np.asarray(a) - np.asarray(b), axis=-1).mean(-1))


def test_a_registered_shape_is_as_near_as_the_model_can_show_it(
    pca: Pca, unseen: np.ndarray
) -> None:
    found = morphable.fit(pca, unseen)
    own = distances(pca(torch.from_numpy(unseen)), unseen)
    assert (found.error <= 1.001 * own).all()
    np.testing.assert_allclose(found.error, distances(found.vertices, unseen), rtol=1e-4)


def test_the_posterior_of_a_linear_model_is_the_closed_form(pca: Pca, unseen: np.ndarray) -> None:
    """z | x = N(S A^T (x - mean) / s^2, S) with S = (I + A^T A / s^2)^-1, for the rows that were
    seen.
    """
    rows = np.arange(3, 320, 17)
    found = morphable.fit(pca, Landmarks(rows, unseen[:, rows]), pose="none", noise=NOISE)
    columns = (3 * rows[:, None] + np.arange(3)).ravel()
    basis = (pca.basis.components * pca.basis.deviations[:, None]).double().numpy()[:, columns].T
    covariance = np.linalg.inv(np.eye(4) + basis.T @ basis / NOISE**2)
    offsets = unseen[:, rows].reshape(6, -1) - pca.basis.mean.numpy()[columns]
    expected = offsets @ basis @ covariance / NOISE**2
    np.testing.assert_allclose(found.code.numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(found.covariance[0], covariance, rtol=0.01, atol=1e-6)
    # Where the code says nothing, the distance is that of a Gaussian of the noise alone.
    assert (found.uncertainty >= NOISE * 2.5 * 0.99).all()


def test_a_batch_equals_its_shapes_one_by_one(pca: Pca, unseen: np.ndarray) -> None:
    together = morphable.fit(pca, unseen, pose="rigid")
    for row, shape in enumerate(unseen):
        alone = morphable.fit(pca, shape, pose="rigid")
        np.testing.assert_allclose(alone.vertices[0], together.vertices[row], atol=0.02)


def test_half_of_a_shape(pca: Pca, ball: Template, unseen: np.ndarray) -> None:
    known = ball.mesh.vertices[:, 1] > 0
    found = morphable.fit(pca, unseen, mask=known)
    own = distances(pca(torch.from_numpy(unseen)), unseen)
    assert (distances(found.vertices, unseen) < 1.5 * own).all()
    assert np.isnan(found.residuals[:, ~known]).all()
    holes = np.where(known[:, None], unseen, np.nan)
    again = morphable.fit(pca, holes, nan_is_missing=True)
    np.testing.assert_allclose(again.vertices, found.vertices, atol=1e-3)
    with pytest.raises(InputError, match="not finite, the first is vertex"):
        morphable.fit(pca, holes)


@pytest.mark.parametrize("pose", ["rigid", "similarity"])
def test_a_shape_that_lies_elsewhere(pca: Pca, unseen: np.ndarray, pose: str) -> None:
    turn = Rotation.from_rotvec([1.0, 2.0, -0.5]).as_matrix()
    size = 1.3 if pose == "similarity" else 1.0
    moved = (size * unseen @ turn.T + [100, 20, -50]).astype(np.float32)
    found = morphable.fit(pca, moved, pose=pose)
    own = distances(pca(torch.from_numpy(unseen)), unseen)
    assert (distances(found.placed, moved) / size < 1.2 * own).all()
    np.testing.assert_allclose(found.map.apply(found.placed), found.vertices, atol=1e-2)


def test_the_prior_draws_the_code_to_its_mean(pca: Pca, unseen: np.ndarray) -> None:
    rows = np.arange(0, 320, 40)
    seen = Landmarks(rows, unseen[:, rows])
    free, drawn = (
        morphable.fit(pca, seen, pose="none", prior_weight=weight, noise=1.0).code
        for weight in (0.0, 100.0)
    )
    assert (drawn.norm(dim=1) < free.norm(dim=1)).all()


def test_targets_that_do_not_fit(pca: Pca, unseen: np.ndarray) -> None:
    with pytest.raises(InputError, match="vertices: expected"):
        morphable.fit(pca, unseen[:, :7])
    with pytest.raises(InputError, match="of another template"):
        morphable.fit(pca, Landmarks(np.array([900]), np.zeros((1, 3))))
    with pytest.raises(InputError, match="at least three points"):
        morphable.fit(pca, Landmarks(np.array([1]), np.zeros((1, 3))))
    with pytest.raises(InputError, match="listed twice"):
        Landmarks(np.array([1, 1]), np.zeros((2, 3)))
    with pytest.raises(InputError, match="no vertex of shape 0"):
        morphable.fit(pca, unseen, mask=np.zeros(320, bool))


def test_a_scan_without_correspondences(pca: Pca, ball: Template, unseen: np.ndarray) -> None:
    """Shuffled, noisy, cropped, turned, scaled, and of an unseen shape."""
    random = np.random.default_rng(0)
    triangles, own = ball.mesh.triangles, distances(pca(torch.from_numpy(unseen)), unseen)
    for number in range(2):
        truth = unseen[number].astype(np.float64)
        corners = truth[triangles[random.integers(0, len(triangles), 3000)]]
        places = np.einsum("pc,pcx->px", random.dirichlet([1, 1, 1], 3000), corners)
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        kept = places[:, 1] > np.quantile(places[:, 1], 0.1)
        turn = Rotation.random(rng=random).as_matrix()
        size, shift = random.uniform(0.8, 1.25), random.normal(0, 100, 3)
        noisy = places[kept] + random.normal(0, 0.1, (int(kept.sum()), 3))
        scan = Scan(size * noisy @ turn.T + shift, normals[kept] @ turn.T)
        found = morphable.fit(pca, scan)
        error = distances(found.placed[0], size * truth @ turn.T + shift) / size
        assert error < 1.3 * own[number] + 0.1, (number, error, own[number])


def test_a_scan_of_something_else(pca: Pca) -> None:
    random = np.random.default_rng(0)
    with pytest.raises(InputError, match="do not show the same thing"):
        morphable.fit(pca, Scan(random.normal(500, 100, (500, 3))), pose="none")
