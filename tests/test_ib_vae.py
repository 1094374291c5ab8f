"""Information-bottlenecked VAE: golden counts and values, what gradients reach, points in any
order, conditions.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import in_process
from morphable.cli.main import main
from morphable.data.dataset import MeshDataset, load_dataset
from morphable.errors import InputError
from morphable.files import read_json
from morphable.mesh.io import read_mesh, write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.families import MODELS, create, split_total
from morphable.models.ib_vae import IbVae, IbVaeConfig, regularization_left
from morphable.models.io import load, save
from morphable.models.linear_two_space import LinearTwoSpace, TwoSpaceConfig
from morphable.models.point_encoder import PointGeometry, scan_like
from morphable.models.posterior import Posterior, mutual_information
from morphable.models.principal_basis import principal_basis
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.train.batches import TrainingData
from morphable.train.distributed import Workers
from morphable.train.run import RunConfig, run

HERE = Workers(0, 1, torch.device("cpu"))
SMALL = {"samples": (32, 16), "neighbors": 8}
EXPRESSIONS = ("eyebrow", "mouth_open", "neutral")


def progress(epoch: int = 0, epochs: int = 300) -> Progress:
    return Progress(epoch, epochs, epoch, 1, torch.Generator().manual_seed(epoch))


def shapes(template: Template, count: int, seed: int = 0) -> torch.Tensor:
    mean = torch.from_numpy(template.mesh.vertices.astype(np.float32))
    generator = torch.Generator().manual_seed(seed)
    return mean * (1 + 0.2 * torch.randn(count, 1, 3, generator=generator))


def ib_vae(template: Template, **changes: object) -> IbVae:
    torch.manual_seed(0)
    config = IbVaeConfig(**SMALL, **changes)  # type: ignore[arg-type]
    model = create("ib-vae", template, config)
    model.initialize(shapes(template, 8).numpy())
    return model


def cvae(template: Template) -> IbVae:
    torch.manual_seed(0)
    config = IbVae.config_for(IbVaeConfig(**SMALL, expressions=()), {"expression": EXPRESSIONS}, 24)  # type: ignore[arg-type]
    model = create("cvae", template, config)
    model.initialize(shapes(template, 8).numpy())
    return model.eval()


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts() -> None:
    template = ball_template(5023)
    model = create("ib-vae", template, IbVaeConfig())
    assert count(model.identity_decoder) == 3_874_013
    assert count(model.full_decoder) == 3_875_037
    assert count(model.encoder.trunk) == 2_208_704
    assert count(model.encoder.head) + count(model.to_posterior) == 280_528
    config = IbVaeConfig(expressions=tuple("abcdefghijkl"))
    conditional = create("cvae", template, config)
    assert count(conditional.full_decoder) == 3_878_109
    assert conditional.to_posterior.weight.shape == (16, 76)


def spread(batch: int, mean: float, deviation: float) -> tuple[torch.Tensor, Posterior]:
    generator = torch.Generator().manual_seed(0)
    means = mean * torch.randn(batch, 4, generator=generator, dtype=torch.float64)
    posterior = Posterior(means, torch.full_like(means, 2 * math.log(deviation)))
    return means + deviation * torch.randn(
        batch, 4, generator=generator, dtype=torch.float64
    ), posterior


def test_information_of_equal_and_of_separate_posteriors() -> None:
    """Golden check 8: with its constant log N, 9.821 where posteriors are equal and 13.287 where
    they are far apart.
    """
    drawn, posterior = spread(32, 0.0, 1.0)
    assert float(mutual_information(drawn, posterior)) == pytest.approx(0, abs=1e-12)
    drawn, posterior = spread(32, 1e3, 0.01)
    found = float(mutual_information(drawn, posterior))
    assert found == pytest.approx(math.log(32))
    assert found + math.log(18_420) == pytest.approx(13.287, abs=1e-3)


def test_information_of_overlapping_posteriors() -> None:
    """Golden check 8: codes of variance 0.91 with posterior deviation 0.3 in four dimensions, B =
    32.
    """
    values = []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        means = 0.91**0.5 * torch.randn(32, 4, generator=generator, dtype=torch.float64)
        posterior = Posterior(means, torch.full_like(means, 2 * math.log(0.3)))
        values.append(
            float(mutual_information(posterior.draw(generator), posterior)) + math.log(18_420)
        )
    assert np.mean(values) == pytest.approx(12.96, abs=0.05)


def test_information_counts_the_meshes_it_is_told_to() -> None:
    drawn, posterior = spread(6, 1.0, 0.5)
    alone = [float(mutual_information(drawn, posterior, torch.eye(6)[i])) for i in range(6)]
    assert float(mutual_information(drawn, posterior)) == pytest.approx(np.mean(alone))
    assert float(mutual_information(drawn, posterior, torch.zeros(6))) == 0


def test_the_full_decoder_does_not_reach_the_identity_code(ball: Template) -> None:
    """Golden check 10: exactly zero, while the expression code is reached; and in `decode` both
    are, for fitting.
    """
    model = ib_vae(ball)
    code = torch.randn(3, 8, requires_grad=True)
    model.decode(model.without_identity_gradient(code)).square().sum().backward()
    assert code.grad is not None
    assert (code.grad[:, :4] == 0).all()
    assert (code.grad[:, 4:] != 0).all()
    code.grad = None
    model.decode(code).square().sum().backward()
    assert (code.grad != 0).all()


def test_the_encoder_hears_a_share_of_the_identitys_gradient(ball: Template) -> None:
    """Codes are the same; the identity rows' gradient into the features is scaled, the expression
    rows' is not.
    """
    whole, some = ib_vae(ball), ib_vae(ball, identity_gradient=0.25)
    gradients = {}
    for part in ("identity", "expression"):
        for model in (whole, some):
            features = torch.linspace(-1, 1, 128).view(2, 64).requires_grad_()
            model.posterior(features, features.new_zeros(2, 0)).part(
                model.parts[part]
            ).mean.sum().backward()
            gradients[part, model.config.identity_gradient] = features.grad
    torch.testing.assert_close(gradients["identity", 0.25], 0.25 * gradients["identity", 1.0])
    torch.testing.assert_close(gradients["expression", 0.25], gradients["expression", 1.0])
    assert torch.equal(whole.encode(shapes(ball, 2)), some.encode(shapes(ball, 2)))


def test_the_reconstruction_term_trains_no_identity_output(ball: Template) -> None:
    model = ib_vae(ball)
    batch = Batch(shapes(ball, 6), shapes(ball, 6, 1))
    model.loss(batch, progress())["reconstruction"].backward()
    gradient = model.to_posterior.weight.grad
    assert gradient is not None
    assert (gradient[:8] == 0).all(), "mean and log variance of the identity code"
    assert (gradient[8:] != 0).any()


def test_terms_by_hand(ball: Template) -> None:
    model = ib_vae(ball, information_above=0.1)
    vertices, neutral = shapes(ball, 6), shapes(ball, 6, 1)
    batch = Batch(vertices, neutral, {"level": torch.tensor([0.0, 0.05, 0.2, 0.6, 1.0, 0.3])})
    torch.nn.init.zeros_(model.to_posterior.weight)
    torch.nn.init.zeros_(model.to_posterior.bias)
    for decoder in (model.identity_decoder, model.full_decoder):
        torch.nn.init.zeros_(decoder[2].weight)  # type: ignore[arg-type]
        torch.nn.init.zeros_(decoder[2].bias)  # type: ignore[arg-type]
    with torch.no_grad():
        terms = model.loss(batch, progress())
    mean = model.normalization.mean
    assert float(terms["reconstruction"]) == pytest.approx(
        6.6e-2 * float((vertices - mean).square().mean()), rel=1e-5
    )
    assert float(terms["identity"]) == pytest.approx(
        0.66 * float((neutral - mean).square().mean()), rel=1e-5
    )
    assert float(terms["kl"]) == 0
    assert float(terms["information"]) == pytest.approx(0, abs=1e-6)


def test_fresh_posteriors_are_as_narrow_as_told(ball: Template) -> None:
    model = ib_vae(ball, initial_deviation=0.1, identity=3, expression=2)
    wide = ib_vae(ball, identity=3, expression=2)
    features = torch.randn(4, 64)
    narrow, plain = (m.posterior(features, torch.zeros(4, 0)) for m in (model, wide))
    assert torch.equal(narrow.mean, plain.mean)
    torch.testing.assert_close(narrow.log_variance, plain.log_variance + 2 * math.log(0.1))


@torch.no_grad()
@pytest.mark.parametrize("hidden", [6, 7])
def test_decoders_that_start_at_the_components_are_linear(ball: Template, hidden: int) -> None:
    """The mean shape moved along three components by their deviations times what the first layer
    makes of the code.
    """
    model = ib_vae(ball, start="pca", hidden=hidden)
    basis = principal_basis(shapes(ball, 8).numpy(), 3)
    axes = torch.from_numpy(basis.components * basis.deviations[:, None]).float().view(3, -1, 3)
    code = torch.randn(5, 8)
    for decoder, own in ((model.identity_decoder, code[:, :4]), (model.full_decoder, code)):
        first = decoder[0]
        assert isinstance(first, torch.nn.Linear)
        expected = torch.einsum("bk,kvc->bvc", own @ first.weight[:3].T, axes)
        found = model._shape(decoder(own)) - torch.from_numpy(basis.mean).float().view(-1, 3)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
        assert float(expected.norm(dim=-1).mean()) > 1
    assert not torch.equal(model.identity_decoder[0].weight, model.full_decoder[0].weight[:, :4])


def test_divergence_is_a_sum_over_the_code_or_a_mean_over_each_part(ball: Template) -> None:
    posterior = Posterior(torch.full((5, 8), 2.0), torch.zeros(5, 8))
    assert float(ib_vae(ball)._kl(posterior)) == pytest.approx(16)
    assert float(ib_vae(ball, kl_mean=True)._kl(posterior)) == pytest.approx(4)


def test_the_divergence_has_a_weight_of_its_own(ball: Template) -> None:
    batch = Batch(shapes(ball, 4), shapes(ball, 4, 1))
    plain, heavy = (
        ib_vae(ball, kl_weight=weight).loss(batch, progress()) for weight in (1.0, 10.0)
    )
    torch.testing.assert_close(heavy["kl"], 10 * plain["kl"])
    torch.testing.assert_close(heavy["information"], plain["information"])


def test_the_regularization_falls_as_published() -> None:
    """(350 - epoch) / 350 with epochs counted from 1 to 300."""
    for epoch in (0, 100, 299):
        assert regularization_left(progress(epoch)) == pytest.approx((350 - epoch - 1) / 350)
    assert regularization_left(progress(9, epochs=10)) == pytest.approx(1 / 7)


@torch.no_grad()
def test_registered_meshes_and_their_points_give_the_same_code(ball: Template) -> None:
    """Where sampled points agree: the template itself, whose sampling is the stored one, shuffled
    as a cloud.
    """
    model = ib_vae(ball, sampling="template", scan_share=0.25).eval()
    vertices = torch.from_numpy(ball.mesh.vertices.astype(np.float32))[None]
    order = torch.randperm(ball.n_vertices, generator=torch.Generator().manual_seed(1))
    code = model.encode(vertices)
    torch.testing.assert_close(model.encode_points(vertices[:, order]), code, rtol=0, atol=1e-5)
    assert model.encode_points(vertices[:, order[:64]]).shape == (1, 8)
    with pytest.raises(InputError, match="P >= 64"):
        model.encode_points(vertices[:, order[:63]])


def test_the_papers_encoder_does_not_depend_on_the_order_of_vertices(ball: Template) -> None:
    """Each mesh is sampled, in training and afterwards; no index of a vertex is stored."""
    config = dataclasses.replace(MODELS["ib-vae"].published.model, **SMALL)
    assert config.sampling == "cloud"
    torch.manual_seed(0)
    model = create("ib-vae", ball, config)
    model.initialize(shapes(ball, 8).numpy())
    assert model.geometry.to_arrays() == {}
    vertices = shapes(ball, 6) + torch.randn(6, ball.n_vertices, 3)
    order = torch.randperm(ball.n_vertices, generator=torch.Generator().manual_seed(1))
    for in_training in (False, True):
        model.train(in_training)
        features = [
            model.encoder.in_training(points, progress().generator)
            for points in (vertices, vertices[:, order])
        ]
        torch.testing.assert_close(*features, rtol=1e-4, atol=1e-4)
    model.eval()
    with torch.no_grad():
        code = model.encode(vertices)
        torch.testing.assert_close(model.encode(vertices[:, order]), code)
        torch.testing.assert_close(model.encode_points(vertices[:, order]), code)


def test_the_templates_sampling_needs_its_order(ball: Template) -> None:
    """The fast path: the same mesh with its vertices in another order has other features."""
    assert MODELS["ib-vae"].fast.model.sampling == "template"
    model = ib_vae(ball, sampling="template").eval()
    vertices = shapes(ball, 2)
    order = torch.randperm(ball.n_vertices, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = model.encoder.of_meshes(vertices)
        difference = model.encoder.of_meshes(vertices[:, order]) - features
    assert float(difference.abs().max() / features.abs().max()) > 1e-3


@pytest.mark.parametrize(
    "changes, able",
    [
        ({}, True),
        ({"sampling": "template"}, False),
        ({"sampling": "template", "scan_share": 0.25}, True),
    ],
)
def test_only_models_that_learned_from_points_encode_them(
    ball: Template, changes: dict[str, object], able: bool
) -> None:
    model = ib_vae(ball, **changes).eval()
    assert model.encodes_points is able
    if able:
        assert model.encode_points(shapes(ball, 1)).shape == (1, 8)
    else:
        with pytest.raises(InputError, match="registered meshes only"):
            model.encode_points(shapes(ball, 1))


@torch.no_grad()
@pytest.mark.parametrize("sampling", ["cloud", "template"])
def test_a_small_template_needs_no_more_points_than_it_has(sampling: str) -> None:
    small = ball_template(42)
    model = ib_vae(small, sampling=sampling, scan_share=0.25).eval()
    assert model.encode(shapes(small, 2)).shape == (2, 8)
    assert model.encode_points(shapes(small, 2)).shape == (2, 8)
    with pytest.raises(InputError, match="P >= 42, got"):
        model.encode_points(shapes(small, 2)[:, :41])


def people(template: Template) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Four people with three meshes each, of which the first is neutral."""
    generator = torch.Generator().manual_seed(3)
    neutral = shapes(template, 4)
    offsets = 5 * torch.randn(2, template.n_vertices, 3, generator=generator)
    meshes = torch.stack([neutral, neutral + offsets[0], neutral - 2 * offsets[1]], 1)
    return meshes.flatten(0, 1), {"neutral": np.arange(12) // 3 * 3}


def by_components(template: Template, **changes: object) -> IbVae:
    torch.manual_seed(0)
    changes = {"encoder": "components", "rank": 12, "identity": 2, "expression": 2, **changes}
    model = create("ib-vae", template, IbVaeConfig(**changes))  # type: ignore[arg-type]
    meshes, labels = people(template)
    model.initialize(meshes.numpy(), labels)
    return model.eval()


@torch.no_grad()
def test_an_encoder_of_components_starts_as_the_linear_model(ball: Template) -> None:
    """Codes and shapes are those of `linear-two-space`, a family with code of its own."""
    model = by_components(ball, start="pca", initial_deviation=0.2)
    meshes, labels = people(ball)
    linear = LinearTwoSpace.estimate(ball, meshes.numpy(), labels, TwoSpaceConfig(2, 2))
    code = model.encode(meshes)
    torch.testing.assert_close(code, linear.encode(meshes), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.decode(code), linear.decode(code), rtol=1e-4, atol=1e-2)
    without = torch.cat([code[:, :2], torch.zeros(12, 2)], 1)
    torch.testing.assert_close(model.neutral(code), linear.decode(without), rtol=1e-4, atol=1e-2)
    posterior = model.posterior(model.encoder.of_meshes(meshes), torch.zeros(12, 0))
    torch.testing.assert_close(posterior.log_variance.exp().sqrt(), torch.full((12, 4), 0.2))
    assert model.starts_linear and not by_components(ball).starts_linear


def test_a_training_that_only_hurts_leaves_the_linear_model(
    gestures: MeshDataset, tmp_path: Path
) -> None:
    config = IbVaeConfig(encoder="components", rank=12, identity=2, expression=2, start="pca")
    train = TrainConfig(epochs=2, batch_size=8, learning_rate=0.03, schedule="constant", warmup=0)
    data = gestures.split("frames")
    model = run(RunConfig("ib-vae", config, train), data, tmp_path / "run", HERE)
    assert model.provenance["kept_epoch"] == 0
    labels = {"neutral": TrainingData.of(data.train).neutral.index}
    linear = LinearTwoSpace.estimate(
        gestures.template, data.train.vertices, labels, TwoSpaceConfig(2, 2)
    )
    meshes = torch.from_numpy(np.asarray(data.test.vertices[:]))
    with torch.no_grad():
        torch.testing.assert_close(model(meshes), linear(meshes), rtol=1e-4, atol=1e-2)


def test_an_encoder_of_components_learns_in_all_its_weights(ball: Template) -> None:
    model = by_components(ball).train()
    meshes, labels = people(ball)
    batch = Batch(meshes, meshes[torch.from_numpy(labels["neutral"])])
    sum(model.loss(batch, progress()).values()).backward()  # type: ignore[union-attr]
    silent = [name for name, own in model.named_parameters() if own.grad is None]
    assert not silent
    assert not model.geometry.to_arrays()


def test_an_encoder_of_components_reads_no_scans(ball: Template, tmp_path: Path) -> None:
    model = by_components(ball, scan_share=0.25)
    assert not model.encodes_points
    with pytest.raises(InputError, match=r"train one with model\.encoder=points"):
        model.encode_points(shapes(ball, 1))
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    meshes = people(ball)[0]
    assert torch.equal(model.encode(meshes), again.encode(meshes))


@torch.no_grad()
def test_without_two_people_the_decoders_alone_start_linear(ball: Template) -> None:
    torch.manual_seed(0)
    model = create("ib-vae", ball, IbVaeConfig(encoder="components", start="pca"))
    model.initialize(shapes(ball, 4).numpy(), {})
    first = model.full_decoder[0].weight
    assert torch.equal(first[128:], -first[:128])
    assert not model.starts_linear


def test_a_missing_sampling_is_refused(ball: Template) -> None:
    config = IbVaeConfig(**SMALL, sampling="template")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="sampling is missing"):
        create("ib-vae", ball, config, PointGeometry(None))


@torch.no_grad()
def test_neutral_shapes_depend_on_the_identity_alone(ball: Template) -> None:
    model = ib_vae(ball).eval()
    code = torch.randn(2, 8)
    other = torch.cat([code[:, :4], torch.randn(2, 4)], 1)
    assert torch.equal(model.neutral(code), model.neutral(other))
    assert not torch.equal(model.decode(code), model.decode(other))


def test_a_single_mesh_can_be_learned_from(ball: Template) -> None:
    """A last batch of one mesh has no batch statistics after the pooling."""
    model = ib_vae(ball).train()
    terms = model.loss(Batch(shapes(ball, 1), shapes(ball, 1)), progress())
    assert all(torch.isfinite(term) for term in terms.values())


def test_scans_are_subsets_with_noise(ball: Template) -> None:
    vertices = shapes(ball, 2)
    sizes = set()
    for seed in range(20):
        points, kept = scan_like(vertices, torch.Generator().manual_seed(seed))
        assert len(kept.unique()) == len(kept)
        sizes.add(len(kept))
        assert float((points - vertices).std()) == pytest.approx(1, abs=0.1)
    assert min(sizes) >= 80
    assert max(sizes) <= 320
    assert len(sizes) > 10


@torch.no_grad()
@pytest.mark.parametrize("sampling", ["cloud", "template"])
def test_training_sees_some_meshes_of_a_batch_as_scans(ball: Template, sampling: str) -> None:
    """With fixed statistics: what a scan of the first meshes gives, and what the other meshes give."""
    model = ib_vae(ball, scan_share=0.5, sampling=sampling).eval()
    vertices = shapes(ball, 6)
    points, kept = scan_like(vertices[:3], torch.Generator().manual_seed(0))
    found = model.encoder.in_training(vertices, progress().generator)
    torch.testing.assert_close(found[:3], model.encoder(points[:, kept]))
    torch.testing.assert_close(found[3:], model.encoder.of_meshes(vertices[3:]))


def test_conditions_are_one_hot_times_level(ball: Template) -> None:
    model = cvae(ball)
    assert model.names_of("condition") == ("eyebrow", "mouth_open")
    assert model.parts.free_size == 8
    labels = {
        "expression": torch.tensor([1, 0, 2, -1, 1]),
        "level": torch.tensor([0.5, 1.0, 0.0, 0.7, math.nan]),
    }
    found = model.condition.of(labels, 5)
    assert found.tolist() == [[0, 0.5], [1, 0], [0, 0], [0, 0], [0, 1]]


def test_without_named_expressions_the_condition_is_the_level(ball: Template) -> None:
    config = IbVae.config_for(
        IbVaeConfig(**SMALL, expressions=()), {"expression": ("neutral",)}, 24
    )  # type: ignore[arg-type]
    model = create("cvae", ball, config)
    labels = {"expression": torch.tensor([0, -1]), "level": torch.tensor([0.0, 0.25])}
    assert model.condition.of(labels, 2).tolist() == [[0], [0.25]]


@torch.no_grad()
def test_a_given_condition_is_kept_and_a_missing_one_is_the_best(ball: Template) -> None:
    model = cvae(ball)
    vertices = shapes(ball, 4)
    given = torch.tensor([0.0, 0.3]).expand(4, -1)
    assert torch.equal(model.encode(vertices, {"condition": given})[:, 8:], given)
    error = (model(vertices) - vertices).norm(dim=-1).mean(-1)
    assert ((model.encode(vertices)[:, 8:] > 0).sum(1) <= 1).all(), "one expression at a time"
    for row in ([0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [0.0, 0.25], [0.0, 0.75]):
        code = model.encode(vertices, {"condition": torch.tensor(row).expand(4, -1)})
        assert (error <= (model.decode(code) - vertices).norm(dim=-1).mean(-1) + 1e-4).all()


@torch.no_grad()
def test_points_without_a_condition_get_the_closest(ball: Template) -> None:
    """The condition that a shape was made with is found again from its points, in any order."""
    model = cvae(ball)
    torch.nn.init.normal_(model.full_decoder[2].weight, std=0.5)  # type: ignore[arg-type]
    model.to_posterior.weight.zero_()
    code = torch.zeros(1, 10)
    code[0, :8] = model.to_posterior.bias.view(2, 2, 4)[:, 0].ravel()
    code[0, 9] = 0.75
    points = model.decode(code)
    order = torch.randperm(ball.n_vertices, generator=torch.Generator().manual_seed(0))
    for cloud in (points, points[:, order]):
        assert model.encode_points(cloud)[0, 8:].tolist() == [0, 0.75]
    given = {"condition": torch.tensor([[0.5, 0.0]])}
    assert model.encode_points(points, given)[0, 8:].tolist() == [0.5, 0]


@pytest.mark.parametrize("total", range(2, 40))
def test_latent_sizes_in_proportion(total: int) -> None:
    found = list(split_total(total, {"identity": 1, "expression": 1}).values())
    assert sum(found) == total
    assert found[0] - found[1] in (0, 1)


def test_impossible_settings() -> None:
    for changes, message in (
        ({"samples": (64,)}, "two counts"),
        ({"scan_share": 1.5}, "share from 0 to 1"),
        ({"identity": 0}, "1 to 1,000,000"),
        ({"hidden": 1, "start": "pca"}, "at least 2"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(IbVaeConfig(), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 2"):
        split_total(1, {"identity": 1, "expression": 1})


def test_training_data_of_hands_gives_levels(hands: MeshDataset) -> None:
    levels = TrainingData.of(hands, ("expression", "level")).labels["level"]
    assert levels.dtype == np.float32
    assert 0 <= levels.min() < levels.max() <= 1


def test_scans_from_the_command_line(
    ball: Template, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shuffled, thinned points give what the mesh gives, nearly; a condition that is not given is
    searched and printed.
    """
    model = cvae(ball)
    save(model, tmp_path / "model")
    shape = shapes(ball, 1)[0].numpy()
    order = np.random.default_rng(0).permutation(len(shape))
    for name, points in (("scan", shape[order[:300]]), ("same", shape[order])):
        write_mesh(tmp_path / f"{name}.ply", Mesh(points, np.zeros((0, 3), np.int64)))
    files = [str(tmp_path / "scan.ply"), str(tmp_path / "same.ply")]
    command = ["reconstruct", str(tmp_path / "model"), *files, "--points", "--out"]
    main([*command, str(tmp_path / "none")])
    assert "chosen by least error" in capsys.readouterr().out
    main([*command, str(tmp_path / "out"), "--given", "condition=mouth_open:0.5"])
    assert "mean distance" in capsys.readouterr().out
    condition = torch.zeros(1, 2)
    condition[0, list(model.names_of("condition")).index("mouth_open")] = 0.5
    with torch.no_grad():
        expected = model(torch.from_numpy(shape)[None], {"condition": condition})[0].numpy()
    found = read_mesh(tmp_path / "out" / "same.ply").mesh
    np.testing.assert_allclose(found.vertices, expected, atol=1e-3)
    assert np.array_equal(found.faces, ball.mesh.faces)


def test_recorded_sequences_without_neutral_scans(
    ball: Template, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder laid out as COMA's, from import to evaluation: first frames are neutral, levels grow
    with the frames.
    """
    random = np.random.default_rng(0)
    bump = np.exp(-np.square(ball.mesh.vertices - ball.mesh.vertices[0]).sum(1) / 500)[:, None] * [
        0,
        0,
        8.0,
    ]
    for person in range(3):
        own = ball.mesh.vertices * random.uniform(0.8, 1.2, 3)
        for name, sign in (("pout", 1.0), ("suck", -1.0)):
            (tmp_path / f"raw/p{person}/{name}").mkdir(parents=True)
            for frame in range(6):
                vertices = (own + sign * frame / 5 * bump).astype(np.float32)
                write_mesh(
                    tmp_path / f"raw/p{person}/{name}/{name}.{frame + 1:06d}.ply",
                    Mesh(vertices, ball.mesh.faces),
                )
    data, out = str(tmp_path / "data"), str(tmp_path / "run")
    main(["data", "import", "folder", str(tmp_path / "raw"), "--unit", "mm", "--out", data,
          "--pattern", "{subject}/{sequence}/{frame}"])  # fmt: skip
    assert load_dataset(data).labels["frame"].tolist() == [*range(1, 7)] * 6
    training = TrainingData.of(load_dataset(data).split("frames").train, ("expression", "level"))
    assert training.neutral.computed and (training.neutral.index >= 0).all()
    assert training.labels["level"].max() == 1
    main(["train", "cvae", "--data", data, "--split", "frames", "--out", out, "--epochs", "1", "--latent", "4",
          "--set", "model.samples=32,16", "--set", "model.neighbors=8"])  # fmt: skip
    assert load(Path(out)).names_of("condition") == ("pout", "suck")
    main(["evaluate", out])
    for family in ("pca", "multilinear", "linear-two-space"):
        train = ("train", family, "--data", data, "--split", "frames", "--out", f"{out}-{family}")
        assert in_process(capsys, *train, "--latent", 4).code == 0
        assert in_process(capsys, "evaluate", f"{out}-{family}").code == 0
    for name in ("", "-multilinear", "-linear-two-space"):
        measured = read_json(Path(out + name) / "evaluation.json")["model"]
        assert {"disentanglement_error_mm", "neutral_error_mm", "expression_kept"} <= set(measured)
    assert measured["vertex_error_mm"]["mean"] < 1e-3, (
        "people and bumps add up, so a linear model has them exactly"
    )
