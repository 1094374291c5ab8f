"""rotation-mlp: rotations and their vectors, what triangles say of a mesh, and the choice between
rotations and positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from morphable.data.makers import make_source
from morphable.errors import InputError
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.local_rotations import LocalRotations, ReadTriangles
from morphable.models.pca import Pca, PcaConfig
from morphable.models.rotation_mlp import RotationMlp, RotationMlpConfig
from morphable.models.training import Batch, Progress
from morphable.ops.rotations import rotation_matrices, rotation_vectors

SMALL = RotationMlpConfig(latent=4, rank=24, triangles=60, width=16, depth=1, features="rotations")


def test_rotation_matrices_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(200, 3)) * random.uniform(0, 1.2, (200, 1))
    vectors[0], vectors[1] = 0, [1e-6, 0, 0]
    expected = Rotation.from_rotvec(vectors).as_matrix()
    found = rotation_matrices(torch.from_numpy(vectors))
    assert np.abs(found.numpy() - expected).max() < 1e-10
    single = rotation_matrices(torch.from_numpy(vectors).float())
    assert np.abs(single.numpy() - expected).max() < 1e-6


def test_rotation_vectors_invert_them_up_to_half_a_turn() -> None:
    random = np.random.default_rng(1)
    axes = random.normal(size=(300, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = axes * np.linspace(0, np.pi - 1e-3, 300)[:, None]
    back = rotation_vectors(rotation_matrices(torch.from_numpy(vectors)))
    assert np.abs(back.numpy() - vectors).max() < 1e-7
    assert np.abs(back.numpy() - Rotation.from_rotvec(vectors).as_rotvec()).max() < 1e-7


def test_both_have_gradients_everywhere() -> None:
    vectors = torch.tensor([[0.0, 0, 0], [0.3, -0.2, 1.0]], requires_grad=True, dtype=torch.float64)
    turned = rotation_matrices(vectors)
    back = rotation_vectors(turned)
    (gradient,) = torch.autograd.grad(back.sum(), vectors)
    assert torch.allclose(gradient, torch.ones_like(gradient), atol=1e-6)
    assert torch.autograd.gradcheck(rotation_matrices, (vectors[1:],))


@pytest.fixture(scope="module")
def hands() -> tuple[Template, np.ndarray, np.ndarray]:
    """A template, 200 meshes of 40 people, and the row of each one's neutral mesh."""
    source = make_source("hands", count=200, seed=5)
    return source.template, np.concatenate(list(source.blocks())), source.labels["neutral"]


def made(template: Template, config: RotationMlpConfig) -> RotationMlp:
    return RotationMlp(template, config, ReadTriangles.of(template, config))


def read_hands(template: Template, shapes: np.ndarray) -> LocalRotations:
    local = LocalRotations(ReadTriangles.of(template, SMALL), 8)
    local.choose_reference(shapes)
    return local


def test_a_turned_and_stretched_mesh_is_read_as_one_rotation_and_one_stretch(
    hands: tuple[Template, np.ndarray, np.ndarray],
) -> None:
    template, shapes, _ = hands
    local = read_hands(template, shapes[:1])
    vector = np.array([0.2, -0.5, 1.0])
    turn = Rotation.from_rotvec(vector).as_matrix()
    moved = torch.from_numpy(1.5 * shapes[0] @ turn.T + [3, 2, 1]).float()
    features = local.features(moved[None])[0].unflatten(0, (-1, 3))
    assert torch.allclose(features[:60].abs(), torch.from_numpy(np.abs(vector)).float(), atol=1e-4)
    assert torch.allclose(features[:60], features[:1].expand(60, 3), atol=1e-4)
    stretch = features[60:].unflatten(0, (-1, 3))
    assert torch.allclose(stretch, 0.5 * torch.eye(3), atol=1e-4)


def test_the_reference_is_read_as_zero_and_deformations_are_written_back(
    hands: tuple[Template, np.ndarray, np.ndarray],
) -> None:
    template, shapes, _ = hands
    local = read_hands(template, shapes)
    meshes = torch.from_numpy(shapes)
    distance = (meshes - meshes.mean(0)).square().sum((1, 2))
    assert local.features(meshes[distance.argmin()][None]).abs().max() < 1e-5
    # The frames are in rows: frame(mesh) = frame(reference) U R.
    corners = meshes[3][local.corners]
    edges = torch.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], 1)
    frames = torch.linalg.inv(local.inverse)
    deformation = local.deformation(local.features(meshes[3:4])).unflatten(1, (-1, 3, 3))[0]
    assert torch.allclose((frames @ deformation)[:, :2], edges, atol=1e-3)


def test_meshes_are_linear_in_the_deformations(
    hands: tuple[Template, np.ndarray, np.ndarray],
) -> None:
    """At far fewer triangles than the mesh has, and on people whom the map was not fitted to."""
    template, shapes, _ = hands
    model = made(template, replace(SMALL, triangles=150, rank=100))
    model.initialize(shapes[:160])
    assert model.rotations is not None
    others = torch.from_numpy(shapes[160:])
    coefficients = model.rotations.write(model.rotations.read(others))
    found = model.basis.mean + coefficients @ model.basis.components
    error = (found.unflatten(1, (-1, 3)) - others).norm(dim=-1).mean()
    moved = (others - torch.from_numpy(shapes.mean(0))).norm(dim=-1).mean()
    assert error < 0.02 * moved


def test_it_starts_far_below_pca_on_hands_and_takes_positions_for_what_is_linear(
    hands: tuple[Template, np.ndarray, np.ndarray],
) -> None:
    template, shapes, neutral = hands
    people = np.unique(neutral, return_inverse=True)[1]
    config = replace(SMALL, latent=8, features="auto")
    chosen = RotationMlp.config_by_shapes(config, template, shapes, lambda: people)
    assert chosen.features == "rotations"
    model = made(template, chosen)
    model.initialize(shapes[:160])
    pca = Pca.estimate(template, shapes[:160], {}, PcaConfig(latent=8))
    others = torch.from_numpy(shapes[160:])
    errors = [(m(others) - others).norm(dim=-1).mean() for m in (model, pca)]
    assert errors[0] < 0.75 * errors[1]

    random = np.random.default_rng(0)
    blends = random.normal(size=(200, 12)) @ (shapes[:12] - shapes[12]).reshape(12, -1)
    linear = (shapes[12] + 0.3 * blends.reshape(shapes.shape)).astype(np.float32)
    chosen = RotationMlp.config_by_shapes(config, template, linear, lambda: people)
    assert chosen.features == "positions"
    model = made(template, chosen)
    model.initialize(linear)
    pca = Pca.estimate(template, linear, {}, PcaConfig(latent=8))
    meshes = torch.from_numpy(linear[:5])
    assert torch.allclose(model(meshes), pca(meshes), atol=1e-3), "it starts as PCA"
    assert model.dense_decoder() is not None


def test_a_mixture_of_one_pose_and_one_person_is_that_mesh(
    hands: tuple[Template, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    template, shapes, neutral = hands
    monkeypatch.setattr("morphable.models.rotation_mlp.MIXTURE", (0.0, 0.0))
    config = replace(SMALL, rank=100, triangles=150, mixtures=1.0)
    for features in ("rotations", "positions"):
        model = made(template, replace(config, features=features))
        model.initialize(shapes, {"neutral": neutral})
        posed = np.flatnonzero(neutral != np.arange(200))
        assert len(model.people) == 40 and len(model.poses) == len(posed)
        person = int(np.flatnonzero(np.unique(neutral) == neutral[posed[7]])[0])
        mixture = model.people[person] + model.poses[7]
        shape = model.basis.mean + model._coefficients_of(mixture[None]) @ model.basis.components
        error = (shape.reshape(-1, 3) - torch.from_numpy(shapes[posed[7]])).norm(dim=-1).mean()
        assert error < 0.2
        drawn = model._mixtures(10, torch.Generator().manual_seed(0))
        assert drawn.shape == (10, 100)
        assert len(model.for_inference().people) == 0


def test_without_neutral_meshes_it_trains_on_the_meshes_alone(
    hands: tuple[Template, np.ndarray, np.ndarray],
) -> None:
    template, shapes, _ = hands
    model = made(template, SMALL)
    model.initialize(shapes)
    assert model._mixtures(8, torch.Generator()).shape == (0, 24)
    progress = Progress(0, 1, 0, 1, torch.Generator().manual_seed(0))
    loss = model.loss(Batch(torch.from_numpy(shapes[:8])), progress)["vertex_error"].item()
    with torch.no_grad():
        own = (model(torch.from_numpy(shapes[:8])) - torch.from_numpy(shapes[:8])).norm(dim=-1)
    assert abs(loss / float(own.mean()) - 1) < 0.2, "at a sixth of the vertices"


def test_gates_close_if_networks_do_harm(hands: tuple[Template, np.ndarray, np.ndarray]) -> None:
    template, shapes, _ = hands
    model = made(template, SMALL)
    model.initialize(shapes[:160])
    meshes = torch.from_numpy(shapes[160:])
    start = model(meshes).detach()
    with torch.no_grad():
        for network in (model.encoder, model.decoder):
            network[-1].weight.normal_(std=0.5)
        assert (model(meshes) - start).norm(dim=-1).mean() > 1
        model.finish(Batch(meshes))
        kept = (model(meshes) - meshes).norm(dim=-1).mean()
    assert kept <= (start - meshes).norm(dim=-1).mean() + 1e-4


@pytest.mark.parametrize(("error", "expected"), [(0.95, "positions"), (0.85, "rotations")])
def test_rotations_are_taken_only_if_they_are_clearly_better(
    hands: tuple[Template, np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    error: float,
    expected: str,
) -> None:
    """Few components of theirs have this share of the error of positions, and all of them little."""

    def errors(*given: object) -> Callable[[int], float]:
        few = error if given[3] == "rotations" else 1.0
        return lambda size: few if size <= 8 else 0.01

    monkeypatch.setattr("morphable.models.rotation_mlp._error_by_size", errors)
    template, shapes, neutral = hands
    people = np.unique(neutral, return_inverse=True)[1]
    config = replace(SMALL, latent=8, features="auto")
    chosen = RotationMlp.config_by_shapes(config, template, shapes, lambda: people)
    assert chosen.features == expected


def test_without_triangles_auto_takes_positions_and_rotations_are_refused() -> None:
    points = np.random.default_rng(0).normal(size=(40, 6, 3)).astype(np.float32)
    points[:, 3:] = points[:, :1]
    config = replace(SMALL, features="auto", latent=1)
    for faces in (np.zeros((0, 3), np.int64), np.array([[0, 3, 4], [3, 4, 5]])):
        template = Template(Mesh(points[0], faces))
        chosen = RotationMlp.config_by_shapes(config, template, points, lambda: np.arange(40))
        assert chosen.features == "positions"
        with pytest.raises(InputError, match="no triangles that have an area"):
            made(template, SMALL)


def test_a_collapsed_triangle_of_the_reference_is_refused(
    hands: tuple[Template, np.ndarray, np.ndarray],
) -> None:
    template, shapes, _ = hands
    model = made(template, SMALL)
    assert model.rotations is not None
    broken = shapes[:3].copy()
    broken[:, model.rotations.corners[0]] = 0
    with pytest.raises(InputError, match="no area"):
        model.initialize(broken)
