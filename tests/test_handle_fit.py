"""Moving handles by the code: the ridge solution of a linear model by hand, and what holds for any
decoder.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from family_models import trained_family
from morphable.data.dataset import MeshDataset
from morphable.edit.handle_fit import HANDLE_ERROR, HandleFit
from morphable.models.pca import Pca, PcaConfig

FAMILIES = ("pca-mlp", "coma", "gan", "local-weights")


@pytest.fixture(scope="module")
def pca(hands: MeshDataset) -> Pca:
    return Pca.estimate(hands.template, hands.vertices, {}, PcaConfig(6)).eval()


def test_a_linear_model_gets_the_ridge_solution(pca: Pca, hands: MeshDataset) -> None:
    """Against the normal equations, solved directly in mm and standard deviations."""
    handles, moved = np.array([3, 800]), np.array([[0, 0, 5.0], [1, 0, 0]])
    code = pca.encode(torch.from_numpy(hands.vertices[:1]))[0]
    components = (pca.decode(torch.eye(6)) - pca.decode(torch.zeros(6, 6))).detach().double()
    per_sd = torch.einsum("kvx,kl->lvx", components, pca.prior.factor.double())
    slopes = per_sd[:, handles].reshape(6, -1).numpy().T
    ridge = slopes.T @ slopes + HANDLE_ERROR**2 * np.eye(6)
    step = np.linalg.solve(ridge, slopes.T @ moved.ravel())
    expected = np.einsum("l,lvx->vx", step, per_sd.numpy())
    found = HandleFit.of(pca, code, handles).change(moved)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_an_own_shape_is_reached(pca: Pca, hands: MeshDataset) -> None:
    """If handles go where another shape of the model has them, many of them bring it about."""
    codes = pca.encode(torch.from_numpy(hands.vertices[[0, 40]]))
    first, second = pca.decode(codes).numpy()
    handles = np.arange(0, 1609, 40)
    change = HandleFit.of(pca, codes[0], handles).change((second - first)[handles])
    assert np.linalg.norm(change - (second - first), axis=1).max() < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_is_exactly_zero_and_a_handle_comes_nearer(family: str, gestures: MeshDataset) -> None:
    model = trained_family(family, gestures)
    code = model.prior.mean  # type: ignore[union-attr]
    fit = HandleFit.of(model, code, np.array([700]))
    assert not fit.change(np.zeros((1, 3))).any()
    goal = np.array([[0, 0, 2.0]])
    left = np.linalg.norm(fit.change(goal)[[700]] - goal)
    assert left < 2.0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_solution_is_a_minimum(family: str, gestures: MeshDataset) -> None:
    """Half or twice the step has a larger objective, in a family that bends too."""
    model = trained_family(family, gestures)
    handle, goal = np.array([700]), torch.tensor([0, 0, 1.0])
    fit = HandleFit.of(model, model.prior.mean, handle)  # type: ignore[union-attr]
    step = fit.gain @ goal

    @torch.no_grad()
    def objective(scale: float) -> float:
        moved = fit.decoded(scale * step)[700]
        miss = float((moved - goal).square().sum()) / HANDLE_ERROR**2
        return miss + float((scale * step).square().sum())

    assert objective(1.0) < min(objective(0.5), objective(2.0), objective(0.0))
