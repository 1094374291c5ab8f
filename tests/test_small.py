"""Small templates, few meshes and small grids: every family trains, is measured and says what it
could not have.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import dataset, in_process, labels
from morphable.data.dataset import MeshDataset, write_dataset
from morphable.data.source import MeshSource
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.base import EstimatedModel
from morphable.models.families import MODELS
from morphable.models.io import load
from morphable.models.multilinear import Multilinear, MultilinearConfig

TETRAHEDRON = Template(
    Mesh(
        np.array([[0.0, 0, 0], [50, 0, 0], [0, 50, 0], [0, 0, 50]]),
        np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]),
    ),
    "tetrahedron",
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, MeshDataset]:
    """Sixty meshes on templates of 4, 42 and 162 vertices."""
    root = tmp_path_factory.mktemp("sets")
    templates = (TETRAHEDRON, ball_template(42), ball_template(162))
    return {
        template.n_vertices: dataset(template, root / template.name / str(template.n_vertices))
        for template in templates
    }


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("size", [4, 42, 162])
def test_every_family_trains_on_a_small_template(
    sets: dict[int, MeshDataset],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    size: int,
    family: str,
) -> None:
    short = () if issubclass(MODELS[family].model, EstimatedModel) else ("--epochs", 1)
    run = tmp_path / "run"
    trained = in_process(capsys, "train", family, "--data", sets[size].path, "--out", run, *short)
    assert trained.code == 0, trained.err
    if "hierarchy" in vars(load(run).geometry):
        count = {4: 0, 42: 2, 162: 3}[size]
        assert f"the template has {size} vertices, enough for {count} of 4" in trained.err
    measured = in_process(capsys, "evaluate", run)
    assert measured.code == 0, measured.err
    sample = in_process(capsys, "sample", run, "-n", 2, "--out", tmp_path / "out")
    assert sample.code == (0 if load(run).prior is not None else 2), sample.err


@pytest.mark.parametrize("family", ["pca", "pca-mlp"])
@pytest.mark.parametrize("count", [3, 5])
def test_a_handful_of_meshes_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, family: str
) -> None:
    """With a single mesh for testing, what a spread is needed for is left out."""
    dataset(ball_template(200), tmp_path / "set", count, subjects=count)
    run = tmp_path / "run"
    train = ("train", family, "--data", tmp_path / "set", "--out", run, "--latent", 1)
    ended = in_process(capsys, *train, *(() if family == "pca" else ("--epochs", 1)))
    if count == 3:
        ended.refuses("1 training mesh")
        return
    assert ended.code == 0, ended.err
    assert in_process(capsys, "evaluate", run).code == 0
    assert json.loads((run / "evaluation.json").read_text())["model"]["compactness"] == []
    if family == "pca":
        assert in_process(capsys, "report", run).code == 0


def test_multilinear_says_what_its_grid_carries(
    sets: dict[int, MeshDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train = ("train", "multilinear", "--data", sets[42].path, "--out", run, "--latent", 44)
    ended = in_process(capsys, *train)
    assert ended.code == 0
    assert "identity 22: the grid's 9 subjects with 2 expressions carry only 8, so the" in ended.err
    assert (
        "expression 22: the grid's 9 subjects with 2 expressions carry only 2, so the" in ended.err
    )
    assert load(run).config == MultilinearConfig(identity=8, expression=2)
    assert in_process(capsys, "evaluate", run).code == 0


@pytest.mark.parametrize("family", ["pca", "pca-mlp", "region-pca"])
def test_no_latent_size_is_beyond_what_the_meshes_carry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    """Of sixteen training meshes: and every table has the size that the model has."""
    dataset(ball_template(200), tmp_path / "set", 20, subjects=20)
    run = tmp_path / "run"
    train = ("train", family, "--data", tmp_path / "set", "--out", run, "--latent", 300)
    ended = in_process(capsys, *train, *(("--epochs", 1) if family == "pca-mlp" else ()))
    assert ended.code == 0, ended.err
    model = load(run)
    assert model.latent == model.parts.size <= 15 * (11 if family == "region-pca" else 1)
    assert "note: latent 300: 16 training meshes" in ended.err
    assert f" carry only {model.latent}, so the model has {model.latent}" in ended.err
    assert f"latent size {model.latent}" in ended.out
    measured = in_process(capsys, "evaluate", run)
    assert measured.code == 0 and str(model.latent) in measured.out and "300" not in measured.out


@pytest.mark.parametrize("family", ["pca", "coma", "ib-vae"])
def test_equal_meshes_are_nothing_to_learn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    template = ball_template(200)
    twelve = np.repeat(template.mesh.vertices[None], 12, 0).astype(np.float32)
    info = {"source": "copies", "licence": "none", "unit": "mm"}
    copies = MeshSource(template, labels(12), lambda: iter([twelve]), info)
    write_dataset(copies, tmp_path / "set")
    train = ("train", family, "--data", tmp_path / "set", "--out", tmp_path / "run")
    in_process(capsys, *train).refuses("the training meshes of split", "are all equal")
    assert not (tmp_path / "run").exists()


def test_a_grid_larger_than_the_template(sets: dict[int, MeshDataset]) -> None:
    """Fifteen weights on twelve coordinates."""
    data = sets[4]
    labels = {
        "subject": np.arange(60) % 10,
        "expression": np.arange(60) // 10 % 3,
        "neutral": np.arange(60) % 10,
    }
    meshes = torch.from_numpy(np.asarray(data.vertices[:30]))
    errors = []
    for size in (MultilinearConfig(1, 1), MultilinearConfig(4, 2)):
        model = Multilinear.estimate(data.template, data.vertices, labels, size)
        assert model.space.shape == (min(12, (1 + size.identity) * (1 + size.expression)), 12)
        errors.append(float((model(meshes) - meshes).norm(dim=-1).mean()))
    assert errors[1] < errors[0] / 2
