"""The errors of each mesh: by hand, from Python and as the command writes them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import morphable
from conftest import ball_template
from helpers import dataset, in_process
from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.mesh.regions import Regions
from morphable.mesh.template import Template
from morphable.models.base import Origin
from morphable.models.io import save
from morphable.models.pca import Pca, PcaConfig


@pytest.fixture(scope="module")
def template() -> Template:
    plain = ball_template(60)
    regions = Regions(np.repeat([0, 1], [20, 40]), ("brow, left", "rest"))
    return replace(plain, regions=regions, masks={"front": np.arange(60) < 25})


@pytest.fixture
def folder(template: Template, tmp_path: Path) -> MeshDataset:
    return dataset(template, tmp_path / "set")


def trained(folder: MeshDataset) -> Pca:
    data = folder.split("subject")
    model = Pca.estimate(folder.template, data.train.vertices, {}, PcaConfig(3)).eval()
    origin = Origin("pca", {"data": str(folder.path), "split": "subject"})
    return model.with_origin(origin)


def test_each_mesh_by_hand(folder: MeshDataset) -> None:
    model, data = trained(folder), folder.split("subject")
    found = morphable.mesh_errors(model, data=data)
    truth = data.test.vertices[:]
    import torch

    with torch.no_grad():
        distance = np.linalg.norm(model(torch.from_numpy(truth)).numpy() - truth, axis=-1)
    np.testing.assert_allclose(found["mean_mm"], distance.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["max_mm"], distance.max(1), rtol=1e-5)
    np.testing.assert_allclose(found["pca_mean_mm"], found["mean_mm"], rtol=1e-4)
    np.testing.assert_allclose(found["mean_mm/brow, left"], distance[:, :20].mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["mean_mm/rest"], distance[:, 20:].mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["mean_mm/front"], distance[:, :25].mean(1), rtol=1e-5)
    assert found["row"].tolist() == data.split.test.tolist()
    assert found["subject"].tolist() == folder.labels["subject"][data.split.test].tolist()
    assert found["mesh"].tolist() == [str(row) for row in data.split.test]
    train = morphable.mesh_errors(model, data=data, subset="train")
    assert len(train["mean_mm"]) == len(data.train)


def test_the_command_writes_the_same(
    folder: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(folder)
    save(model, tmp_path / "model")
    file = tmp_path / "out" / "errors.csv"
    done = in_process(capsys, "evaluate", tmp_path / "model", "--csv", file)
    assert done.code == 0, done.err
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    expected = morphable.mesh_errors(model, data=folder.split("subject"))
    assert list(rows[0]) == list(expected)
    for name, column in expected.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose([float(row[name]) for row in rows], column, rtol=1e-5)
        else:
            assert [row[name] for row in rows] == column.astype(str).tolist()

    done = in_process(capsys, "evaluate", tmp_path / "model", "--csv", file, "--json", file)
    assert done.code == 2 and "--json and --csv: both name" in done.err
    done = in_process(capsys, "evaluate", tmp_path / "model", "--csv", tmp_path)
    assert done.code == 2 and "is a folder" in done.err


def test_imported_meshes_have_the_names_of_their_files(folder: MeshDataset, tmp_path: Path) -> None:
    files = np.array([f"scans/{row}.ply" for row in range(len(folder))])
    columns = {"file": files}  # without subjects
    meshes = folder.vertices[:]
    write_dataset(
        MeshSource(folder.template, LabelTable(columns, len(files)), lambda: iter([meshes]), {}),
        tmp_path / "imported",
    )
    data = load_dataset(tmp_path / "imported").split("frames")
    found = morphable.mesh_errors(trained(folder), data=data)
    assert found["mesh"].tolist() == files[data.split.test].tolist()
    assert set(found["subject"].tolist()) == {""}
