"""The contract that every model family must fulfill."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from family_models import STEPS, VARIANTS, batch, progress, trained_family, training
from morphable.data.dataset import MeshDataset
from morphable.edit.code import transfer
from morphable.errors import InputError
from morphable.fitting.fit import fit
from morphable.fitting.problem import fit_frame
from morphable.mesh.landmarks import Landmarks
from morphable.models.base import AdversarialModel, MorphableModel, TrainableModel
from morphable.models.families import MODELS, create, with_latent
from morphable.models.io import load, save


@pytest.fixture(scope="module", params=[*MODELS, *VARIANTS])
def model(request: pytest.FixtureRequest, gestures: MeshDataset) -> MorphableModel:
    return trained_family(request.param, gestures)


@pytest.fixture(scope="module")
def shapes(hands: MeshDataset) -> torch.Tensor:
    return torch.from_numpy(hands.vertices[np.arange(5, 65, 10)])


def test_shapes_of_codes_and_meshes(model: MorphableModel, shapes: torch.Tensor) -> None:
    code = model.encode(shapes)
    assert code.shape == (len(shapes), model.parts.size)
    assert model.decode(code).shape == shapes.shape
    assert torch.equal(model(shapes), model.decode(code))
    assert torch.isfinite(model(shapes)).all()


def test_encoding_is_deterministic(model: MorphableModel, shapes: torch.Tensor) -> None:
    assert torch.equal(model.encode(shapes), model.encode(shapes))


def test_a_batch_equals_its_meshes_one_by_one(model: MorphableModel, shapes: torch.Tensor) -> None:
    together = model(shapes)
    alone = torch.cat([model(shape[None]) for shape in shapes])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=2e-3)


def test_reconstruction_is_in_millimeters_and_near(
    model: MorphableModel, shapes: torch.Tensor
) -> None:
    """After a few steps, the error is smaller than a wrong scale or position would cause."""
    error = (model(shapes) - shapes).norm(dim=-1).mean()
    assert error < 40


def test_decode_is_differentiable_in_the_code(model: MorphableModel) -> None:
    code = model.prior.sample(2, torch.Generator().manual_seed(0)).requires_grad_()
    model.decode(code).square().mean().backward()
    assert code.grad is not None
    free = torch.from_numpy(model.parts.free)
    assert torch.isfinite(code.grad).all()
    assert (code.grad[:, free] != 0).any(0).sum() >= 1


def test_a_fit_to_a_few_vertices_is_nearer_than_the_mean(
    model: MorphableModel, shapes: torch.Tensor
) -> None:
    rows = np.arange(0, shapes.shape[1], 20)
    target = shapes[:1].numpy()
    found = fit(model, Landmarks(rows, target[:, rows]), pose="none", noise=1.0)
    start = model.decode(fit_frame(model, 1, {}).origin).detach().numpy()
    assert found.error[0] <= np.linalg.norm((start - target)[:, rows], axis=-1).mean() + 1e-3
    assert np.isfinite(found.uncertainty).all() and (found.uncertainty > 0).all()
    assert found.code.shape == (1, model.parts.size)


def test_every_parameter_gets_a_gradient(model: MorphableModel, gestures: MeshDataset) -> None:
    """Over one round of an adversarial model's steps with each factor."""
    model = copy.deepcopy(model)  # in training mode, a step changes the batch statistics
    model.train()
    whole = batch(training(gestures))
    match model:
        case TrainableModel():
            objectives = [model.loss(whole, progress(STEPS - 1))]
        case AdversarialModel():
            objectives = [
                loss(whole, progress(step))
                for step in range(2 * (model.critic_steps + 1))
                for loss in (model.critic_loss, model.generator_loss)
            ]
        case _:
            assert not list(model.parameters()), "an estimated model has buffers, not parameters"
            return
    torch.stack([term for terms in objectives for term in terms.values()]).sum().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None and parameter.requires_grad
    ]
    assert not without


def test_samples_repeat_with_the_seed_and_differ_without(model: MorphableModel) -> None:
    first, again, other = (
        model.sample(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@torch.no_grad()
def test_the_prior_has_the_moments_of_the_codes(
    model: MorphableModel, gestures: MeshDataset
) -> None:
    if not model.prior_is_fitted:
        return
    free = torch.from_numpy(model.parts.free)
    whole = batch(training(gestures))
    given = model.given_by_labels(whole.labels, len(whole.vertices))
    codes = model.encode(whole.vertices, given) * free
    torch.testing.assert_close(model.prior.mean, codes.mean(0), rtol=1e-3, atol=1e-3)
    covariance = model.prior.factor @ model.prior.factor.T
    expected = torch.cov(codes.T).reshape(covariance.shape)
    torch.testing.assert_close(
        covariance, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())
    )


def test_a_known_part_stays_as_given(model: MorphableModel) -> None:
    name = next(iter(model.parts))
    where = model.parts[name]
    value = torch.full((where.stop - where.start,), 0.25)
    drawn = model.prior.given({name: value}).sample(4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn[:, where], value.expand(4, -1))


def test_pinned_parts_are_given_never_inferred_nor_drawn(
    model: MorphableModel, shapes: torch.Tensor
) -> None:
    """`encode` returns given values unchanged, the prior holds pinned parts constant, and `decode`
    depends on them.
    """
    pinned = model.parts.pinned_names
    if not pinned:
        return
    free = torch.from_numpy(model.parts.free)
    for name in pinned:
        where = model.parts[name]
        value = torch.full((where.stop - where.start,), 0.5)
        code = model.encode(shapes, {name: value})
        assert torch.equal(code[:, where], value.expand(len(shapes), -1))
        assert (model.prior.sample(3, torch.Generator().manual_seed(0))[:, where] == 0).all()
        assert not torch.equal(model.decode(code), model.decode(code * free))


@torch.no_grad()
def test_deformation_transfer(model: MorphableModel, shapes: torch.Tensor) -> None:
    """The step from a to b, applied to a, gives b. A step of zero changes nothing."""
    a, b, c = model.encode(shapes[:3])
    for code, expected in (
        (transfer(model.parts, a, b, a), b),
        (transfer(model.parts, a, a, c), c),
    ):
        torch.testing.assert_close(
            model.decode(code[None]), model.decode(expected[None]), rtol=1e-4, atol=2e-3
        )


@pytest.mark.parametrize("name", ["folder", "model.zip"])
def test_saved_and_loaded_it_is_the_same(
    model: MorphableModel, shapes: torch.Tensor, tmp_path: Path, name: str
) -> None:
    save(model, tmp_path / name)
    back = load(tmp_path / name)
    assert back.family == model.family
    assert back.config == model.config
    assert torch.equal(back.encode(shapes), model.encode(shapes))
    assert torch.equal(back(shapes), model(shapes))
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(back.sample(2, generator), model.sample(2, torch.Generator().manual_seed(5)))


def test_a_loaded_model_is_ready_for_use(model: MorphableModel, tmp_path: Path) -> None:
    """Its path is a text, no parameter requires gradients, but the code may."""
    save(model, str(tmp_path / "model.zip"))
    back = load(str(tmp_path / "model.zip"))
    assert not any(module.training for module in back.modules())
    assert not any(parameter.requires_grad for parameter in back.parameters())
    assert not back.sample(2).requires_grad
    code = torch.zeros(1, back.parts.size, requires_grad=True)
    back.decode(code).square().sum().backward()
    assert code.grad is not None


def test_samples_without_a_generator_are_torchs_random_ones(model: MorphableModel) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, other = model.sample(2), model.sample(2)
        torch.manual_seed(3)
        assert torch.equal(model.sample(2), first)
    assert not torch.equal(first, other)


def test_codes_of_another_shape_are_refused(model: MorphableModel) -> None:
    size = model.parts.size
    uses = [model.decode]
    if "identity" in model.parts:
        uses.append(model.neutral)
    for shape in ((size,), (1, size + 1), (1, 1, size), ()):
        for use in uses:
            with pytest.raises(InputError) as caught:
                use(torch.zeros(shape))
            assert str(caught.value) == f"code: expected (B, {size}), got {shape}"


def test_given_values_of_another_shape_are_refused(
    model: MorphableModel, shapes: torch.Tensor
) -> None:
    for name in model.parts.pinned_names:
        with pytest.raises(InputError, match=f"part '{name}': expected"):
            model.encode(shapes, {name: torch.zeros(len(shapes), 1000)})


def test_another_vertex_count_is_refused(model: MorphableModel) -> None:
    with pytest.raises(InputError, match=r"expected \(B, 1609, 3\), got \(1, 7, 3\)"):
        model.encode(torch.zeros(1, 7, 3))
    for shape in ((1609, 3), (1609,), (1, 1609, 2)):
        with pytest.raises(InputError, match=r"vertices: expected \(B, 1609, 3\)"):
            model.encode(torch.zeros(shape))
    for shape in ((100, 3), (100,), (1, 100, 2)):
        with pytest.raises(InputError):
            model.encode_points(torch.zeros(shape))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_latent_size_is_the_free_total(name: str, recipe: str, hands: MeshDataset) -> None:
    config = with_latent(MODELS[name].recipe(recipe).model, 6)
    assert create(name, hands.template, config).latent == 6


@pytest.mark.parametrize("latent", [0, -3, {"shape": 0}])
def test_impossible_latent_sizes(latent: int | dict[str, int]) -> None:
    with pytest.raises(InputError, match="whole number of at least 1"):
        with_latent(MODELS["coma"].fast.model, latent)
