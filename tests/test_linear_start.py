"""Models that start as a linear model: epoch 0 is validated, kept if nothing is better, and gates
close what does not help.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import dataset
from morphable.data.dataset import MeshDataset
from morphable.models.pca import Pca, PcaConfig
from morphable.models.pca_mlp import PcaMlp, PcaMlpConfig
from morphable.models.training import Batch, TrainConfig
from morphable.report.chart_sections import _validation
from morphable.train.checkpoint import read_metrics
from morphable.train.distributed import Workers
from morphable.train.outcome import kept_epoch
from morphable.train.run import RunConfig, run

HERE = Workers(0, 1, torch.device("cpu"))
LATENT = 3
MODEL = PcaMlpConfig(latent=LATENT, rank=8, width=16, depth=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    return dataset(ball_template(60), tmp_path_factory.mktemp("data") / "set", 60, subjects=20)


def pca_of(data: MeshDataset) -> Pca:
    shapes = data.split("subject").train.vertices
    return Pca.estimate(data.template, shapes, {}, PcaConfig(LATENT)).eval()


def error(model: torch.nn.Module, data: MeshDataset, subset: str) -> float:
    vertices = torch.from_numpy(np.asarray(data.split("subject").subset(subset).vertices[:]))
    with torch.no_grad():
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
