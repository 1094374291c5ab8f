"""LAMM: published counts, the laws of its states, handles that change nothing when they rest,
stages that resume.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.evaluate.directions import principal_directions
from morphable.mesh.automatic_regions import automatic_regions
from morphable.mesh.regions import Regions, spread_controls
from morphable.mesh.template import Template
from morphable.models.families import MODELS, create
from morphable.models.handles import OWN_SHARE, Handles, aligned_displacement
from morphable.models.io import load, save
from morphable.models.lamm import AUTOENCODE, MANIPULATE, Lamm, LammConfig
from morphable.models.lamm_factor import factor
from morphable.models.prior import CodePrior
from morphable.models.recipes import LAMM
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.ops.tokens import ControlNets, InverseTokenizer, Tokenizer
from morphable.train.distributed import Workers
from morphable.train.loop import Interrupted
from morphable.train.run import RunConfig, run

SMALL = LammConfig(
    latent=8, width=24, heads=1, encoder_depth=2, decoder_depth=2, normalization="global"
)
PUBLISHED_CONTROLS = (11, 11, 0, 16, 0, 0, 3, 3, 12, 8, 15)
"""Control vertices of UHM12k's regions 0..10."""


def numbers(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def uhm_sized() -> Template:
    """A surface with as many vertices, regions and control vertices as the paper's heads."""
    template = ball_template(11_916)
    labels = automatic_regions(template.mesh, 11).labels
    controls = spread_controls(template.mesh, labels, 16)
    chosen = tuple(found[:count] for found, count in zip(controls, PUBLISHED_CONTROLS, strict=True))
    return replace(template, regions=Regions(labels, tuple("abcdefghijk"), chosen))


def made(template: Template, config: LammConfig, **changes: object) -> Lamm:
    torch.manual_seed(0)
    model = create("lamm", template, replace(config, **changes))  # type: ignore[arg-type]
    assert isinstance(model, Lamm)
    return model.eval()


@pytest.fixture(scope="module")
def small(hands: MeshDataset) -> Lamm:
    """A model that has seen hands but learned nothing."""
    model = made(hands.template, SMALL)
    model.initialize(hands.vertices[:])
    return model


@pytest.fixture(scope="module")
def shapes(hands: MeshDataset) -> torch.Tensor:
    return torch.from_numpy(hands.vertices[np.arange(0, 60, 10)])


def shown(
    model: Lamm, vertices: torch.Tensor, displacement: torch.Tensor | None = None
) -> torch.Tensor:
    """(S, B, V, 3) mm: what every state of encoder and decoder shows, the prediction last."""
    network, given = model.network, {} if displacement is None else {"controls": displacement}
    encoder = network.encoder_states(network.sort(model.normalization(vertices)))
    decoder = model.decoder_states(model.encode(vertices, given))
    x = network.unsort(network.coordinates(torch.stack(encoder + decoder)))
    return model.normalization.inverse(x)


def test_published_counts(uhm_sized: Template) -> None:
    transformer, mixer = made(uhm_sized, LAMM.model), made(uhm_sized, LAMM.model, backbone="mixer")
    assert [numbers(m) for m in (transformer.network.decoder, mixer.network.decoder)] == [
        9_453_568,
        799_540,
    ]
    assert [numbers(m) for m in (transformer.network.encoder, mixer.network.encoder)] == [
        15_755_264,
        1_331_884,
    ]
    assert numbers(transformer.network.to_code) + numbers(transformer.network.from_code) == 262_912
    tokens = (
        transformer.network.id_token,
        transformer.network.region_embedding,
        transformer.network.learned_tokens,
    )
    assert sum(token.numel() for token in tokens) == 11_776
    assert len(transformer.controls) == 79
    assert numbers(transformer.network.control_nets) == 1_194_816
    assert numbers(transformer.network.inverse_tokenizer) == 3 * 11_916 * 513
    assert numbers(transformer.network.tokenizer) == 3 * 11_916 * 512 + 11 * 512


def test_there_are_ten_outputs_and_the_last_is_the_prediction(uhm_sized: Template) -> None:
    model = made(uhm_sized, LAMM.model, width=8, heads=1)
    shape = torch.tensor(uhm_sized.mesh.vertices).float()[None]
    outputs = shown(model, shape)
    assert outputs.shape == (10, 1, 11_916, 3)
    torch.testing.assert_close(outputs[-1], model(shape))


@pytest.mark.parametrize("backbone", ["transformer", "mixer"])
@pytest.mark.parametrize("bottleneck", [True, False])
def test_no_displacement_is_the_autoencoder_bit_for_bit(
    hands: MeshDataset, shapes: torch.Tensor, backbone: str, bottleneck: bool
) -> None:
    model = made(hands.template, SMALL, backbone=backbone, bottleneck=bottleneck)
    code = model.encode(shapes)
    edited = model.decode(code)
    model.network.control_nets.forward = lambda displacement: torch.zeros(1)  # type: ignore[assignment, method-assign]
    assert torch.equal(model.decode(code), edited)


def test_changing_a_token_changes_only_its_region_at_the_decoder_input(
    small: Lamm, shapes: torch.Tensor
) -> None:
    before = shown(small, shapes)
    input_state = small.config.encoder_depth + 1
    noisy = made(small.template, SMALL)
    noisy.load_state_dict(small.state_dict())
    for region in range(len(small.regions.names)):
        with torch.no_grad():
            noisy.network.learned_tokens.copy_(small.network.learned_tokens)
            noisy.network.learned_tokens[region] += torch.randn(SMALL.width)
        moved = (shown(noisy, shapes)[input_state] != before[input_state]).any(-1).any(0)
        assert np.array_equal(moved.numpy(), small.regions.labels == region)


def test_displacing_a_region_changes_only_its_token(small: Lamm) -> None:
    start = 0
    for region, controls in enumerate(small.regions.controls):
        displacement = torch.zeros(1, 3 * len(small.controls))
        displacement[:, start : start + 3 * len(controls)] = 1.0
        start += 3 * len(controls)
        changed = small.network.control_nets(displacement)[0].abs().sum(1) > 0
        assert changed.nonzero().ravel().tolist() == [region]


def test_regions_reproduce_every_vertex_once(small: Lamm, shapes: torch.Tensor) -> None:
    """With random weights: what the loop over regions says, vertex by vertex."""
    code = small.encode(shapes)
    last = small.decoder_states(code)[-1]
    x = torch.full_like(shapes, torch.nan)
    start = 0
    for region in range(len(small.regions.names)):
        members = np.flatnonzero(small.regions.labels == region)
        rows = slice(start, start + 3 * len(members))
        layer = small.network.inverse_tokenizer
        x[:, members] = (last[:, 1 + region] @ layer.weight[rows].T + layer.bias[rows]).unflatten(
            1, (-1, 3)
        )
        start = rows.stop
    expected = small.normalization.inverse(x)
    torch.testing.assert_close(small.decode(code), expected, rtol=1e-5, atol=1e-3)
    for region in range(len(small.regions.names)):
        members = small.regions.labels == region
        torch.testing.assert_close(
            small.decode_region(code, region), expected[:, members], rtol=1e-5, atol=1e-3
        )


def test_the_order_of_vertices_does_not_matter(hands: MeshDataset, shapes: torch.Tensor) -> None:
    """The tokenizer on shuffled vertices with shuffled weights sees the same."""
    layer = Tokenizer([2, 3], 4)
    x = torch.randn(5, 15)
    swap = torch.tensor([0, 1, 2, 3, 4, 5, 12, 13, 14, 9, 10, 11, 6, 7, 8])
    before = layer(x)
    with torch.no_grad():
        layer.weight.copy_(layer.weight[swap])
    torch.testing.assert_close(layer(x[:, swap]), before)


def test_tokens_by_hand() -> None:
    layer = Tokenizer([1, 1], 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1], [2, 0], [0, 2], [2, 2]]))
        layer.bias.copy_(torch.tensor([[0.0, 0], [10, 20]]))
    tokens = layer(torch.tensor([[1.0, 2, 3, 1, 1, 1]]))
    assert tokens.tolist() == [[[4.0, 5.0], [14.0, 24.0]]]


@pytest.mark.parametrize("batch", [1, 3])
def test_inverse_tokenizer_alone_in_a_batch_and_factored(batch: int) -> None:
    torch.manual_seed(0)
    full, thin = InverseTokenizer([4, 2, 7], 6), InverseTokenizer([4, 2, 7], 6, 2)
    assert thin.inner is not None
    with torch.no_grad():
        rows = torch.tensor([12, 6, 21])
        owner = torch.arange(3).repeat_interleave(rows)
        full.weight.copy_(torch.einsum("nk,ndk->nd", thin.weight, thin.inner[owner]))
        full.bias.copy_(thin.bias)
    tokens = torch.randn(batch, 3, 6)
    torch.testing.assert_close(full(tokens), thin(tokens))
    torch.testing.assert_close(full(tokens)[:, 12:18], full.one(tokens[:, 1], 1))
    torch.testing.assert_close(thin(tokens)[:, 12:18], thin.one(tokens[:, 1], 1))
    torch.testing.assert_close(full(torch.stack([tokens, tokens]))[1], full(tokens))


def test_control_nets_skip_regions_without_controls() -> None:
    net = ControlNets([2, 0, 1], 5)
    changed = net(torch.randn(4, 9))
    assert changed.shape == (4, 3, 5)
    assert (changed[:, 1] == 0).all() and (changed[:, [0, 2]] != 0).all()


def progress(epoch: int = 0, stage: str = AUTOENCODE, seed: int = 0) -> Progress:
    return Progress(epoch, 150, 0, 1, torch.Generator().manual_seed(seed), stage)


def test_the_loss_by_its_definition(small: Lamm, shapes: torch.Tensor) -> None:
    """Encoder states walk from the shape to the mean, decoder states from the mean to the shape."""
    normal = small.normalization
    truth, outputs = normal(shapes), normal(shown(small, shapes))
    shares = [1, 0.5, 0, 0, 0.5, 1]
    errors = [(x - share * truth).abs().mean() for x, share in zip(outputs, shares, strict=True)]
    terms = small.loss(Batch(shapes), progress())
    torch.testing.assert_close(
        terms["encoder"] + terms["decoder"], torch.stack(errors).mean(), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        terms["encoder"] * 2, torch.stack(errors[:3]).mean(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("layers", "states"),
    [("output", [5]), ("encoder", [0, 1, 2, 5]), ("decoder", [3, 4, 5]), ("full", range(6))],
)
def test_the_losses_of_the_ablation(
    small: Lamm, shapes: torch.Tensor, layers: str, states: list[int]
) -> None:
    model = made(small.template, SMALL, layers=layers)
    model.load_state_dict(small.state_dict())
    normal = model.normalization
    truth, outputs = normal(shapes), normal(shown(model, shapes))
    shares = [1.0] * 6 if layers == "full" else [1, 0.5, 0, 0, 0.5, 1]
    expected = torch.stack([(outputs[i] - shares[i] * truth).abs().mean() for i in states]).mean()
    total = torch.stack(list(model.loss(Batch(shapes), progress()).values())).sum()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)


def test_the_manipulation_loss_by_its_definition(hands: MeshDataset, shapes: torch.Tensor) -> None:
    """Rolled pairs, one share of the way each, all regions displaced, the decoder's edited input
    not judged.
    """
    model = made(hands.template, SMALL)
    model.initialize(hands.vertices[:])
    normal, count = model.normalization, len(shapes)
    share = 0.25 + 0.75 * 0.5 * torch.rand(count, generator=torch.Generator().manual_seed(7))
    goal = shapes + share[:, None, None] * (shapes.roll(1, 0) - shapes)
    controls = torch.from_numpy(np.concatenate(model.regions.controls))
    moved = (goal - shapes)[:, controls].flatten(1)
    still = normal(shown(model, shapes)).detach()
    edited = normal(shown(model, shapes, moved)).detach()
    total, judged = 0.0, 0
    for index, share_of_shape in enumerate([1, 0.5, 0, 0, 0.5, 1]):
        aim = shapes if index < 3 else goal
        total += float((still[index] - share_of_shape * normal(shapes)).abs().sum())
        judged += normal(shapes).numel()
        if index != 3:
            total += float((edited[index] - share_of_shape * normal(aim)).abs().sum())
            judged += normal(shapes).numel()
    # Epoch 5 of 150 at a ramp over the first fifteenth: half the way.
    terms = model.loss(Batch(shapes), progress(5, MANIPULATE, seed=7))
    assert float((terms["encoder"] + terms["decoder"]).detach()) == pytest.approx(
        total / judged, rel=1e-4
    )
    assert model.edits_trained and not made(hands.template, SMALL).edits_trained


def test_the_share_of_the_way_grows_and_stays(small: Lamm) -> None:
    reach = [small._ramp(progress(epoch)) for epoch in (0, 5, 10, 100)]
    assert reach == pytest.approx([0, 0.5, 1, 1])


def test_without_a_bottleneck_the_code_is_the_tokens_and_cannot_be_sampled(
    hands: MeshDataset, shapes: torch.Tensor, tmp_path: Path
) -> None:
    model = made(hands.template, SMALL, bottleneck=False)
    assert list(model.parts) == ["tokens", "controls"]
    assert model.parts.free_size == 6 * SMALL.width
    with pytest.raises(InputError, match="its code is the region tokens"):
        model.sample(1, torch.Generator())
    assert model.prior is None
    assert len(principal_directions(model)) == 0
    save(model, tmp_path / "m")
    assert torch.equal(load(tmp_path / "m")(shapes), model(shapes))


def test_a_template_without_regions_gets_automatic_ones(tmp_path: Path) -> None:
    model = made(ball_template(320), SMALL)
    assert len(model.regions.names) == 11
    assert len(made(ball_template(320), SMALL, regions=4).regions.names) == 4
    save(model, tmp_path / "m")
    assert load(tmp_path / "m").regions.names == model.regions.names


def test_controls_are_millimeters_in_region_order(small: Lamm, shapes: torch.Tensor) -> None:
    """The second region's first handle is the first number after the first region's handles."""
    code = small.encode(
        shapes,
        {"controls": torch.zeros(small.parts["controls"].stop - small.parts["controls"].start)},
    )
    first = len(small.regions.controls[0])
    code[:, small.parts["controls"].start + 3 * first] = 2.0
    scale = float(small.normalization.std)
    change = small.network.control_nets(code[:1, small.parts["controls"]] / scale)[0]
    unit = torch.zeros(1, 3 * len(small.controls))
    unit[0, 3 * first] = 2.0 / scale
    assert torch.equal(change, small.network.control_nets(unit)[0])
    assert (change.abs().sum(1) > 0).nonzero().ravel().tolist() == [1]
    assert small.controls[first] == small.regions.controls[1][0]


def test_factoring_at_nearly_full_rank_costs_nearly_nothing(
    small: Lamm, shapes: torch.Tensor
) -> None:
    """Six shapes span at most six directions a region, so rank 8 holds them; the cost falls with
    the rank.
    """
    before = small(shapes).detach()
    results = [factor(small, rank, shapes)(shapes).detach() for rank in (1, 3, 8, 23)]
    cost = [float((result - before).norm(dim=-1).mean()) for result in results]
    assert cost[2] < 1e-2 and cost[3] < 1e-2
    assert all(a >= b - 1e-3 for a, b in itertools.pairwise(cost))
    thin = factor(small, 8, shapes)
    assert numbers(thin.network.inverse_tokenizer) < numbers(small.network.inverse_tokenizer)
    with pytest.raises(InputError, match=r"rank: expected 1\.\.23"):
        factor(small, 24, shapes)
    with pytest.raises(InputError, match="not factored"):
        factor(thin, 2, shapes)


def test_alignment_takes_an_affine_map_away(rng: np.random.Generator) -> None:
    """A target that is an affine image of the source needs no displacement, whatever the map."""
    source = rng.normal(size=(1, 60, 3))
    matrix = np.eye(3) + 0.1 * rng.normal(size=(3, 3))
    border, points = np.arange(40), np.arange(40, 60)
    moved, _ = aligned_displacement(source, source @ matrix + 5, border, points)
    plain = np.abs(source @ matrix + 5 - source).mean()
    assert np.abs(moved).mean() < 0.02 * plain
    bump = source.copy()
    bump[:, points[0], 0] += 1.0
    moved, stretch = aligned_displacement(source, bump, border, points)
    assert moved[0, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert stretch.ravel().tolist() == pytest.approx([1, 1, 1])


def test_handles_follow_what_training_meshes_do(small: Lamm) -> None:
    controls = small.regions.controls[1]
    drawn = small.handles.sample(1, 500, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, len(controls), 3)
    one = drawn[0, 0].numpy()
    full = small.handles.complete(1, {int(controls[0]): one})
    assert full[0].tolist() == pytest.approx(one.tolist(), abs=0.2)
    assert full[1:].abs().sum() > 0
    assert small.handles.complete(1, {}).abs().max() == 0


def test_a_handle_that_hardly_ever_moves_does_not_swing_the_others() -> None:
    """Two handles that move along one line, the second a hundred times as far: the first by 1 mm
    would move the second by 100 mm, if nothing that moves it were its own.
    """
    ball = ball_template(60)
    labels = np.zeros(60, np.int64)
    regions = Regions(labels, ("all",), (np.array([3, 7]),))
    handles = Handles(regions, ball.mesh.faces)
    line = np.linspace(-1, 1, 50)
    moves = np.zeros((50, 6))
    moves[:, 0], moves[:, 3] = line, 100 * line
    prior = handles.priors[0]
    assert isinstance(prior, CodePrior)
    prior.fit(torch.from_numpy(moves))
    small, large = moves.var(0, ddof=1)[[0, 3]]
    own = OWN_SHARE**2 * (small + large) / 6
    followed = handles.complete(0, {3: np.array([1.0, 0, 0])})
    assert followed[0].tolist() == [1, 0, 0]
    assert followed[1].tolist() == pytest.approx([100 * small / (small + own), 0, 0], rel=1e-4)
    assert followed[1, 0] < 5
    # One that moves as far as the region does takes the others along.
    assert handles.complete(0, {7: np.array([100.0, 0, 0])})[0, 0] == pytest.approx(1, abs=0.06)


def test_swapping_a_region_with_itself_moves_nothing(small: Lamm, hands: MeshDataset) -> None:
    shape = hands.vertices[3]
    assert small.handles.swap(2, shape, shape).abs().max() < 1e-4


def test_a_factored_network_starts_with_the_leading_components(hands: MeshDataset) -> None:
    """At rank 5 the inverse tokenizer is the full one without the components after the fifth."""
    full, thin = (made(hands.template, SMALL, start="pca", rank=rank) for rank in (0, 5))
    for model in (full, thin):
        model.initialize(hands.vertices[:40])
    layer = thin.network.inverse_tokenizer
    assert layer.inner is not None
    for region in range(len(full.regions.names)):
        run = full.network.run(region)
        expected = full.network.inverse_tokenizer.weight[run].clone()
        assert expected[:, 5:].abs().max() > 0
        expected[:, 5:] = 0
        torch.testing.assert_close(layer.weight[run] @ layer.inner[region].T, expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latent", 0),
        ("width", 0),
        ("encoder_depth", 0),
        ("regions", -1),
        ("merged_from", (29,)),
        ("rank", -1),
        ("ramp", 0),
    ],
)
def test_impossible_settings(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"model.{field}: expected"):
        LammConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("merged_from", [(4,), (3,), (29, 30), (9, 9), (0,), (-1,)])
def test_regions_are_merged_from_falling_numbers(merged_from: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"merged_from: expected falling numbers above .* \(4\)"):
        LammConfig(regions=4, merged_from=merged_from)


def test_regions_of_a_model_nest_in_those_they_are_merged_from(hands: MeshDataset) -> None:
    fine = create("lamm", hands.template, SMALL, regions=9).regions
    coarse = create("lamm", hands.template, SMALL, regions=4, merged_from="9,6").regions
    assert (len(fine.names), len(coarse.names)) == (9, 4)
    assert all(len(np.unique(coarse.labels[fine.labels == r])) == 1 for r in range(9))


def test_manipulation_is_trained_as_published() -> None:
    """Batches of 16, a rate of 1e-4 and ten epochs of warm-up; the mixer autoencodes at 1e-3."""
    for family, rate in (("lamm", 1e-4), ("lamm-mixer", 1e-3)):
        train = MODELS[family].published.train
        assert train is not None
        first, second = train.for_stage(AUTOENCODE), train.for_stage(MANIPULATE)
        assert (first.batch_size, first.learning_rate) == (32, rate)
        assert (second.batch_size, second.learning_rate) == (16, 1e-4)
        assert (first.epochs * first.warmup, second.epochs * second.warmup) == (1, 10)


ONE = Workers(0, 1, torch.device("cpu"))
TRAINING = TrainConfig(
    epochs=2,
    batch_size=64,
    learning_rate=1e-3,
    stages=(AUTOENCODE, MANIPULATE),
    checkpoint_seconds=1e9,
)


CONFIGURED = RunConfig("lamm", SMALL, TRAINING)


@pytest.fixture(scope="module")
def staged(hands: MeshDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(CONFIGURED, hands.split("subject"), folder, ONE)
    return folder


def test_stages_run_in_turn(staged: Path) -> None:
    rows = [json.loads(line) for line in (staged / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == [AUTOENCODE] * 2 + [MANIPULATE] * 2
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[2]["best_mm"] == rows[2]["validation_mm"], "each stage has its own best"
    assert (staged / "checkpoint" / "kept-autoencode.pt").exists()
    model = load(staged)
    assert isinstance(model, Lamm) and model.edits_trained


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 12, 14])
def test_a_run_stopped_in_either_stage_goes_on_bit_for_bit(
    hands: MeshDataset, staged: Path, tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps an epoch, two epochs a stage: the second stage begins at step 8."""
    import os
    import signal

    taken = 0
    loss = Lamm.loss

    def counting(self: Lamm, batch: Batch, progress: Progress) -> dict[str, torch.Tensor]:
        nonlocal taken
        taken += 1
        if taken == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, batch, progress)

    monkeypatch.setattr(Lamm, "loss", counting)
    with pytest.raises(Interrupted):
        run(CONFIGURED, hands.split("subject"), tmp_path / "r", ONE)
    assert taken == steps
    run(CONFIGURED, hands.split("subject"), tmp_path / "r", ONE, resume=True)
    whole, resumed = load(staged).state_dict(), load(tmp_path / "r").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("family", "stages", "message"),
    [
        ("lamm", (MANIPULATE,), "lamm goes through autoencode or autoencode,manipulate"),
        ("lamm", (AUTOENCODE, "x"), "lamm goes through"),
        ("pca-mlp", (AUTOENCODE,), "pca-mlp is trained in one stage"),
    ],
)
def test_stages_that_there_are_not(
    hands: MeshDataset, tmp_path: Path, family: str, stages: tuple[str, ...], message: str
) -> None:
    from morphable.models.families import MODELS

    config = RunConfig(family, MODELS[family].fast.model, replace(TRAINING, stages=stages))
    with pytest.raises(InputError, match=message):
        run(config, hands.split("subject"), tmp_path / "r", ONE)
    assert not (tmp_path / "r").exists()


def test_factor_says_what_it_costs(
    staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from morphable.cli.main import main

    main(["factor", str(staged), "--rank", "4", "--out", str(tmp_path / "thin")])
    assert "mean error on" in capsys.readouterr().out
    thin = load(tmp_path / "thin")
    assert isinstance(thin, Lamm) and thin.config.rank == 4
    with pytest.raises(SystemExit) as stop:
        main(["factor", str(staged), "--rank", "99", "--out", str(tmp_path / "other")])
    assert stop.value.code == 2
