"""Measures: statistics by hand, PCA's measures by the singular value decomposition, and what is
measured on what.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from family_models import trained_family
from helpers import all_of, dataset, measured, shapes
from morphable.data.dataset import MeshDataset, SplitDataset, load_dataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.data.source import MeshSource
from morphable.data.splits import Split
from morphable.errors import InputError
from morphable.evaluate.errors import mean_vertex_error, summary
from morphable.evaluate.evaluation import Evaluation, code_errors
from morphable.evaluate.measures import compactness, error_measures, measure, specificity
from morphable.evaluate.protocol import chosen_subset, open_dataset
from morphable.evaluate.record import evaluate_model
from morphable.evaluate.scans import scan_errors, scattered
from morphable.mesh.regions import Regions
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel, Origin
from morphable.models.batched import encode_all
from morphable.models.io import load, save
from morphable.models.pca import Pca, PcaConfig

LATENT = 3
KEYS = {"mean", "std", "median", "p95", "max", "ci95", "groups"}


@pytest.fixture(scope="module")
def template() -> Template:
    """An uneven ball with three regions and a mask."""
    plain = ball_template(60)
    regions = Regions(np.repeat([0, 1, 2], [10, 20, 30]), ("a", "b", "c"))
    mask = np.arange(60) < 25
    return dataclasses.replace(plain, regions=regions, masks={"front": mask})


@pytest.fixture(scope="module")
def train(template: Template) -> np.ndarray:
    return shapes(template, 40)


@pytest.fixture(scope="module")
def test(template: Template) -> np.ndarray:
    return shapes(template, 15, seed=9)


@pytest.fixture(scope="module")
def pca(template: Template, train: np.ndarray) -> Pca:
    made = Pca.estimate(template, train, {}, PcaConfig(LATENT)).eval()
    return made.with_origin(Origin("pca"))


def by_svd(train: np.ndarray, test: np.ndarray, rank: int) -> np.ndarray:
    """(N, V, 3) projections of the test meshes, by another route than the model's."""
    mean = train.astype(np.float64).mean(0)
    axes = np.linalg.svd((train - mean).reshape(len(train), -1), full_matrices=False)[2][:rank]
    flat = (test - mean).reshape(len(test), -1)
    return mean + (flat @ axes.T @ axes).reshape(test.shape)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.asarray(a, np.float64) - b, axis=-1)


def test_statistics_by_hand() -> None:
    result = summary(np.array([[0.0, 2.0], [4.0, 6.0]]), np.array([0, 1]))
    assert result.keys() == KEYS
    assert (result["mean"], result["median"], result["max"]) == (3.0, 3.0, 6.0)
    assert result["std"] == pytest.approx(5**0.5) and result["p95"] == pytest.approx(5.7)
    assert result["groups"] == 2 and result["ci95"] is None, "two subjects are too few"
    json.dumps(result)


def test_a_median_is_no_mean() -> None:
    result = summary(np.array([1.0, 1.0, 1.0, 97.0]), np.arange(4))
    assert (result["mean"], result["median"]) == (25.0, 1.0)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_errors_are_distances_whatever_the_batch(
    pca: Pca, train: np.ndarray, test: np.ndarray, batch: int
) -> None:
    expected = distances(by_svd(train, test, LATENT), test)
    np.testing.assert_allclose(
        code_errors(pca, encode_all(pca, test, batch), test), expected, atol=1e-4
    )
    assert mean_vertex_error(pca, test, batch) == pytest.approx(expected.mean(), abs=1e-5)


def evaluation_of(
    model: MorphableModel, train: np.ndarray, test: np.ndarray, subjects: np.ndarray
) -> Evaluation:
    """Of meshes that are in no dataset folder."""
    count = len(train) + len(test)
    names = np.concatenate([np.full(len(train), "t"), np.char.add("s", subjects.astype(str))])
    stack = MeshStack([train, test])
    table, path = LabelTable({"subject": names}, count), Path("memory")
    whole = MeshDataset(model.template, stack, table, {"content_hash": ""}, path, np.arange(count))
    rows = np.arange(count)
    split = Split(rows[: len(train)], rows[:0], rows[len(train) :])
    return Evaluation.of(model, SplitDataset(whole, "made", split))


@pytest.fixture(scope="module")
def result(pca: Pca, train: np.ndarray, test: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    return measure(evaluation_of(pca, train, test, np.arange(15) % 5))


def test_the_record_has_what_the_design_promises(result: dict) -> None:
    assert set(result) >= {"model", "baselines"} and set(result["baselines"]) >= {
        "mean_shape",
        "pca",
    }
    for record in (result["model"], *result["baselines"].values()):
        for name in (
            "vertex_error_mm",
            "mesh_error_mm",
            "vertex_error_mm/a",
            "vertex_error_mm/front",
        ):
            assert record[name].keys() == KEYS
    assert {"specificity_mm", "compactness", "self_intersections"} <= result["model"].keys()
    json.dumps(result, allow_nan=False)


def test_the_mean_shape_by_hand(result: dict, train: np.ndarray, test: np.ndarray) -> None:
    expected = distances(train.astype(np.float64).mean(0), test)
    found = result["baselines"]["mean_shape"]
    assert found["vertex_error_mm"]["mean"] == pytest.approx(expected.mean(), rel=1e-5)
    assert found["vertex_error_mm"]["max"] == pytest.approx(expected.max(), rel=1e-5)
    assert found["mesh_error_mm"]["std"] == pytest.approx(expected.mean(1).std(), rel=1e-4)


def test_pca_beside_itself_is_equal_and_right(
    result: dict, train: np.ndarray, test: np.ndarray
) -> None:
    expected = distances(by_svd(train, test, LATENT), test)
    for record in (result["model"], result["baselines"]["pca"]):
        assert record["vertex_error_mm"]["mean"] == pytest.approx(expected.mean(), rel=1e-4)
        assert record["vertex_error_mm"]["p95"] == pytest.approx(
            np.percentile(expected, 95), rel=1e-4
        )


def test_the_curve_over_the_number_of_latents(
    result: dict, train: np.ndarray, test: np.ndarray
) -> None:
    curve = {int(k): value for k, value in result["pca_curve"].items()}
    assert set(curve) == {1, 2, 4}  # the meshes are bent in six ways
    for k, value in curve.items():
        assert value == pytest.approx(distances(by_svd(train, test, k), test).mean(), abs=2e-4)


def test_regions_and_masks_are_pooled_over_their_vertices(
    template: Template, rng: np.random.Generator
) -> None:
    errors = rng.random((7, 60)).astype(np.float32)
    measures = error_measures(template, errors, np.arange(7))
    sizes = {"a": slice(0, 10), "b": slice(10, 30), "c": slice(30, 60), "front": slice(0, 25)}
    for name, where in sizes.items():
        assert measures[f"vertex_error_mm/{name}"]["mean"] == pytest.approx(
            errors[:, where].mean(), rel=1e-5
        )
    weighted = (
        sum(len(range(60)[sizes[n]]) * measures[f"vertex_error_mm/{n}"]["mean"] for n in "abc") / 60
    )
    assert weighted == pytest.approx(measures["vertex_error_mm"]["mean"], rel=1e-6)
    assert measures["mesh_error_mm"]["max"] == pytest.approx(errors.mean(1).max(), rel=1e-5)


def test_specificity_by_another_route(pca: Pca, train: np.ndarray) -> None:
    codes = torch.randn(20, LATENT, generator=torch.Generator().manual_seed(4)).numpy()
    mean = train.astype(np.float64).mean(0)
    flat = (train - mean).reshape(len(train), -1)
    _, values, axes = np.linalg.svd(flat, full_matrices=False)
    axes = axes[:LATENT] * np.sign((axes[:LATENT] * pca.basis.components.numpy()).sum(1))[:, None]
    drawn = mean + ((codes * values[:LATENT] / (len(train) - 1) ** 0.5) @ axes).reshape(20, -1, 3)
    expected = np.mean([min(distances(shape, mesh).mean() for mesh in train) for shape in drawn])
    assert specificity(pca, train, seed=4, samples=20) == pytest.approx(expected, rel=1e-4)


def test_compactness_by_another_route(pca: Pca, train: np.ndarray, test: np.ndarray) -> None:
    shares = compactness(evaluation_of(pca, train, test, np.arange(15)))
    total = ((test - test.astype(np.float64).mean(0)) ** 2).sum()
    expected = [
        1 - ((by_svd(train, test, k) - test) ** 2).sum() / total for k in range(1, LATENT + 1)
    ]
    np.testing.assert_allclose(shares, expected, atol=1e-4)


def test_compactness_of_the_training_meshes_is_the_share_of_the_eigenvalues(
    pca: Pca, train: np.ndarray
) -> None:
    flat = (train - train.astype(np.float64).mean(0)).reshape(len(train), -1)
    values = np.linalg.svd(flat, compute_uv=False) ** 2
    np.testing.assert_allclose(
        compactness(evaluation_of(pca, train, train, np.arange(40))),
        np.cumsum(values)[:LATENT] / values.sum(),
        atol=1e-4,
    )


def test_a_model_that_reproduces_everything_has_no_error(
    template: Template, train: np.ndarray
) -> None:
    whole = Pca.estimate(template, train, {}, PcaConfig(6)).eval()
    found = measure(evaluation_of(whole, train, train, np.arange(40)))
    assert found["model"]["vertex_error_mm"]["max"] < 1e-3
    assert found["model"]["surface_distance_mm"] < 1e-3
    assert found["model"]["self_intersections"] == 0
    assert found["model"]["compactness"][-1] > 0.95


def test_the_surface_is_never_further_than_the_vertex(result: dict) -> None:
    assert 0 < result["model"]["surface_distance_mm"] < result["model"]["vertex_error_mm"]["mean"]


def test_truncating_keeps_the_leading_components(
    pca: Pca, template: Template, train: np.ndarray
) -> None:
    small = Pca.estimate(template, train, {}, PcaConfig(1))
    torch.testing.assert_close(
        pca.truncate(1).basis.components, small.basis.components, atol=1e-5, rtol=1e-4
    )


def test_the_baseline_is_the_pca_of_all_training_meshes(template: Template, tmp_path: Path) -> None:
    data = dataset(template, tmp_path / "many", 2_600).split("frames")
    train, test = data.train.vertices[:], data.test.vertices[:]
    assert len(train) > 2_000
    few = Pca.estimate(template, train[:300], {}, PcaConfig(LATENT)).eval()
    found = Evaluation.of(few, data)
    expected = distances(by_svd(train, test, LATENT), test).mean(1)
    np.testing.assert_allclose(found.mesh_errors["pca"], expected, rtol=1e-3)


# What is measured on what.


@pytest.fixture
def folder(template: Template, tmp_path: Path) -> MeshDataset:
    return dataset(template, tmp_path / "set", 60, subjects=20)


@pytest.fixture
def trained(folder: MeshDataset) -> Pca:
    data = folder.split("subject").train
    made = Pca.estimate(folder.template, data.vertices[:], {}, PcaConfig(LATENT)).eval()
    return made.with_origin(Origin("pca", {"data": str(folder.path), "split": "subject"}))


def test_the_runs_own_split_and_its_test_part_are_the_default(
    trained: Pca, folder: MeshDataset
) -> None:
    provenance = measured(trained, folder).measures["provenance"]
    split = folder.split("subject").split
    assert (provenance["split"], provenance["part"], provenance["split_hash"]) == (
        "subject",
        "test",
        split.hash,
    )
    assert (provenance["meshes"], provenance["subjects"], provenance["train_meshes"]) == (6, 2, 48)
    assert (
        provenance["latent"] == LATENT and provenance["content_hash"] == folder.info["content_hash"]
    )
    other = measured(trained, folder, "frames", "val").measures["provenance"]
    assert (other["split"], other["part"], other["meshes"]) == (
        "frames",
        "val",
        len(folder.split("frames").split.val),
    )
    assert measured(trained, folder, subset="val").measures["provenance"]["part"] == "val"


def test_a_mesh_without_a_subject_is_a_group_of_its_own(
    folder: MeshDataset, tmp_path: Path
) -> None:
    """Not one person of them all, whose interval would have no width and make every claim certain."""
    info = {"source": "nobody", "licence": "none", "unit": "mm"}
    labels = LabelTable({"frame": np.arange(60)}, 60)
    source = MeshSource(folder.template, labels, lambda: iter([folder.vertices[:]]), info)
    data = write_dataset(source, tmp_path / "nobody").split("frames")
    model = Pca.estimate(data.whole.template, data.train.vertices, {}, PcaConfig(1)).eval()
    made = evaluate_model(model, data=data, subset="train")
    count = len(data.train)
    error = made.measures["model"]["mesh_error_mm"]
    assert made.measures["provenance"]["subjects"] == error["groups"] == count
    low, high = error["ci95"]
    assert low < error["mean"] < high and high - low > error["std"] / np.sqrt(count)
    assert len(np.unique(made.evaluation.groups)) == count


def test_the_same_numbers_every_time(trained: Pca, folder: MeshDataset) -> None:
    assert measured(trained, folder).measures == measured(trained, folder).measures


@pytest.mark.parametrize("split", ["subject", "dev", "subject:dev", "a:b:test", ":", "nope:test"])
def test_splits_that_are_none(trained: Pca, folder: MeshDataset, split: str) -> None:
    with pytest.raises(InputError):
        chosen_subset(trained, folder, split)


def test_another_template_is_refused(trained: Pca, tmp_path: Path) -> None:
    other = dataset(ball_template(50), tmp_path / "other", 30)
    with pytest.raises(
        InputError, match=r"its template \(ball, 50 vertices, .*\) is not the model's \(ball, 60"
    ):
        open_dataset(trained, other.path)
    with pytest.raises(InputError, match="does not record its dataset; name one with `data`"):
        open_dataset(trained.with_origin(Origin("pca")), None)


@pytest.mark.parametrize("name", ["model", "model.zip"])
def test_a_model_moved_elsewhere_decodes_the_same_without_its_dataset(
    trained: Pca, folder: MeshDataset, tmp_path: Path, name: str
) -> None:
    meshes = torch.from_numpy(folder.vertices[:5])
    code = trained.encode(meshes)
    expected = trained.decode(code)
    save(trained, tmp_path / "here" / name)
    shutil.move(tmp_path / "here" / name, tmp_path / f"there-{name}")
    shutil.move(folder.path, tmp_path / "away")
    back = load(tmp_path / f"there-{name}")
    assert torch.equal(back.encode(meshes), code) and torch.equal(back.decode(code), expected)
    with pytest.raises(
        InputError, match="the dataset the model was trained on is not there; name one with `data`"
    ):
        open_dataset(back, None)
    moved = measured(back, open_dataset(back, tmp_path / "away")).measures
    assert moved["model"] == measured(trained, load_dataset(tmp_path / "away")).measures["model"]


def test_models_of_points_are_measured_on_simulated_scans(gestures: MeshDataset) -> None:
    model = trained_family("two-space, scans=true", gestures)
    evaluation = Evaluation.of(model.with_origin(Origin("two-space")), all_of(gestures))
    found = scan_errors(evaluation)["model"]["scan_error_mm"]
    shapes = np.asarray(gestures.vertices[:])
    points = torch.from_numpy(scattered(shapes))
    assert points.shape[1] == round(1609 / 4)
    with torch.no_grad():
        rebuilt = model.decode(model.encode_points(points)).numpy()
    assert found["mean"] == pytest.approx(
        np.linalg.norm(rebuilt - shapes, axis=-1).mean(), rel=1e-4
    )
    plain = trained_family("two-space", gestures)
    assert scan_errors(Evaluation.of(plain, all_of(gestures))) == {}
