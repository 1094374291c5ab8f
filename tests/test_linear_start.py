"""Models that start as a linear model: epoch 0 is validated, kept if nothing is better, and gates
close what does not help.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import dataset
from morphable.data.dataset import MeshDataset, SplitDataset
from morphable.data.splits import Split
from morphable.errors import InputError
from morphable.models.base import TrainableModel
from morphable.models.families import MODELS, create
from morphable.models.gates import LEVELS
from morphable.models.handles import FOLLOW_ERROR
from morphable.models.io import load
from morphable.models.lamm import MANIPULATE, Lamm
from morphable.models.pca import Pca, PcaConfig
from morphable.models.pca_mlp import PcaMlp, PcaMlpConfig
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.report.chart_sections import _validation
from morphable.train.checkpoint import read_metrics
from morphable.train.distributed import Workers
from morphable.train.outcome import kept_epoch
from morphable.train.run import RunConfig, caution_for, run

HERE = Workers(0, 1, torch.device("cpu"))
LATENT = 3
pytestmark = pytest.mark.filterwarnings("ignore:the template has 60 vertices")
MODEL = PcaMlpConfig(latent=LATENT, rank=8, width=16, depth=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    return dataset(ball_template(60), tmp_path_factory.mktemp("data") / "set", 60, subjects=20)


def pca_of(data: MeshDataset) -> Pca:
    shapes = data.split("subject").train.vertices
    return Pca.estimate(data.template, shapes, {}, PcaConfig(LATENT)).eval()


def error(model: torch.nn.Module, data: MeshDataset, subset: str) -> float:
    shapes = data.split("subject").subset(subset).vertices
    return mean_error(model, torch.from_numpy(np.asarray(shapes[:])))


@torch.no_grad()
def mean_error(model: torch.nn.Module, vertices: torch.Tensor) -> float:
    return float((model(vertices) - vertices).norm(dim=-1).mean())


def trained(data: MeshDataset, out: Path, **settings: object) -> PcaMlp:
    train = TrainConfig(epochs=2, batch_size=8, **settings)  # type: ignore[arg-type]
    model = run(RunConfig("pca-mlp", MODEL, train), data.split("subject"), out, HERE)
    assert isinstance(model, PcaMlp)
    return model


def test_epoch_0_is_validated_and_kept_if_training_only_hurts(
    data: MeshDataset, tmp_path: Path
) -> None:
    model = trained(data, tmp_path / "run", learning_rate=1.0, schedule="constant", warmup=0.0)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    pca = pca_of(data)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0]["start_mm"] == pytest.approx(error(pca, data, "val"), rel=1e-5)
    assert "start_mm" not in rows[1]
    assert rows[1]["best_mm"] == rows[0]["start_mm"] < rows[0]["validation_mm"]

    assert model.provenance["kept_epoch"] == 0
    assert "linear model that training started from" in kept_epoch(model.provenance, rows)
    test = torch.from_numpy(np.asarray(data.split("subject").test.vertices[:]))
    with torch.no_grad():
        assert torch.allclose(model(test), pca(test), atol=1e-4)
    chart = _validation(rows, 0)
    assert list(chart.series[0].x) == [0, 1, 2] and "epoch 0" in chart.series[1].name


def test_a_run_that_learns_keeps_what_it_learned(data: MeshDataset, tmp_path: Path) -> None:
    model = trained(data, tmp_path / "run", learning_rate=1e-3)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    best = min([rows[0]["start_mm"], *(row["validation_mm"] for row in rows)])
    assert rows[-1]["best_mm"] == best
    # The gates are chosen after the best epoch, so they can only lower its error.
    assert error(model, data, "val") <= best * (1 + 1e-5)


def test_the_start_is_left_only_for_a_gain_that_is_large_enough(
    gestures: MeshDataset, tmp_path: Path
) -> None:
    runs = {}
    for gain in (0.02, 0.9):
        train = TrainConfig(epochs=6, batch_size=4, learning_rate=1e-2, least_gain=gain)
        config = RunConfig("pca-mlp", MODEL, train)
        model = run(config, gestures.split("frames"), tmp_path / f"{gain}", HERE)
        rows = read_metrics(tmp_path / f"{gain}" / "metrics.jsonl")
        runs[gain] = rows, model.provenance["kept_epoch"]
    (learned, epoch), (closed, other) = runs[0.02], runs[0.9]
    errors = [row["validation_mm"] for row in learned]
    assert min(errors) < 0.98 * learned[0]["start_mm"] and epoch == 1 + int(np.argmin(errors))
    # The same training, whose gain is smaller than asked for.
    assert [row["validation_mm"] for row in closed] == errors and other == 0
    assert all(row["best_mm"] == closed[0]["start_mm"] for row in closed)


@pytest.mark.parametrize(("people", "caution"), [(1, 4.0), (4, 2.0), (16, 1.0), (25, 1.0)])
def test_few_unseen_people_must_gain_more(
    people: int, caution: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("data") / "set"
    data = dataset(ball_template(60), folder, 60, subjects=30)
    subject = np.unique(data.labels.classes("subject").numbers, return_inverse=True)[1]
    held_out, rest = np.flatnonzero(subject < people), np.flatnonzero(subject >= people)
    nothing = rest[:0]
    assert caution_for(SplitDataset(data, "own", Split(rest, held_out, nothing))) == caution
    # Held-out meshes of people who are trained on are enough in any number.
    halves = Split(np.arange(30), np.arange(30, 60), nothing)
    assert set(subject[:30]) == set(subject[30:])
    assert caution_for(SplitDataset(data, "own", halves)) == 1.0


def test_a_gain_on_one_person_leaves_the_start_only_if_it_is_large(
    gestures: MeshDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphable.train.run.caution_for", lambda data: 4.0)

    def trained(gain: float) -> tuple[list[dict[str, float]], int]:
        train = TrainConfig(epochs=6, batch_size=4, learning_rate=1e-2, least_gain=gain)
        folder = tmp_path / f"{gain}"
        model = run(RunConfig("pca-mlp", MODEL, train), gestures.split("frames"), folder, HERE)
        return read_metrics(folder / "metrics.jsonl"), model.provenance["kept_epoch"]

    rows, _ = trained(0.0)
    start = rows[0]["start_mm"]
    gained = 1 - min(row["validation_mm"] for row in rows) / start
    assert gained > 0.02 and rows[0]["enough_mm"] == start
    for share, kept in ((0.24, True), (0.26, False)):
        rows, epoch = trained(share * gained)
        assert rows[0]["enough_mm"] == pytest.approx((1 - 4 * share * gained) * start)
        assert (epoch > 0) == kept
    text = kept_epoch({"kept_epoch": 0, "train": {}}, rows)
    assert f"by {100 * 1.04 * gained:.2g} %" in text


def test_no_gate_is_chosen_if_the_untrained_model_is_kept(
    gestures: MeshDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PcaMlp, "finish", lambda model, _: model.decoder_gate.fill_(0.25))
    gates = {}
    for gain in (0.02, 0.9):
        train = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-2, least_gain=gain)
        config = RunConfig("pca-mlp", MODEL, train)
        model = run(config, gestures.split("frames"), tmp_path / f"{gain}", HERE)
        assert isinstance(model, PcaMlp)
        gates[min(model.provenance["kept_epoch"], 1)] = float(model.decoder_gate)
    assert gates == {0: 1.0, 1: 0.25}


def test_the_last_epoch_is_kept_if_that_was_asked_for(data: MeshDataset, tmp_path: Path) -> None:
    settings = {"schedule": "constant", "warmup": 0.0, "keep": "last"}
    model = trained(data, tmp_path / "run", learning_rate=1.0, **settings)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert model.provenance["kept_epoch"] == 2 and "start_mm" not in rows[0]


def test_gates_close_on_networks_that_do_not_help(data: MeshDataset) -> None:
    model = PcaMlp(data.template, MODEL)
    shapes = data.split("subject").train.vertices
    model.initialize(shapes)
    for network in (model.encoder, model.decoder):
        torch.nn.init.constant_(network[-1].bias, 5.0)
    val = torch.from_numpy(np.asarray(data.split("subject").val.vertices[:]))
    model.eval().finish(Batch(val))
    assert (float(model.encoder_gate), float(model.decoder_gate)) == (0.0, 0.0)
    assert error(model, data, "val") == pytest.approx(error(pca_of(data), data, "val"), rel=1e-5)


@pytest.mark.parametrize("gates", [(0.0, 1.0), (0.5, 0.25), (1.0, 0.0)])
def test_gates_are_in_the_exported_decoder(data: MeshDataset, gates: tuple[float, float]) -> None:
    torch.manual_seed(0)
    model = PcaMlp(data.template, MODEL)
    model.initialize(data.vertices)
    torch.nn.init.normal_(model.decoder[-1].weight, std=0.1)
    model.encoder_gate.fill_(gates[0])
    model.decoder_gate.fill_(gates[1])
    code = torch.randn(5, LATENT)
    with torch.no_grad():
        assert torch.allclose(model.dense_decoder().decode(code), model.decode(code), atol=1e-4)


def test_small_components_start_as_pca_too(data: MeshDataset) -> None:
    """Whitening has a floor, which must not shrink components below it."""
    config = dataclasses.replace(MODEL, latent=20, rank=30)
    scale = np.logspace(0, -5, 25)[:, None, None]
    bumps = np.random.default_rng(0).standard_normal((25, *data.vertices.shape[1:])) * scale
    shapes = (np.asarray(data.vertices[:25]).mean(0) + 10 * bumps).astype(np.float32)
    model = PcaMlp(data.template, config)
    model.initialize(shapes)
    pca = Pca.estimate(data.template, shapes, {}, PcaConfig(20))
    vertices = torch.from_numpy(shapes)
    with torch.no_grad():
        assert torch.allclose(model(vertices), pca(vertices), atol=1e-4)


FAMILIES = (
    "coma", "spiralnet", "spiralnet++", "deep3dmm", "deep3dmm-spiral", "local-weights", "lamm",
    "lamm-mixer",
)  # fmt: skip


def untrained(name: str, data: MeshDataset, recipe: str = "fast") -> TrainableModel:
    torch.manual_seed(0)
    smaller = {"width": 16, "heads": 2} if name.startswith("lamm") else {}
    model = create(name, data.template, recipe=recipe, latent=LATENT, start="linear", **smaller)
    assert isinstance(model, TrainableModel) and model.starts_linear
    model.initialize(data.split("subject").train.vertices)
    return model.eval()


@pytest.mark.parametrize("recipe", ["fast", "paper"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_linear_start_is_pca(name: str, recipe: str, data: MeshDataset) -> None:
    model, pca = untrained(name, data, recipe), pca_of(data)
    test = torch.from_numpy(np.asarray(data.split("subject").test.vertices[:]))
    with torch.no_grad():
        assert torch.allclose(model(test), pca(test), atol=1e-4)


def with_random_networks(model: TrainableModel) -> TrainableModel:
    """The model after a training that went wrong: all parameters are random, except the projections
    of local-weights, which belong to its linear model.
    """
    random = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name != "to_parts.weight":
            torch.nn.init.normal_(parameter, std=0.3, generator=random)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_closed_gates_are_pca_whatever_was_learned(name: str, data: MeshDataset) -> None:
    """Gates are chosen by the error on the validation meshes, which no other levels make less."""
    model, pca = with_random_networks(untrained(name, data)), pca_of(data)
    model.finish(Batch(torch.from_numpy(np.asarray(data.split("subject").val.vertices[:]))))
    chosen = error(model, data, "val")
    assert chosen <= error(pca, data, "val") * (1 + 1e-5)
    linear = model.linear
    gates = linear.encoder_gate, linear.decoder_gate
    for levels in itertools.product(LEVELS, repeat=2):
        for gate, level in zip(gates, levels, strict=True):
            gate.fill_(level)
        assert error(model, data, "val") >= chosen * (1 - 1e-5)
    for gate in gates:
        gate.fill_(0.0)
    assert error(model, data, "test") == pytest.approx(error(pca, data, "test"), rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_that_start_at_zero_learn(name: str, data: MeshDataset) -> None:
    """Also behind a ReLU, as in the published CoMA, all last layers get a gradient."""
    model = untrained(name, data, "paper").train()
    vertices = torch.from_numpy(np.asarray(data.split("subject").train.vertices[:8]))
    progress = Progress(0, 1, 0, 1, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        torch.stack(list(model.loss(Batch(vertices), progress).values())).sum().backward()
        optimizer.step()
    still = [name for name, own in model.named_parameters() if not own.grad.abs().sum() > 0]
    # LAMM's handles are trained in its second stage.
    assert not [name for name in still if "control_nets" not in name]


def test_a_trained_linear_start_is_saved_with_its_gates(data: MeshDataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = TrainConfig(epochs=1, batch_size=8, learning_rate=1e-3)
    config = dataclasses.replace(MODELS["deep3dmm"].fast.model, latent=LATENT, start="linear")
    model = run(
        RunConfig("deep3dmm", config, settings), data.split("subject"), tmp_path / "run", HERE
    )
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    pca = error(pca_of(data), data, "val")
    assert rows[0]["start_mm"] == pytest.approx(pca, rel=1e-5)
    assert error(model, data, "val") <= pca * (1 + 1e-5)
    assert error(load(tmp_path / "run"), data, "val") == error(model, data, "val")


def trained_lamm(hands: MeshDataset) -> Lamm:
    """A small LAMM with a linear start, after a few random steps of both networks."""
    torch.manual_seed(0)
    made = create("lamm", hands.template, latent=4, width=16, heads=2, start="linear")
    assert isinstance(made, Lamm)
    made.initialize(hands.vertices)
    for layer in (made.network.to_code, made.network.to_added):
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return made.eval()


def test_a_region_of_a_linear_start_is_decoded_by_itself(hands: MeshDataset) -> None:
    model = trained_lamm(hands)
    model.linear.decoder_gate.fill_(0.75)
    vertices = torch.from_numpy(np.asarray(hands.vertices[:3]))
    with torch.no_grad():
        code = model.encode(vertices)
        code[:, model.parts["controls"]] = torch.randn(3, 3 * len(model.controls))
        whole = model.decode(code)
        for region in range(len(model.regions.names)):
            own = whole[:, model.network.region_members(region)]
            assert torch.allclose(model.decode_region(code, region), own, atol=1e-4)


def test_lamm_starts_with_handles_that_reach_their_goals(hands: MeshDataset) -> None:
    """Untrained, moving one region's handles to where another mesh has them makes its region, up to
    what the handles do not say, and nothing else moves.
    """
    model = create("lamm", hands.template, latent=4, width=16, heads=2, start="linear")
    assert isinstance(model, Lamm) and model.handles_trained
    model.initialize(hands.vertices)
    source, goal = (torch.from_numpy(np.asarray(hands.vertices[i : i + 4])) for i in (0, 4))
    wanted = goal - source
    code = model.encode(source)
    for region, controls in enumerate(model.regions.controls):
        moved = model.displacement(region, wanted[:, controls])
        with torch.no_grad():
            change = model.decode(model.displace(code, moved)) - model.decode(code)
        members = model.regions.vertices(region)
        outside = np.setdiff1d(np.arange(source.shape[1]), members)
        assert change[:, outside].abs().max() < 1e-4
        missed = (change - wanted)[:, controls].norm(dim=-1).mean()
        assert missed < 0.05 * wanted[:, controls].norm(dim=-1).mean()
        # What region-PCA does with as many components and the same tolerance.
        by_hand = linear_answer(hands, members, controls, wanted[:, controls])
        assert torch.allclose(change[:, members].double(), by_hand, atol=2e-3)


def linear_answer(
    hands: MeshDataset, members: np.ndarray, controls: np.ndarray, moved: torch.Tensor
) -> torch.Tensor:
    """(B, m, 3) mm: the most likely displacement of a region under its training covariance C, given
    that of its handles with an error of FOLLOW_ERROR: C_mh (C_hh + error^2)^-1 d.
    """
    shapes = torch.from_numpy(np.asarray(hands.vertices[:])).double()
    count = 3 * len(members)
    covariance = torch.cov(shapes[:, torch.from_numpy(members)].flatten(1).T)
    places = 3 * np.searchsorted(members, controls)[:, None] + np.arange(3)
    known = torch.from_numpy(places.ravel())
    noisy = covariance[known][:, known] + FOLLOW_ERROR**2 * torch.eye(len(known))
    solved = torch.linalg.solve(noisy, moved.flatten(1).T.double())
    return (covariance[:, known] @ solved).T.reshape(-1, count // 3, 3)


def test_lamm_is_better_than_pca_within_some_steps(hands: MeshDataset) -> None:
    """Before, its network began with a gain of zero, which grew too slowly to be of use."""
    shapes = torch.from_numpy(np.asarray(hands.vertices[:40]))
    torch.manual_seed(0)
    model = create("lamm", hands.template, latent=2, width=64, heads=1, start="linear")
    assert isinstance(model, Lamm)
    model.initialize(hands.vertices)
    before = mean_error(model, shapes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    progress = Progress(0, 1, 0, 40, torch.Generator().manual_seed(0), "autoencode")
    for _ in range(40):
        optimizer.zero_grad()
        sum(model.loss(Batch(shapes), progress).values()).backward()
        optimizer.step()
    assert mean_error(model, shapes) < 0.95 * before


def test_gates_of_lamm_count_edits_once_handles_are_trained(hands: MeshDataset) -> None:
    """An edit needs the decoder's network, whose gate is closed for reconstruction alone."""
    model = trained_lamm(hands)
    batch = Batch(torch.from_numpy(np.asarray(hands.vertices[:12])))
    model.finish(batch)
    assert float(model.linear.decoder_gate) == 0.0

    gates = model.linear.encoder_gate, model.linear.decoder_gate
    model.edits_trained.fill_(True)
    model.finish(batch)
    with torch.no_grad():
        chosen = float(model.validate(batch.vertices, MANIPULATE).mean())
        for gate in gates:
            gate.fill_(0.0)
        assert chosen <= float(model.validate(batch.vertices, MANIPULATE).mean())


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("lamm", {"bottleneck": False}, "linear needs a code of the whole shape"),
        ("local-weights", {"reading": "features"}, "linear needs model.reading=output"),
        ("ib-vae", {}, "start"),
        ("pca-mlp", {}, "start"),
        ("deepflame", {}, "start"),
        ("gan", {}, "start"),
    ],
)
def test_families_that_cannot_start_linear_say_so(
    data: MeshDataset, family: str, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        create(family, data.template, start="linear", **settings)
