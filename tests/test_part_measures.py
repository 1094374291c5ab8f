"""Measures of parts that a model found by itself, the sections that show them, and the commands
that use them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import all_of, html_of, in_process, report_context
from morphable.data.dataset import MeshDataset, SplitDataset, load_dataset, write_dataset
from morphable.data.makers import make_source
from morphable.data.registered_mesh import read_registered, write_shape
from morphable.edit.mask import part_mask
from morphable.errors import InputError
from morphable.evaluate.evaluation import Evaluation
from morphable.evaluate.part_measures import (
    Diversity,
    _mixtures,
    locality,
    overlap,
    part_measures,
)
from morphable.mesh.regions import regions_of_weights
from morphable.models.families import create
from morphable.models.io import save
from morphable.models.local_weights import LocalWeights
from morphable.models.pca import Pca, PcaConfig
from morphable.report.part_sections import (
    diversity_plot,
    part_interpolations,
    part_weights,
)

pytestmark = pytest.mark.usefixtures("small_pictures")


def untrained(dataset: MeshDataset, **settings: Any) -> LocalWeights:
    torch.manual_seed(0)
    model = create("local-weights", dataset.template, **({"latent": 6, "parts": 3} | settings))
    assert isinstance(model, LocalWeights)
    model.initialize(dataset.vertices)
    return model.eval()


@pytest.fixture(scope="module")
def model(hands: MeshDataset) -> LocalWeights:
    return untrained(hands)


@pytest.fixture(scope="module")
def data(hands: MeshDataset) -> SplitDataset:
    return hands.split("subject")


# Measures.


def test_locality_by_hand(hands: MeshDataset) -> None:
    """Two parts with disjoint weights move nothing outside, and equal parts as much outside as
    inside.
    """
    model = untrained(hands, parts=2)
    codes = torch.randn(8, model.parts.size, generator=torch.Generator().manual_seed(0))
    groups = np.arange(8)
    model.decoder.weights.fill_(0.5)
    assert locality(model, codes, groups)["part_locality"]["mean"] == pytest.approx(1, abs=1e-5)

    model.decoder.weights.zero_()
    model.decoder.weights[:500, 0] = 1
    model.decoder.weights[500:, 1] = 1
    assert locality(model, codes, groups)["part_locality"]["mean"] > 1e6


def test_locality_of_one_pair_computed_anew(model: LocalWeights) -> None:
    codes = torch.randn(2, model.parts.size, generator=torch.Generator().manual_seed(1))
    measured = locality(model, codes, np.arange(2))
    weights = model.weights.astype(np.float64)
    for number, part in enumerate(model.parts):
        swapped = codes.clone()
        swapped[:, model.parts[part]] = codes.flip(0)[:, model.parts[part]]
        with torch.no_grad():
            away = (model.decode(swapped) - model.decode(codes)).norm(dim=-1).numpy()
        own = weights[:, number]
        inside, outside = away @ own / own.sum(), away @ (1 - own) / (1 - own).sum()
        expected = inside.mean() / outside.mean()
        assert measured[f"part_locality/{part}"]["mean"] == pytest.approx(expected, rel=1e-4)


def test_overlap_by_hand() -> None:
    assert overlap(np.array([[1.0, 0], [0, 1]])) == 0
    assert overlap(np.full((5, 3), 1 / 3)) == pytest.approx(1)
    assert overlap(np.array([[0.75, 0.25], [0, 1.0]])) == pytest.approx(2 * 0.25 / 2)
    assert overlap(np.ones((4, 1))) == 0


def test_the_space_of_codes_by_hand() -> None:
    rng = np.random.default_rng(0)
    training = rng.normal(size=(200, 5)) * [4, 3, 1, 1, 1]
    space = Diversity(training, training[::2], 2 * training, training)
    assert space.area(training) == pytest.approx(1)
    assert space.area(2 * training) == pytest.approx(4)
    assert space.spread(2 * training) == pytest.approx(2)
    assert space.coverage(training) == 1
    assert space.coverage(training[:1] + 100) == 0
    assert space.novelty(training[::2] + 50) > 1


@pytest.fixture(scope="module")
def measures(model: LocalWeights, data: SplitDataset) -> dict[str, Any]:
    return part_measures(Evaluation.of(model, data))


def test_measures_of_a_model(measures: dict[str, Any]) -> None:
    found = measures["model"]
    assert {"part_locality/0", "part_locality/2", "dead_parts", "part_overlap"} <= set(found)
    low, high = found["synthesis_area"]["ci95"]
    assert low <= found["synthesis_area"]["mean"] <= high
    assert 0 <= found["synthesis_coverage"]["mean"] <= 1
    assert 0 <= found["mixture_coverage"]["mean"] <= 1


def test_mixtures_take_every_part_from_a_mesh_of_its_own() -> None:
    codes = torch.arange(24.0).reshape(4, 6)
    mixed = _mixtures(codes, 3, torch.Generator().manual_seed(0))
    for part in range(3):
        place = slice(2 * part, 2 * part + 2)
        rows = {tuple(row) for row in codes[:, place].tolist()}
        assert {tuple(row) for row in mixed[:, place].tolist()} == rows
    assert not torch.equal(mixed, codes)


def test_models_without_parts_have_none(hands: MeshDataset, data: SplitDataset) -> None:
    pca = Pca.estimate(hands.template, hands.vertices, {}, PcaConfig(4)).eval()
    assert part_measures(Evaluation.of(pca, data)) == {}
    context = report_context(pca, all_of(hands))
    for section in (part_weights, part_interpolations, diversity_plot):
        assert section(context) is None


# The report.


def test_the_sections_of_a_report(
    model: LocalWeights, data: SplitDataset, measures: dict[str, Any]
) -> None:
    context = report_context(model, data, measures)
    weights = html_of(part_weights(context))
    assert weights.count("<img") == 3 * (1 + 3), "three sides of all parts and of each"
    assert "How local the parts are" in weights and "relative error of" in weights

    ways = html_of(part_interpolations(context))
    assert ways.count("<img") == 2 + 3 * (8 + 1), "1/9 to 8/9 and the distance, for each part"
    assert "8/9" in ways and "Hausdorff" in ways

    space = html_of(diversity_plot(context))
    assert space.count("<svg") == 2, "by PCA and by t-SNE"
    assert "syntheses" in space and "coverage" in space


# The commands.


@pytest.fixture(scope="module")
def saved(
    model: LocalWeights, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path, Path]:
    """A model, a dataset of its template, and two of its meshes."""
    folder = tmp_path_factory.mktemp("parts")
    data = write_dataset(make_source("hands", count=40, seed=5), folder / "data", 5)
    save(model, folder / "model")
    meshes = []
    for number in range(2):
        meshes.append(folder / f"{number}.ply")
        write_shape(meshes[-1], np.asarray(data.vertices[number]), model.template)
    return folder / "model", folder / "data", meshes[0], meshes[1]


def test_random_part_syntheses(
    saved: tuple[Path, ...], model: LocalWeights, tmp_path: Path, capsys: Any
) -> None:
    path, data, *_ = saved
    options = ["--data", data, "--split", "frames:train", "--sources", 2, "--targets", 3]
    done = in_process(
        capsys, "edit", "synthesize", path, *options, "--part", 1, "--out", tmp_path / "one"
    )
    assert done.code == 0, done.err
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == 2 * 3

    source, target = (int(word) for word in files[0].stem.split("-with-1-of-"))
    meshes = load_dataset(data).vertices
    with torch.no_grad():
        codes = model.encode(
            torch.from_numpy(np.stack([meshes[source], meshes[target]]).astype(np.float32))
        )
        codes[0, model.parts["1"]] = codes[1, model.parts["1"]]
        expected = model.decode(codes[:1])[0].numpy()
    written = read_registered(files[0], model.template)
    np.testing.assert_allclose(np.asarray(written), expected, atol=1e-3)

    every = tmp_path / "every"
    assert in_process(capsys, "edit", "synthesize", path, *options, "--out", every).code == 0
    assert len(list(every.iterdir())) == 2 * 3 * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sources", 0], "--sources 0: expected at least 1"),
        (["--sources", 400], "expected at most"),
        (["--part", "nose"], "nose"),
    ],
)
def test_impossible_syntheses(
    saved: tuple[Path, ...], tmp_path: Path, capsys: Any, options: list[Any], words: str
) -> None:
    path, data, *_ = saved
    done = in_process(
        capsys, "edit", "synthesize", path, "--data", data, *options, "--out", tmp_path / "no"
    )
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "no").exists()


def test_a_mask_keeps_the_rest_of_the_mesh(
    saved: tuple[Path, ...], model: LocalWeights, tmp_path: Path, capsys: Any
) -> None:
    path, _, a, b = saved
    done = in_process(
        capsys,
        "edit",
        "interpolate",
        *(path, a, b, "--steps", 2),
        *("--mask", f"{path}:0", "--out", tmp_path / "way"),
    )
    assert done.code == 0, done.err
    first, last = (
        np.asarray(read_registered(file, model.template))
        for file in sorted((tmp_path / "way").iterdir())
    )
    mask = part_mask(model, "0", model.template)
    np.testing.assert_allclose(first, np.asarray(read_registered(a, model.template)), atol=1e-3)
    moved = np.linalg.norm(last - first, axis=1)
    assert moved[mask == 0].max(initial=0) == 0
    assert moved.max() > 0
    wrong = in_process(
        capsys, "edit", "interpolate", path, a, b, "--mask", path, "--out", tmp_path / "no"
    )
    assert wrong.code == 2 and "expected MODEL:PART" in wrong.err


def test_a_part_of_each_of_several_meshes(
    saved: tuple[Path, ...], tmp_path: Path, capsys: Any
) -> None:
    path, _, a, b = saved
    parts = ["--part", f"0={b}", "--part", f"2={b}"]
    done = in_process(capsys, "edit", "combine", path, a, *parts, "--out", tmp_path / "c.ply")
    assert done.code == 0, done.err


def test_regions_of_weights(saved: tuple[Path, ...], model: LocalWeights, capsys: Any) -> None:
    path, data, *_ = saved
    done = in_process(capsys, "data", "regions", data, "--from-weights", path)
    assert done.code == 0, done.err
    regions = load_dataset(data).template.regions
    assert regions is not None and tuple(regions.names) == ("part-0", "part-1", "part-2")
    expected = regions_of_weights(model.template.mesh, model.weights, regions.names)
    assert (regions.labels == expected.labels).all()
    agree = regions.labels == model.weights.argmax(1)
    assert agree.mean() > 0.6, "pieces away from a part's largest one go to their neighbors"
    both = in_process(capsys, "data", "regions", data, "--from-weights", path, "--count", 5)
    assert both.code == 2 and "use one of them" in both.err


def test_masks_of_other_models_are_refused(hands: MeshDataset, model: LocalWeights) -> None:
    pca = Pca.estimate(hands.template, hands.vertices, {}, PcaConfig(4)).eval()
    with pytest.raises(InputError, match="has no weights of parts"):
        part_mask(pca, "0", hands.template)
    with pytest.raises(InputError, match="9"):
        part_mask(model, "9", hands.template)
