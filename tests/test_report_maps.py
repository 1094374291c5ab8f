"""Report sections on learned maps and on arithmetic of codes: what they compute, and when they have
nothing to say.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conftest import ball_template
from helpers import dataset, html_of, report_context
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.files import write_npz
from morphable.mesh.topology import vertex_normals
from morphable.models.autoencoder import HierarchicalAutoencoder
from morphable.models.base import MorphableModel, TrainableModel
from morphable.models.families import MODELS, create
from morphable.models.pca import Pca, PcaConfig
from morphable.report import arithmetic, level_map_pictures
from morphable.report.arithmetic import choose
from morphable.report.context import ReportContext
from morphable.report.level_map_pictures import (
    GRAY,
    facing_vertices,
    learned_maps,
    mapped_vertices,
    one_dimension,
    receptive_fields,
    snapshot_files,
)

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    return dataset(ball_template(640), tmp_path_factory.mktemp("data") / "set", 60, subjects=20)


def network(data: MeshDataset, name: str = "deep3dmm", **settings: object) -> MorphableModel:
    torch.manual_seed(0)
    made = create(name, data.template, replace(MODELS[name].fast.model, latent=3, **settings))
    assert isinstance(made, TrainableModel)
    made.initialize(data.vertices[:])
    return made.eval().for_inference()


def context(data: MeshDataset, model: MorphableModel, folder: Path | None = None) -> ReportContext:
    return report_context(model, data.split("subject"), folder=folder)


def snapshot(folder: Path, epoch: int, vertices: int = 640) -> None:
    index = np.tile(np.arange(4), (vertices, 1))
    arrays = {"index": index, "weights": np.full(index.shape, 0.25), "share": np.array(0.25)}
    write_npz(folder / "snapshots" / f"epoch-{epoch:05d}.npz", arrays)


def test_neighbors_stay_neighbors_in_one_dimension(rng: np.random.Generator) -> None:
    """Rows that overlap with their neighbors on a line, shuffled: the line may be cut, but its
    pieces stay.
    """
    count = 120
    band = sp.diags([1.0] * 9, range(9), (count, count + 8))
    place = rng.permutation(count)
    order = one_dimension(sp.csr_matrix(band)[place])
    ranks = np.round(order * (count - 1)).astype(int)
    assert sorted(ranks.tolist()) == list(range(count))
    gaps = np.abs(np.diff(ranks[np.argsort(place)]))
    assert (gaps <= 3).mean() > 0.85, "of any order it would be 5 in 100"
    np.testing.assert_array_equal(order, one_dimension(sp.csr_matrix(band)[place]))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_levels_too_small_for_tsne_are_ordered_too(count: int) -> None:
    order = one_dimension(sp.csr_matrix(np.arange(3.0 * count).reshape(count, 3)))
    assert (
        sorted(order.tolist()) == np.linspace(0, 1, count).tolist()
        if count > 1
        else order.tolist() == [0]
    )


def test_maps_are_those_of_the_model(data: MeshDataset) -> None:
    model = network(data)
    maps = learned_maps(context(data, model))
    assert maps is not None
    assert isinstance(model, HierarchicalAutoencoder)
    for modules, found, given in (
        (model.encoder.maps, maps.down, maps.hierarchy.down),
        (model.decoder.maps, maps.up, maps.hierarchy.up),
    ):
        for level, matrix in enumerate(found):
            assert matrix is not None and matrix.shape == given[level].shape
            module = modules[level]
            x = torch.randn(1, matrix.shape[1], 2)
            expected = torch.from_numpy(matrix @ x[0].double().numpy()).float()[None]
            torch.testing.assert_close(module(x), expected)


def test_a_vertex_that_no_row_reads_is_grey(data: MeshDataset) -> None:
    matrix = sp.csr_matrix(np.diag([1.0, 1, 0, 1, 1, 1, 0, 1]))
    colors = level_map_pictures._colors(matrix, np.random.default_rng(0).standard_normal((8, 3)))
    gray = (colors == np.array(GRAY)).all(1)
    assert np.flatnonzero(gray).tolist() == [2, 6]


def test_the_sections_of_learned_maps(data: MeshDataset, tmp_path: Path) -> None:
    both = mapped_vertices(context(data, network(data)))
    assert both is not None
    for text in (
        "down, learned",
        "down, precomputed",
        "up, learned",
        "up, precomputed",
        "640 ⇄ 160",
        "10 ⇄ 3",
    ):
        assert text in html_of(both)
    assert html_of(both).count("<img") == 16
    half = mapped_vertices(context(data, network(data, learned="decoder")))
    assert (
        half is not None
        and "down, learned" not in html_of(half)
        and html_of(half).count("<img") == 8
    )
    for name, settings in (("coma", {}), ("deep3dmm", {"aggregation": "diffpool"})):
        assert mapped_vertices(context(data, network(data, name, **settings))) is None
    linear = Pca.estimate(data.template, data.vertices[:], {}, PcaConfig(2)).eval()
    assert mapped_vertices(context(data, linear)) is None


def test_receptive_fields_follow_the_snapshots(data: MeshDataset, tmp_path: Path) -> None:
    model = network(data)
    assert receptive_fields(context(data, model)) is None
    assert receptive_fields(context(data, model, tmp_path)) is None
    for epoch in (12, 1, 3):
        snapshot(tmp_path, epoch)
    assert [epoch for epoch, _ in snapshot_files(tmp_path)] == [1, 3, 12]
    found = receptive_fields(context(data, model, tmp_path))
    assert found is not None
    assert html_of(found).count("<img") == 4 * 4
    assert "precomputed" in html_of(found) and "25 % learned" in html_of(found)
    assert (
        html_of(found).index("epoch 1<")
        < html_of(found).index("epoch 3<")
        < html_of(found).index("epoch 12<")
    )
    snapshot(tmp_path, 13, vertices=639)
    with pytest.raises(InputError, match=r"epoch-00013\.npz: not a snapshot of this model"):
        receptive_fields(context(data, model, tmp_path))


def test_shown_vertices_face_the_viewer_and_lie_apart(data: MeshDataset) -> None:
    scene = context(data, network(data)).scene
    chosen = facing_vertices(scene, 4)
    mesh = data.template.mesh
    normals = vertex_normals(np.asarray(mesh.vertices), mesh.triangles)
    assert ((normals[chosen] @ scene.view.camera.rotation[2]) > 0.5).all()
    gaps = np.linalg.norm(mesh.vertices[chosen][:, None] - mesh.vertices[chosen], axis=-1)
    assert gaps[~np.eye(4, dtype=bool)].min() > 20


def test_shapes_to_calculate_with(data: MeshDataset) -> None:
    """The neutral shapes are the dataset's own rows, and the other is of another subject."""
    found = choose(context(data, network(data)).scene)
    assert found is not None and found.neutral
    whole = np.asarray(data.vertices[:])
    row = next(i for i in range(60) if np.array_equal(whole[i], found.posed.shape))
    other = next(i for i in range(60) if np.array_equal(whole[i], found.other_posed.shape))
    subject, neutral = data.labels["subject"], data.labels["neutral"]
    assert subject[row] != subject[other]
    np.testing.assert_array_equal(found.rest.shape, whole[neutral[row]])
    np.testing.assert_array_equal(found.other_rest.shape, whole[neutral[other]])
    assert found.rest.name == f"{subject[row]} neutral"
    assert found.other_rest.name == f"{subject[other]} neutral"


def test_without_neutral_shapes_a_subjects_first_mesh_stands_for_them(data: MeshDataset) -> None:
    columns = {name: column for name, column in data.labels.columns.items() if name != "neutral"}
    bare = replace(data, labels=replace(data.labels, columns=columns))
    found = choose(context(bare, network(data)).scene)
    assert found is not None and not found.neutral
    assert found.rest.name.endswith("at rest")
    assert not np.array_equal(found.rest.shape, found.posed.shape)


def test_the_section_of_arithmetic(data: MeshDataset) -> None:
    section = arithmetic.arithmetic(context(data, network(data)))
    assert section is not None
    between, beyond, transfer = 2 * 6, 2 * 6, 3 + 2 * 4
    assert html_of(section).count("<img") == between + beyond + transfer
    assert "PCA, 3" in html_of(section) and "T0 + S1 − S0" in html_of(section)
    linear = Pca.estimate(data.template, data.vertices[:], {}, PcaConfig(2)).eval()
    alone = arithmetic.arithmetic(context(data, linear))
    assert alone is not None and html_of(alone).count("<img") == 6 + 6 + 3 + 4
