"""The locally weighted autoencoder: its weights, its readings, its losses, and its sizes."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.spatial.transform import Rotation

from helpers import in_process, shapes
from morphable.data.dataset import MeshDataset, write_dataset
from morphable.data.makers import make_source
from morphable.errors import InputError
from morphable.mesh.hierarchy import Hierarchy, Level
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.autoencoder import AutoencoderConfig, HierarchicalAutoencoder
from morphable.models.families import MODELS, create
from morphable.models.local_weights import (
    LocalWeights,
    LocalWeightsConfig,
    exchange,
    partition_loss,
)
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.part_weights import (
    Displacement,
    PartWeightsConfig,
    displacement_matrix,
    factorize,
    part_weights,
)
from morphable.models.training import Batch, Progress

READINGS = ("features", "output", "outer", "latent", "sum")


def progress(seed: int = 0) -> Progress:
    return Progress(0, 1, 0, 1, torch.Generator().manual_seed(seed))


def made(template: Template, **settings: Any) -> LocalWeights:
    torch.manual_seed(0)
    model = create("local-weights", template, **({"latent": 6} | settings))
    assert isinstance(model, LocalWeights)
    return model.eval()


def initialized(dataset: MeshDataset, **settings: Any) -> LocalWeights:
    model = made(dataset.template, **settings)
    model.initialize(dataset.vertices)
    return model


# The weights.


def two_bumps(template: Template, count: int = 40) -> np.ndarray:
    """Shapes whose upper and lower half move sideways, each by an amount of its own."""
    base = np.asarray(template.mesh.vertices, np.float64)
    upper = base[:, 1] > np.median(base[:, 1])
    amounts = np.random.default_rng(0).normal(0, 5, (count, 2))
    moved = base + 0 * amounts[:, :1, None]
    moved[:, upper, 0] += amounts[:, :1]
    moved[:, ~upper, 0] += 0.01 * amounts[:, 1:]
    return moved.astype(np.float32)


def test_halves_that_move_independently_are_the_two_parts(hands: MeshDataset) -> None:
    """Also the lower half, which moves a hundredth as far: rows are relative."""
    template = hands.template
    config = PartWeightsConfig(parts=2, displacement="relative")
    result = factorize(two_bumps(template), config)
    weights = part_weights(result, template.mesh.vertices, 3.0)
    height = template.mesh.vertices[:, 1]
    assert (weights[:, 0] > 0.99)[height > np.median(height)].all(), "the highest part is first"
    assert (weights[:, 1] > 0.99)[height < np.median(height)].all()


def test_in_millimeters_the_part_that_moves_far_decides(hands: MeshDataset) -> None:
    template = hands.template
    result = factorize(two_bumps(template), PartWeightsConfig(parts=2, displacement="mm"))
    weights = part_weights(result, template.mesh.vertices, 3.0)
    assert (weights.argmax(1) == 0).all(), "the lower half has no part of its own"


@pytest.mark.parametrize("displacement", ["mm", "relative"])
def test_the_displacement_matrix_by_hand(displacement: Displacement) -> None:
    """One vertex at 0, 3 and 6: its distances to the mean 3 are 3, 0, 3. Another stays."""
    meshes = np.zeros((3, 2, 3), np.float32)
    meshes[:, 0, 1] = [0, 3, 6]
    in_mm = np.array([3, 0, 3])
    wanted = in_mm**2 / np.sqrt((81 + 0 + 81) / 3) if displacement == "relative" else in_mm
    np.testing.assert_allclose(displacement_matrix(meshes, displacement), [wanted, [0, 0, 0]])


def test_aligned_parts_do_not_depend_on_where_a_mesh_lies(hands: MeshDataset) -> None:
    """Invariance: each mesh moved, turned and scaled by an amount of its own. The mean, and with it
    the frame, changes a little, hence the tolerance.
    """
    meshes, rng = hands.vertices[:30].astype(np.float64), np.random.default_rng(0)
    turns = Rotation.from_rotvec(rng.normal(0, 0.05, (30, 3))).as_matrix()
    placed = meshes @ turns + rng.normal(0, 20, (30, 1, 3))
    placed *= rng.uniform(0.8, 1.25, (30, 1, 1))
    positions = hands.template.mesh.vertices
    a, b = (
        part_weights(factorize(which, PartWeightsConfig()), positions, 1.0)
        for which in (meshes, placed)
    )
    np.testing.assert_allclose(a, b, atol=0.03)


def test_meshes_of_one_shape_have_no_parts_wherever_they_lie(hands: MeshDataset) -> None:
    scales = np.linspace(0.8, 1.2, 8)[:, None, None]
    copies = (hands.vertices[:1] * scales + 30 * scales).astype(np.float32)
    assert displacement_matrix(copies, "relative").any()
    with pytest.raises(InputError, match="all are the same shape"):
        displacement_matrix(copies, "aligned")


def test_the_scale_of_the_data_does_not_matter(hands: MeshDataset) -> None:
    meshes = hands.vertices[:30]
    results = [factorize(meshes * scale, PartWeightsConfig()) for scale in (1.0, 1000.0)]
    a, b = (part_weights(r, hands.template.mesh.vertices, 1.0) for r in results)
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_weights_of_a_vertex_sum_to_one_also_if_it_never_moves() -> None:
    meshes = np.random.default_rng(0).normal(size=(20, 8, 3)).astype(np.float32)
    meshes[:, 3] = 1.0
    result = factorize(meshes, PartWeightsConfig(parts=3, displacement="relative"))
    weights = part_weights(result, np.zeros((8, 3)), 50.0)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights[3], 1 / 3)
    assert (weights >= 0).all()


def test_the_model_keeps_the_weights_of_its_training_meshes(hands: MeshDataset) -> None:
    model, again = initialized(hands), initialized(hands)
    assert model.weights.shape == (hands.template.n_vertices, 4)
    np.testing.assert_allclose(model.weights.sum(1), 1, rtol=1e-5)
    assert np.array_equal(model.weights, again.weights)
    assert 0 < float(model.factorization_error) < 1


# The readings.


@pytest.mark.parametrize("reading", ["output", "outer"])
def test_a_part_changes_nothing_where_its_weight_is_zero(hands: MeshDataset, reading: str) -> None:
    model = initialized(hands, reading=reading)
    weights = model.decoder.weights
    weights.copy_(torch.where(weights < 0.3, 0.0, weights))
    code = torch.randn(3, model.parts.size, generator=torch.Generator().manual_seed(1))
    for part in range(4):
        changed = code.clone()
        changed[:, model.parts[str(part)]] += 5.0
        before, after = model.decode(code), model.decode(changed)
        assert torch.equal(before[:, weights[:, part] == 0], after[:, weights[:, part] == 0])
        assert not torch.allclose(before, after)


@pytest.mark.parametrize("convolution", ["chebyshev", "spiral", "spiral++"])
@pytest.mark.parametrize(
    "settings",
    [{"reading": "output"}, {"reading": "features", "blend_level": 0}, {"blend_level": 9}],
)
def test_equal_parts_are_a_plain_autoencoder(
    hands: MeshDataset, convolution: str, settings: dict[str, Any]
) -> None:
    """Weights of a vertex sum to one, and all projections start as the identity: so before
    training the model is CoMA, wherever the parts are summed.
    """
    settings = {"reading": "features"} | settings
    model = initialized(hands, convolution=convolution, **settings)
    names = [field.name for field in fields(AutoencoderConfig)]
    config = AutoencoderConfig(**{key: getattr(model.config, key) for key in names})
    plain = HierarchicalAutoencoder(hands.template, config, model.geometry).eval()
    own = plain.state_dict()
    for name, value in model.state_dict().items():
        # The decoder's layers are those of the part decoder.
        short = name.removeprefix("decoder.")
        if short in own and own[short].shape == value.shape:
            own[short] = value
    plain.load_state_dict(own)
    meshes = torch.from_numpy(hands.vertices[:3])
    torch.testing.assert_close(plain(meshes), model(meshes), rtol=1e-4, atol=1e-3)


def test_the_latent_reading_by_hand(hands: MeshDataset) -> None:
    """It decodes sum_k w_k * z_k, with w_k at as many vertices as a part has dimensions."""
    model = initialized(hands, reading="latent")
    parts = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    weights = model.decoder.weights[model.decoder.weighted]
    mixed = torch.stack([sum(weights[:, k] * part[k] for k in range(4)) for part in parts])
    expected = model.decoder._shape(mixed)
    torch.testing.assert_close(model.decoder(parts), expected)


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_decodes_one_by_one_as_in_a_batch(hands: MeshDataset, reading: str) -> None:
    model = initialized(hands, reading=reading)
    code = torch.randn(3, model.parts.size, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([model.decode(one[None]) for one in code])
    torch.testing.assert_close(model.decode(code), alone, rtol=1e-4, atol=1e-3)


# The losses.


def test_exchanged_parts_can_be_exchanged_back() -> None:
    parts = torch.arange(24.0).reshape(4, 3, 2)
    order = torch.tensor([[1, 0, 3], [2, 1, 2], [3, 2, 1], [0, 3, 0]])
    mixed = exchange(parts, order)
    assert torch.equal(mixed[0, 0], parts[1, 0]) and torch.equal(mixed[0, 2], parts[3, 2])
    assert torch.equal(exchange(mixed, order.argsort(0)), parts)


def test_partition_loss_by_hand() -> None:
    """Two projections onto the two axes of a plane: zero. Twice the identity: two products with
    |I|^2 = 2 each that should be zero, and |2 I - I|^2 = 2.
    """
    axes = torch.stack([torch.diag(torch.tensor(d)) for d in ([1.0, 0.0], [0.0, 1.0])])
    assert partition_loss(axes) == 0
    assert partition_loss(torch.eye(2).repeat(2, 1, 1)) == 6


def test_the_terms_of_the_loss(hands: MeshDataset) -> None:
    batch = Batch(torch.from_numpy(hands.vertices[:6]))
    model = initialized(hands)
    assert set(model.loss(batch, progress())) == {"distance", "cycle"}
    assert set(initialized(hands, cycle_weight=0).loss(batch, progress())) == {"distance"}
    full = initialized(hands, partition_weight=1.0).loss(batch, progress())
    assert set(full) == {"distance", "cycle", "partition"}
    repeated = model.loss(batch, progress())
    assert torch.equal(repeated["cycle"], model.loss(batch, progress())["cycle"])


def test_the_cycle_of_one_mesh_is_its_reconstruction_twice(hands: MeshDataset) -> None:
    """A single mesh has nobody to exchange parts with."""
    model = initialized(hands)
    batch = Batch(torch.from_numpy(hands.vertices[:1]))
    twice = model(model(batch.vertices))
    expected = model.config.cycle_weight * (twice - batch.vertices).norm(dim=-1).mean()
    torch.testing.assert_close(model.loss(batch, progress())["cycle"], expected)


@pytest.mark.parametrize("reading", READINGS)
def test_the_cycle_is_that_of_mixed_codes_decoded_anew(hands: MeshDataset, reading: str) -> None:
    """The loss mixes parts that it has decoded; here their codes are mixed, then decoded."""
    model = initialized(hands, reading=reading, cycle_share=1.0)
    batch = Batch(torch.from_numpy(hands.vertices[:5]))
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(5, generator=generator) for _ in range(4)], 1)

    def mixed(shapes: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return model.decode(exchange(model.encode(shapes).unflatten(1, (4, -1)), by).flatten(1))

    restored = mixed(mixed(batch.vertices, order), order.argsort(0))
    expected = model.config.cycle_weight * (restored - batch.vertices).norm(dim=-1).mean()
    found = model.loss(batch, progress())["cycle"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_projections_every_part_has_the_whole_encoding(hands: MeshDataset) -> None:
    model = initialized(hands, projections=False)
    meshes = torch.from_numpy(hands.vertices[:2])
    encoding = model.encoding(meshes)
    assert torch.equal(model.encode(meshes), encoding.repeat(1, 4))
    assert not any(name.startswith("to_parts") for name in model.state_dict())


# Sizes and settings.


def test_parameters_of_the_paper() -> None:
    """894,240 on 53,215 vertices, whose coarsest level has 208: convolutions 19,168, linear layers
    426,048 and 432,640, projections 16,384.
    """
    angle = np.linspace(0, 2 * np.pi, 208, endpoint=False)
    vertices = np.stack([np.cos(angle), np.sin(angle), np.zeros(208)], 1)
    triangles = np.stack([np.arange(206), np.arange(1, 207), np.arange(2, 208)], 1)
    level = Level(vertices, triangles, np.arange(208))
    step = sp.csr_matrix(sp.identity(208))
    geometry = MeshGeometry(Hierarchy((level,) * 5, (step,) * 4, (step,) * 4))
    template = create_template(vertices, triangles)
    model = LocalWeights(template, LocalWeightsConfig(), geometry)
    assert sum(parameter.numel() for parameter in model.parameters()) == 894_240
    assert model.to_parts.weight.numel() == 16_384


def create_template(vertices: np.ndarray, triangles: np.ndarray) -> Template:
    return Template(Mesh(vertices.astype(np.float32), triangles), "ring")


def test_the_latent_size_is_that_of_one_part(hands: MeshDataset) -> None:
    model = made(hands.template, latent=6)
    assert model.latent == 6
    assert model.parts.size == 24
    assert tuple(model.parts) == ("0", "1", "2", "3")
    assert MODELS["local-weights"].published.model.latent == 64


def test_learned_maps_are_folded(hands: MeshDataset) -> None:
    model = initialized(hands, aggregation="attention")
    folded = model.for_inference()
    meshes = torch.from_numpy(hands.vertices[:2])
    torch.testing.assert_close(folded(meshes), model(meshes), rtol=1e-4, atol=1e-3)
    assert len(folded.state_dict()) < len(model.state_dict())
    assert "weights" in model.snapshot()


def test_bad_settings(hands: MeshDataset) -> None:
    with pytest.raises(InputError, match=r"parts: expected 400 parts of latent size 64.*25,600"):
        create("local-weights", hands.template, parts=400)
    with pytest.raises(InputError, match=r"sparsity: expected a sparseness from 0 to below 1"):
        create("local-weights", hands.template, factorization="hoyer")
    with pytest.raises(InputError, match=r"model.parts 4: expected at most 3, for 3 training"):
        made(hands.template).initialize(hands.vertices[:3])
    constant = np.repeat(hands.vertices[:1], 5, 0)
    with pytest.raises(InputError, match="all are the same shape"):
        made(hands.template).initialize(constant)


def test_other_vertices_are_weighted_by_their_own_movement(hands: MeshDataset) -> None:
    """Invariance: renumbering vertices renumbers the weights."""
    meshes = shapes(hands.template, 30)
    order = np.random.default_rng(0).permutation(hands.template.n_vertices)
    config = replace(PartWeightsConfig(), sparsity=1.0)
    positions = np.asarray(hands.template.mesh.vertices)
    a = part_weights(factorize(meshes, config), positions, 2.0)
    b = part_weights(factorize(meshes[:, order], config), positions[order], 2.0)
    np.testing.assert_allclose(a[order], b, atol=1e-3)


@pytest.mark.parametrize(
    ("count", "settings", "words"),
    [
        (5, ["model.parts=9"], "model.parts 9: expected at most"),
        (0, [], "are all equal, so there is nothing to learn"),
        (5, ["model.parts=999"], "to make a code of at most"),
    ],
)
def test_bad_input_ends_with_one_sentence(
    count: int,
    settings: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = make_source("hands", count=10, seed=0)
    if not count:
        alike = np.repeat(np.asarray(source.template.mesh.vertices)[None], 10, 0)
        source = replace(source, blocks=lambda: iter([alike]))
    write_dataset(source, tmp_path / "data", 0)
    chosen = [word for setting in settings for word in ("--set", setting)]
    run = ["train", "local-weights", "--data", tmp_path / "data", "--out", tmp_path / "run"]
    done = in_process(capsys, *run, "--epochs", 1, *chosen)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.strip().splitlines()) <= 2 and "Traceback" not in done.err
