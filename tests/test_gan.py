"""The adversarial model on geometry images: its networks, its losses, and what its options do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import in_process
from morphable.data.dataset import MeshDataset, SplitDataset
from morphable.errors import InputError
from morphable.mesh.io import write_mesh
from morphable.models.families import MODELS, create
from morphable.models.gan import Gan, GanConfig
from morphable.models.image_geometry import ImageGeometry, ImageMaps, total_variation
from morphable.models.image_network import Critic, Generator, ImageNetworkConfig
from morphable.models.io import load
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.train.batches import Batches, TrainingData
from morphable.train.checkpoint import read_checkpoint
from morphable.train.distributed import Workers
from morphable.train.events import TrainingEvent
from morphable.train.learner import learner_for
from morphable.train.run import ClassNames, RunConfig, run
from test_learner import assert_equal

SMALL: dict[str, Any] = {"resolution": 16, "sizes": (5, 3), "noise": 2}
HERE = Workers(0, 1, torch.device("cpu"))
TRAIN = TrainConfig(learning_rate=1e-3, betas=(0.0, 0.99), schedule="constant", warmup=0)


def progress(step: int, seed: int = 0) -> Progress:
    return Progress(0, 1, step, 100, torch.Generator().manual_seed(seed + step))


def made(data: MeshDataset, recipe: str = "fast", **settings: Any) -> Gan:
    config = MODELS["gan"].recipe(recipe).model
    config = Gan.config_for(
        dataclasses.replace(config, **SMALL | settings), ClassNames(data.labels), len(data)
    )
    torch.manual_seed(0)
    model = create("gan", data.template, config)
    assert isinstance(model, Gan)
    training = TrainingData.of(data, model.labels_used)
    model.initialize(training.vertices, training.labels)
    return model


def batch(data: MeshDataset) -> Batch:
    training = TrainingData.of(data, ("subject", "expression"))
    vertices = torch.from_numpy(np.asarray(training.vertices[:]))
    labels = {name: torch.from_numpy(column) for name, column in training.labels.items()}
    return Batch(vertices, None, labels)


# The networks, as published


@pytest.mark.parametrize(
    ("form", "parameters"),
    [("transposed", 3_453_824), ("upsampled", 3_041_795), ("bilinear", 276_019)],
)
def test_generators_have_the_published_parameters(form: Any, parameters: int) -> None:
    network = Generator(85, ImageNetworkConfig(generator=form), bounded=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(2, 85)).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(("form", "features"), [("narrow", 2048), ("wide", 8192)])
def test_critics_have_the_published_features(form: Any, features: int) -> None:
    critic = Critic({"identity": 7}, ImageNetworkConfig(critic=form))
    images = torch.zeros(2, 3, 64, 64)
    found, answers = critic.factors["identity"](critic.trunk(images))
    assert found.shape == (2, features)
    assert answers.shape == (2, 7)
    assert critic.score(images).shape == (2,)


@pytest.mark.parametrize("resolution", [16, 32, 128])
@pytest.mark.parametrize("form", ["transposed", "upsampled", "bilinear"])
def test_networks_at_other_resolutions(form: Any, resolution: int) -> None:
    config = ImageNetworkConfig(resolution=resolution, generator=form)
    images = Generator(4, config, bounded=True)(torch.randn(2, 4))
    assert images.shape == (2, 3, resolution, resolution)
    assert images.abs().max() <= 1
    assert Critic({}, config).score(images).shape == (2,)


def test_the_first_weights_have_the_published_deviation() -> None:
    network = Generator(85, ImageNetworkConfig(), bounded=True)
    weights = [own.detach() for name, own in network.named_parameters() if name.endswith("weight")]
    convolutions = [weight for weight in weights if weight.ndim == 4]
    for weight in convolutions[:-1]:
        assert float(weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(weights[1].mean()) == pytest.approx(1.0, abs=0.01)


# Images


def test_images_and_vertices_agree_with_the_layout(gestures: MeshDataset) -> None:
    geometry = ImageGeometry.of(gestures.template, GanConfig(resolution=32))
    values = torch.from_numpy(gestures.vertices[:3])
    for readout in ("bilinear", "laplacian"):
        maps = ImageMaps(geometry, readout)  # type: ignore[arg-type]
        images = maps.to_image(values)
        expected = geometry.layout.rasterize(values.numpy())
        np.testing.assert_allclose(images.permute(0, 2, 3, 1), expected, atol=1e-3)
        back = geometry.layout.read(expected)
        if readout == "laplacian":
            back = geometry.solve.read(expected)
        np.testing.assert_allclose(maps.to_vertices(images), back, atol=1e-3)


def test_the_gradient_of_the_laplacian_readout(gestures: MeshDataset) -> None:
    maps = ImageMaps(ImageGeometry.of(gestures.template, GanConfig(resolution=16)), "laplacian")
    image = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    toward = torch.randn(1, gestures.template.n_vertices, 3, dtype=torch.float64)
    (maps.to_vertices(image) * toward).sum().backward()
    step = torch.randn_like(image)
    with torch.no_grad():
        expected = (maps.to_vertices(image + step) - maps.to_vertices(image)).mul(toward).sum()
    assert image.grad is not None
    assert float((image.grad * step).sum()) == pytest.approx(float(expected), rel=1e-9)


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0, 3.0], [2.0, 1.0, 0.0]]]])
    # Down: 2 + 0 + 3; right: 1 + 2 and 1 + 1.
    assert total_variation(image).tolist() == [10.0]


@pytest.mark.parametrize("scale", ["maximum", "deviation"])
def test_the_unit_of_the_images(gestures: MeshDataset, scale: str) -> None:
    model = made(gestures, scale=scale, linear=False)
    images = model.image_of(torch.from_numpy(gestures.vertices[:]))
    inside = images[:, :, model.maps.mask]
    if scale == "maximum":
        assert float(images.abs().max()) == pytest.approx(1.0, abs=1e-5)
    else:
        assert float(inside.square().mean().sqrt()) == pytest.approx(0.5, abs=1e-4)
    assert (images[:, :, ~model.maps.mask] == 0).all()
    code = model.prior.sample(2, torch.Generator().manual_seed(0))
    assert (model.image(code)[:, :, ~model.maps.mask] == 0).all()


def test_eight_bit_images_have_256_levels(gestures: MeshDataset) -> None:
    vertices = torch.from_numpy(gestures.vertices[:4])
    plain = made(gestures, "paper").image_of(vertices)
    rounded = made(gestures, "paper", eight_bit=True).image_of(vertices)
    assert 0 < float((plain - rounded).abs().max()) <= 1 / 255 + 1e-6
    assert len(rounded.unique()) <= 256 + 1


# Codes


def test_rounds_alternate_between_the_factors(gestures: MeshDataset) -> None:
    """Two critic steps' codes and a generator step's belong to one round; then the factors change
    roles. The labelled factor differs within a pair, the other is shared.
    """
    model = made(gestures, critic_steps=2)
    identity, expression = model.parts["identity"], model.parts["expression"]
    for step, labelled, shared in (
        (0, "identity", expression),
        (2, "identity", expression),
        (3, "expression", identity),
        (5, "expression", identity),
        (6, "identity", expression),
    ):
        codes, labels = model.draw_codes(8, progress(step))
        assert list(labels) == [labelled]
        assert torch.equal(codes[0::2, shared], codes[1::2, shared])
        assert (labels[labelled][0::2] != labels[labelled][1::2]).all()
        own = model.class_codes[labelled].codes[labels[labelled]]
        assert torch.equal(codes[:, model.parts[labelled]], own)
        noise = codes[:, model.parts["noise"]]
        assert (noise[0::2] != noise[1::2]).any()


def test_without_alternation_both_factors_have_labels(gestures: MeshDataset) -> None:
    model = made(gestures, alternate=False)
    for step in (0, 2):
        _, labels = model.draw_codes(8, progress(step))
        assert list(labels) == ["identity", "expression"]
    terms = model.generator_loss(batch(gestures), progress(1))
    assert {"identity", "expression"} <= terms.keys()
    assert not any(name.endswith("_features") for name in terms)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_has_pairs(gestures: MeshDataset, count: int) -> None:
    model = made(gestures)
    whole = batch(gestures)
    some = Batch(
        whole.vertices[:count], None, {name: own[:count] for name, own in whole.labels.items()}
    )
    codes, _ = model.draw_codes(count, progress(0))
    assert len(codes) == max(2, count // 2 * 2)
    for loss in (model.critic_loss, model.generator_loss):
        assert all(torch.isfinite(term) for term in loss(some, progress(0)).values())


def test_random_codes_of_classes_are_standard_normal_and_fixed(gestures: MeshDataset) -> None:
    model = made(gestures, linear=False, sizes=(2000, 3))
    codes = model.class_codes["identity"].codes
    assert codes.shape == (8, 2000)
    assert float(codes.std()) == pytest.approx(1.0, abs=0.03)
    before = codes.clone()
    learner = learner_for(model, TRAIN, HERE)
    for step in range(4):
        learner.step(batch(gestures), progress(step))
    assert torch.equal(before, model.class_codes["identity"].codes)


def test_a_linear_part_makes_the_mean_of_each_class(gestures: MeshDataset) -> None:
    """With as many components as classes allow, the linear part alone gives the mean shape of every
    subject, and its spread is that of the training meshes.
    """
    model = made(gestures, sizes=(7, 10), noise=0)
    shapes = torch.from_numpy(gestures.vertices[:])
    subjects = torch.from_numpy(gestures.labels.classes("subject").numbers)
    means = torch.stack([shapes[subjects == number].mean(0) for number in range(8)])
    code = torch.zeros(8, 17)
    code[:, model.parts["identity"]] = model.class_codes["identity"].codes
    assert model.linear is not None
    image = (code @ model.linear).view(8, 3, 16, 16)
    torch.testing.assert_close(image, model.image_of(means), atol=2e-3, rtol=0)
    spread = model.class_codes["identity"].codes.square().sum(0) / 7
    torch.testing.assert_close(spread, torch.ones(7), atol=1e-3, rtol=0)


def test_three_factors_need_no_new_code(gestures: MeshDataset) -> None:
    """A third label: whether a hand is the left or the right of the set."""
    side = np.array(["left", "right"])[np.arange(24) // 2 % 2]
    labels = dataclasses.replace(gestures.labels, columns={**gestures.labels.columns, "side": side})
    data = dataclasses.replace(gestures, labels=labels)
    settings = {"factors": ("identity", "expression", "side"), "sizes": (4, 3, 2)}
    model = made(data, **settings)
    assert tuple(model.parts) == ("identity", "expression", "side", "noise")
    training = TrainingData.of(data, model.labels_used)
    vertices = torch.from_numpy(np.asarray(training.vertices[:]))
    columns = {name: torch.from_numpy(column) for name, column in training.labels.items()}
    whole = Batch(vertices, None, columns)
    labelled = [list(model.draw_codes(4, progress(step))[1]) for step in (0, 2, 4, 6)]
    assert labelled == [["identity"], ["expression"], ["side"], ["identity"]]
    terms = model.generator_loss(whole, progress(5))
    assert {"side", "identity_features", "expression_features"} <= terms.keys()
    learner = learner_for(model, TRAIN, HERE)
    for step in range(6):
        assert all(np.isfinite(list(learner.step(whole, progress(step)).values())))
    assert model.sample(2, torch.Generator().manual_seed(0)).shape == (2, 1609, 3)


# Losses


@pytest.mark.parametrize("penalty", ["interpolated", "real"])
def test_the_penalty_is_that_of_each_image_alone(gestures: MeshDataset, penalty: str) -> None:
    model = made(gestures, penalty=penalty)
    real = model.image_of(torch.from_numpy(gestures.vertices[:4]))
    fake = model.image(model.prior.sample(4, torch.Generator().manual_seed(0))).detach()
    together = model.penalty(real, fake, torch.Generator().manual_seed(1))
    share = torch.rand(4, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    for n in range(4):
        point = (share[n] * real[n] + (1 - share[n]) * fake[n]) if penalty != "real" else real[n]
        gradient = torch.func.grad(lambda image: model.critic.score(image[None])[0])(point)
        norm = gradient.norm()
        expected = norm**2 / 2 if penalty == "real" else (norm - 1) ** 2
        torch.testing.assert_close(together[n], expected, rtol=1e-4, atol=1e-6)


def test_batch_statistics_are_refused_with_a_penalty() -> None:
    with pytest.raises(InputError, match="batch statistics join the images of a batch"):
        GanConfig(normalization="batch")
    GanConfig(normalization="batch", penalty_weight=0.0)


def test_a_lazy_penalty_has_its_turn_and_its_weight(gestures: MeshDataset) -> None:
    model = made(gestures, penalty_every=3, critic_steps=2, penalty_weight=1.0)
    present = [
        "penalty" in model.critic_loss(batch(gestures), progress(step))
        for step in range(12)
        if step % 3 < 2
    ]
    assert present == [True, False, False, True, False, False, True, False]
    every = made(gestures, penalty_every=1, penalty_weight=3.0)
    lazy, eager = (
        one.critic_loss(batch(gestures), progress(0))["penalty"] for one in (model, every)
    )
    torch.testing.assert_close(lazy, eager)


def test_missing_labels_are_left_out_mesh_by_mesh(gestures: MeshDataset) -> None:
    """The loss of a batch with missing labels is that of the meshes that have one, and its
    classes are weighted by how rare they are.
    """
    model = made(gestures)
    whole = batch(gestures)
    numbers = whole.labels["expression"].clone()
    numbers[5:] = -1
    some = dataclasses.replace(whole, labels=whole.labels | {"expression": numbers})
    found = model.critic_loss(some, progress(0))["expression"]
    images = model.image_of(whole.vertices[:5])
    answers = model.critic.factors["expression"](model.critic.trunk(images))[1]
    expected = 0.5 * F.cross_entropy(answers, numbers[:5])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)

    none = dataclasses.replace(
        whole, labels=whole.labels | {"expression": torch.full_like(numbers, -1)}
    )
    assert model.critic_loss(none, progress(0))["expression"].item() == 0


def test_classes_are_weighted_by_how_rare_they_are(gestures: MeshDataset) -> None:
    rows = np.flatnonzero(gestures.labels["expression"] != "grasp")
    rows = np.concatenate([rows, np.flatnonzero(gestures.labels["expression"] == "grasp")[:2]])
    model = made(gestures.select(rows))
    # 8 neutral, 2 grasping, 8 pointing: N / (C n).
    weights = model.class_codes["expression"].weights
    order = gestures.labels.classes("expression").names
    expected = {"neutral": 18 / 24, "grasp": 18 / 6, "point": 18 / 24}
    torch.testing.assert_close(weights, torch.tensor([expected[name] for name in order]))


def test_sparse_labels_come_in_a_batch_of_their_own(gestures: MeshDataset) -> None:
    model = made(gestures)
    whole = batch(gestures)
    drawn = Batch(whole.vertices[:6], None, {name: own[:6] for name, own in whole.labels.items()})
    missing = whole.labels | {"expression": torch.full_like(whole.labels["expression"], -1)}
    both = Batch(whole.vertices, None, missing, {"expression": drawn})
    found = model.critic_loss(both, progress(0))
    alone = model.critic_loss(drawn, progress(0))
    torch.testing.assert_close(found["expression"], alone["expression"], rtol=1e-4, atol=1e-6)


def test_features_of_a_pair_that_looks_alike_cost_nothing(gestures: MeshDataset) -> None:
    """If the generator ignored all but the shared code, a pair would be the same image."""
    model = made(gestures)
    shared = model.parts["expression"]

    def only_shared(code: Tensor, generator: Any) -> Tensor:
        return code[:, shared].sum(1)[:, None, None, None].expand(-1, 3, 16, 16)

    model.draw_image = only_shared  # type: ignore[method-assign]
    terms = model.generator_loss(batch(gestures), progress(1))
    assert terms["expression_features"].item() == pytest.approx(0.0, abs=1e-6)


def test_each_player_trains_its_own_parameters(gestures: MeshDataset) -> None:
    model = made(gestures)
    for loss, own, step in (
        (model.critic_loss, model.critic_parameters, 0),
        (model.generator_loss, model.generator_parameters, 1),
    ):
        for turn in (step, step + 2):
            model.zero_grad()
            torch.stack(list(loss(batch(gestures), progress(turn)).values())).sum().backward()
            without = [parameter for parameter in own() if parameter.grad is None]
            assert not without


def test_the_average_follows_the_generator(gestures: MeshDataset) -> None:
    model = made(gestures, average=0.9)
    assert model.average is not None
    assert not any(parameter.requires_grad for parameter in model.average.parameters())
    learner = learner_for(model, TRAIN, HERE)
    average = {name: own.clone() for name, own in model.average.named_parameters()}
    for step in range(6):
        learner.step(batch(gestures), progress(step))
        if step % 2:
            kept = min(0.9, 1 - 1 / (step // 2 / 10 + 1))
            for name, own in model.generator.named_parameters():
                average[name] = kept * average[name] + (1 - kept) * own.detach()
    for name, own in model.average.named_parameters():
        torch.testing.assert_close(own, average[name])
    code = model.prior.sample(1, torch.Generator().manual_seed(0))
    assert not torch.equal(model.image(code), model.draw_image(code, model.generator))


def test_neutral_is_the_code_of_the_neutral_class(gestures: MeshDataset) -> None:
    model = made(gestures).eval()
    code = model.prior.sample(2, torch.Generator().manual_seed(0))
    expected = torch.zeros_like(code)
    expected[:, model.parts["identity"]] = code[:, model.parts["identity"]]
    expected[:, model.parts["expression"]] = model.class_code("expression", "neutral")
    torch.testing.assert_close(model.neutral(code), model.decode(expected))
    with pytest.raises(InputError, match="expression 'sad': the model's classes are grasp"):
        model.class_code("expression", "sad")


# Options and bad input


@pytest.mark.parametrize(
    "settings",
    [
        {"alternate": False},
        {"variation_weight": 0.0},
        {"feature_weight": 0.0},
        {"classified": ("identity",)},
        {"adversary": "wasserstein", "penalty": "interpolated"},
        {"critic": "wide"},
        {"generator": "upsampled", "width": 1},
        {"readout": "laplacian"},
        {"noise": 0},
    ],
)
def test_options_train(gestures: MeshDataset, settings: dict[str, Any]) -> None:
    model = made(gestures, **settings)
    learner = learner_for(model, TRAIN, HERE)
    for step in range(4):
        assert all(np.isfinite(list(learner.step(batch(gestures), progress(step)).values())))
    assert torch.isfinite(model.sample(1, torch.Generator().manual_seed(0))).all()


def test_a_factor_that_is_not_classified_keeps_its_code_and_features(
    gestures: MeshDataset,
) -> None:
    model = made(gestures, classified=("identity",))
    assert list(model.class_codes) == ["identity"]
    terms = model.generator_loss(batch(gestures), progress(1))
    assert {"identity", "expression_features"} <= terms.keys()
    terms = model.generator_loss(batch(gestures), progress(3))
    assert "expression" not in terms
    assert "identity_features" in terms


def classes(**found: list[str]) -> dict[str, list[str]]:
    return found


def test_factors_without_labels() -> None:
    people = ["a", "b"]
    with pytest.warns(UserWarning, match="'expression' has no classifier.* no label in the column"):
        found = Gan.config_for(GanConfig(), classes(subject=people), 9)
    assert found.classes == ("identity/a", "identity/b")
    with pytest.warns(UserWarning, match="have one class, 'smile' in the column 'expression'"):
        Gan.config_for(GanConfig(), classes(subject=people, expression=["smile"]), 9)
    with (
        pytest.warns(UserWarning),
        pytest.raises(InputError, match="gan needs at least two classes of one factor"),
    ):
        Gan.config_for(GanConfig(), classes(subject=["a"]), 9)
    with pytest.raises(InputError, match="'expression' needs at least two classes, but"):
        Gan.config_for(GanConfig(classified=("expression",)), classes(subject=people), 9)
    with pytest.raises(InputError, match=r"labels\.csv has no column .age."):
        config = GanConfig(factors=("identity", "age"))
        Gan.config_for(config, classes(subject=people), 9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 0}, "model.resolution: expected 1 to 1,000,000, got 0"),
        ({"resolution": 40}, "model.resolution: expected a multiple of 16 up to 512, got 40"),
        ({"resolution": 16_000}, "expected a multiple of 16 up to 512, got 16000"),
        ({"factors": ("identity", "noise")}, "expected different names other than 'noise'"),
        ({"sizes": (4,)}, "a size of at least 1 for each of identity, expression"),
        ({"classified": ("age",)}, "model.classified: the factors are identity, expression"),
        ({"width": 2}, "model.width: the generator 'transposed' has one width only"),
        ({"average": 1.0}, "model.average: expected a share below 1"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GanConfig(**settings)


# Runs


def sparse(data: MeshDataset) -> SplitDataset:
    """The training split, with a name of the expression on one mesh in three only."""
    names = np.where(np.arange(len(data)) % 5 < 2, data.labels["expression"], "")
    labels = dataclasses.replace(data.labels, columns={**data.labels.columns, "expression": names})
    return dataclasses.replace(data, labels=labels).split("frames")


def run_config(**settings: Any) -> RunConfig:
    recipe = MODELS["gan"].fast
    assert recipe.train is not None
    small = recipe.with_model(**SMALL, critic_steps=3, **settings)
    train = recipe.train.with_overrides(
        {"epochs": 2, "batch_size": 4, "checkpoint_seconds": 0.0}, "train"
    )
    return RunConfig("gan", small.model, train)


@pytest.fixture(scope="module")
def whole_run(gestures: MeshDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gan") / "whole"
    run(run_config(), sparse(gestures), out, HERE)
    return out


@pytest.mark.parametrize("at", [1, 2, 3, 4, 6])
def test_a_run_killed_between_critic_steps_resumes_bit_for_bit(
    gestures: MeshDataset, whole_run: Path, tmp_path: Path, at: int
) -> None:
    """Weights, running average, both optimizers, random states and the order of sparse labels."""

    class Killed(Exception):
        pass

    def kill(event: TrainingEvent) -> None:
        if event.step == at + 1:  # the checkpoint of step `at` is the last one written
            raise Killed

    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(run_config(), sparse(gestures), out, HERE, listener=kill)
    run(run_config(), sparse(gestures), out, HERE, resume=True)
    states = [read_checkpoint(path / "checkpoint" / "last.pt") for path in (whole_run, out)]
    for key in ("model", "learner", "generators", "step"):
        assert_equal(states[0][key], states[1][key])
    assert_equal(load(whole_run).state_dict(), load(out).state_dict())


def test_a_batch_comes_with_meshes_that_have_a_sparse_label(gestures: MeshDataset) -> None:
    data = sparse(gestures)
    training = TrainingData.of(data.train, ("subject", "expression"))
    batches = Batches(training, 4, 0, torch.device("cpu"), drawn=("subject", "expression"))
    seen = list(batches.batches(0))
    assert all(set(one.labelled) == {"expression"} for one in seen)
    assert all((one.labelled["expression"].labels["expression"] >= 0).all() for one in seen)
    assert all(len(one.labelled["expression"].vertices) == 4 for one in seen)
    rows = [np.concatenate(batches.labelled_rows(epoch, "expression")) for epoch in (0, 0, 1)]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    counts = np.unique(rows[0], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1
    # Two processes take turns with the same meshes.
    halves = [
        Batches(training, 4, 0, torch.device("cpu"), rank, 2, ("expression",)) for rank in (0, 1)
    ]
    for own, (left, right) in enumerate(
        zip(*(half.labelled_rows(0, "expression") for half in halves), strict=True)
    ):
        merged = np.concatenate([left, right])
        assert np.array_equal(np.sort(merged), np.sort(batches.labelled_rows(0, "expression")[own]))


def test_a_trained_model_is_kept_with_its_average(whole_run: Path) -> None:
    model = load(whole_run)
    assert isinstance(model, Gan)
    assert model.provenance["kept_epoch"] == 2
    assert torch.equal(model.prior.factor, torch.eye(10))
    assert model.average is not None


def test_the_command_line(
    gestures: MeshDataset, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interpolation, swap and transfer work as for every family; wrong settings are one sentence."""
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.ply")
        write_mesh(files[-1], gestures.template.mesh.moved(gestures.vertices[[number]][0]))
    edit = ("edit",)
    for words in (
        ("swap", whole_run, *files[:2], "--part", "expression", "--out", tmp_path / "s.ply"),
        ("transfer", whole_run, *files, "--part", "expression", "--out", tmp_path / "t.ply"),
        ("interpolate", whole_run, *files[:2], "--part", "identity", "--steps", 3,
         "--out", tmp_path / "between"),
    ):  # fmt: skip
        ended = in_process(capsys, *edit, *words)
        assert ended.code == 0, ended.err

    train = ("train", "gan", "--data", gestures.path, "--out", tmp_path / "run")
    for setting, *found in (
        ("model.resolution=0", "model.resolution: expected 1 to 1,000,000, got 0"),
        ("model.resolution=65536", "model.resolution: expected a multiple of 16 up to 512"),
        ("model.factors=identity,age", "the factor 'age'", "no column 'age'"),
        ("model.normalization=batch", "model.normalization: batch statistics"),
    ):
        in_process(capsys, *train, "--set", setting).refuses(*found)
