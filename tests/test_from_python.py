"""Training and measuring from Python is the same as by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import morphable
from helpers import dataset, in_process
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.mesh.template import Template


def test_train_model_is_the_command_train(
    hands: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = "--latent 5 --epochs 1 --seed 2 --set model.width=16"
    words = ["train", "pca-mlp", "--data", hands.path, *settings.split()]
    assert in_process(capsys, *words, "--out", tmp_path / "command").code == 0
    morphable.train_model(
        "pca-mlp",
        data=hands.split("subject"),
        folder=tmp_path / "python",
        latent=5,
        model={"width": 16},
        train={"epochs": 1, "seed": 2},
    )
    command, python = (
        (tmp_path / name / "model" / "weights.safetensors").read_bytes()
        for name in ("command", "python")
    )
    assert command == python


def test_evaluate_model_is_the_command_evaluate(
    hands: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = hands.split("subject")
    model = morphable.train_model("pca", data=data, folder=tmp_path / "run", latent=4)
    assert not model.training
    measured = morphable.evaluate_model(model, data=data)
    assert in_process(capsys, "evaluate", tmp_path / "run").code == 0
    command = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert measured.measures["model"] == command["model"]
    assert measured.measures["baselines"] == command["baselines"]

    shapes = torch.from_numpy(data.test.vertices[:])
    error = float((model(shapes) - shapes).norm(dim=-1).mean())
    assert command["model"]["vertex_error_mm"]["mean"] == pytest.approx(error, rel=1e-5)


def test_what_cannot_be_trained_is_said(hands: MeshDataset, tmp_path: Path) -> None:
    data = hands.split("subject")
    with pytest.raises(InputError, match="closed form"):
        morphable.train_model("pca", data=data, folder=tmp_path / "a", train={"epochs": 3})
    with pytest.raises(InputError, match=r"train\.epoch: .*did you mean 'epochs'"):
        morphable.train_model("coma", data=data, folder=tmp_path / "b", train={"epoch": 3})
    with pytest.raises(InputError, match="'koma'"):
        morphable.train_model("koma", data=data, folder=tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_a_model_is_not_measured_on_another_template(
    hands: MeshDataset, ball: Template, tmp_path: Path
) -> None:
    model = morphable.train_model("pca", data=hands.split("subject"), folder=tmp_path / "run")
    other = dataset(ball, tmp_path / "other")
    with pytest.raises(InputError, match="template"):
        morphable.evaluate_model(model, data=other.split("subject"))
