"""`morphable export`: morph targets and linear models of every family, and the command itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import dataset, in_process, shapes, tree
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.export.directions import (
    MESHES_PER_EXPRESSION,
    expressions_of_data,
    latent_steps,
    mean_code,
    region_offsets,
)
from morphable.export.glb import export_glb
from morphable.export.linear import linearized
from morphable.export.page import export_page
from morphable.mesh.automatic_regions import automatic_regions
from morphable.mesh.io import read_mesh
from morphable.mesh.io.linear_model import read_linear_model
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel, Origin
from morphable.models.families import MODELS
from morphable.models.io import save
from morphable.models.pca import Pca, PcaConfig
from morphable.rows import evenly_spread
from test_decoders_in_programs import built
from test_written_meshes import tube

LINEAR = ("pca", "region-pca", "linear-two-space")
DENSE = ("pca-mlp", "ib-vae", "cvae")


def with_regions(plain: Template) -> Template:
    regions = automatic_regions(plain.mesh, 4)
    return Template(plain.mesh, plain.name, plain.uv, plain.uv_faces, regions)


@pytest.mark.parametrize("family", MODELS)
@torch.no_grad()
def test_a_target_at_weight_one_is_the_models_shape(family: str, tmp_path: Path) -> None:
    model = built(family, False)
    steps = latent_steps(model, per_part=2)
    distance = export_glb(model, tmp_path / "a.glb", steps, 1.5, "mm")
    file = read_mesh(tmp_path / "a.glb")
    assert list(file.targets) == [step.name for step in steps]
    for step in steps:
        exact = model.decode((mean_code(model) + 1.5 * step.code)[None])[0].numpy()
        found = file.mesh.vertices + file.targets[step.name]
        np.testing.assert_allclose(found, exact, atol=2e-4)
    assert distance is not None
    if family in LINEAR:
        assert distance.max < 1e-2


@pytest.mark.parametrize("family", MODELS)
def test_a_page_of_every_family_says_how_far_it_is(family: str, tmp_path: Path) -> None:
    model = built(family, False)
    words = export_page(model, tmp_path / "a.html", latent_steps(model, per_part=2)).words
    stated = re.search(r"it is ([\d.e+-]+) mm from the model on average", words)
    assert stated and words.split(".")[0] in (tmp_path / "a.html").read_text()
    if family in (*LINEAR, *DENSE):
        assert float(stated[1]) < 0.01
        assert f"page runs {'it' if family in LINEAR else 'the network of the decoder'}" in words


@pytest.mark.parametrize("family", MODELS)
def test_a_linear_model_is_a_linear_decoder_and_otherwise_says_how_far_it_is(family: str) -> None:
    model = built(family, False)
    linear, distance = linearized(model)
    flat = linear.components.reshape(len(linear.components), -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-6)
    assert f"linearization of a {family} model" in linear.note
    if family in LINEAR:
        assert distance.max < 1e-2 and linear.noise_variance < 1e-6
    assert distance.mean <= distance.movement, "never worse than the mean shape"


def test_the_linear_model_of_pca_is_pca() -> None:
    """Its mean, its components up to sign, its variances."""
    template = ball_template(60)
    model = Pca.estimate(template, shapes(template, 40), {}, PcaConfig(4)).eval()
    linear, _ = linearized(model)
    basis = model.basis
    np.testing.assert_allclose(linear.mean.ravel(), basis.mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(linear.variances, basis.deviations.numpy() ** 2, rtol=1e-4)
    both = linear.components.reshape(4, -1) @ basis.components.numpy().T
    np.testing.assert_allclose(np.abs(both), np.eye(4), atol=1e-3)


def test_a_regions_offset_is_zero_outside_and_moves_it_as_samples_do() -> None:
    template = with_regions(tube())
    model = Pca.estimate(template, shapes(template, 40), {}, PcaConfig(5)).eval()
    found = region_offsets(model, ["r1", "r4"], 2)
    assert [way.name for way in found] == ["r1 1", "r1 2", "r4 1", "r4 2"]
    for way in found:
        inside = template.region(way.name.split()[0])
        assert not np.delete(way.offset, inside, axis=0).any()
        assert np.abs(way.offset[inside]).max() > 0.05
    with pytest.raises(InputError, match="region 'nose': not in this template"):
        region_offsets(model, ["nose"])


def test_an_expression_is_the_mean_step_from_neutral(tmp_path: Path, ball: Template) -> None:
    data: MeshDataset = dataset(ball, tmp_path / "data", count=30)
    model = Pca.estimate(ball, data.vertices, {}, PcaConfig(5)).eval()
    steps = {step.name: step.code for step in expressions_of_data(model, data)}
    assert list(steps) == ["open", "smile"]
    rows = np.flatnonzero(data.labels["expression"] == "smile")
    rows = rows[evenly_spread(len(rows), MESHES_PER_EXPRESSION)]
    neutral = data.labels["neutral"][rows].astype(int)
    with torch.no_grad():
        after, before = (model.encode(torch.from_numpy(data.vertices[r])) for r in (rows, neutral))
    torch.testing.assert_close(steps["smile"], (after - before).mean(0), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PCA of a tube of quads with uv and regions."""
    folder = tmp_path_factory.mktemp("export")
    template = with_regions(tube())
    model = Pca.estimate(template, shapes(template, 40), {}, PcaConfig(5)).eval()
    save(model.with_origin(Origin("pca")), folder / "model")
    ball = ball_template(60)
    bare = Pca.estimate(ball, shapes(ball, 20), {}, PcaConfig(3)).eval()
    save(bare.with_origin(Origin("pca")), folder / "bare")
    return folder


def test_the_command_writes_each_format(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *words: object) -> str:
        out = tmp_path / name
        done = in_process(capsys, "export", model_folder / "model", "--out", out, *words)
        assert done.code == 0, done.err
        return done.out

    said = run("all.glb", "--format", "glb")
    assert "9 morph targets in m: shape 1, shape 2, shape 3, shape 4, shape 5, r1 1" in said
    assert "one latent target at weight 1 is the model's own shape" in said
    whole = read_mesh(tmp_path / "all.glb")
    assert whole.uv is not None and len(whole.targets) == 9
    run("few.glb", "--part", "shape", "--directions", "2", "--scale", "3", "--out-unit", "mm")
    few = read_mesh(tmp_path / "few.glb").targets
    assert list(few) == ["shape 1", "shape 2"]
    ratio = np.abs(few["shape 1"]).max() / np.abs(whole.targets["shape 1"]).max()
    assert ratio == pytest.approx(1500, rel=1e-3), "three deviations, not two; mm, not m"
    run("region.glb", "--region", "r2")
    assert list(read_mesh(tmp_path / "region.glb").targets) == ["r2 1"]

    for name in ("linear.npz", "linear.h5"):
        assert "a linear model of 5 components in mm, " in run(name)
        assert len(read_linear_model(tmp_path / name).variances) == 5
    assert "The decoder is linear" in run("page.html")
    assert "code (B, 5) -> vertices (B, 320, 3), any B" in run("decoder.onnx")
    assert "vertices (B, 320, 3) -> code (B, 5), any B" in run("encoder.onnx", "--encoder")


BAD: tuple[tuple[list[Any], str], ...] = (
    (["--out", "{tmp}/x.stl"], "x.stl: expected the name of a file that ends in .onnx or .glb"),
    (
        ["--out", "{tmp}/x.glb", "--format", "onnx"],
        "expected the name of a file that ends in .onnx",
    ),
    (["--out", "{tmp}/x.glb", "--format", "fbx"], "--format"),
    (["--out", "{tmp}/folder.glb"], "folder.glb: is a folder, expected the name of a file"),
    (["--out", "{tmp}/there.glb"], "there.glb: already exists"),
    (["--out", "{tmp}/there.glb/x.glb"], "cannot be written"),
    (["--out", "{tmp}/x.glb", "--encoder"], "--encoder: is for onnx files, not for glb"),
    (["--out", "{tmp}/x.h5", "--part", "shape"], "--part: is for glb and html files, not for h5"),
    (["--out", "{tmp}/x.html", "--out-unit", "m"], "--out-unit: is for glb files"),
    (["--out", "{tmp}/x.glb", "--part", "pose"], "part 'pose': this model's parts are shape"),
    (["--out", "{tmp}/x.glb", "--region", "nose"], "region 'nose': not in this template"),
    (["--out", "{tmp}/x.glb", "--expression", "smile"], "does not record its dataset"),
    (["--out", "{tmp}/x.glb", "--expression", "all", "--scale", "1"], "--scale: is for parts"),
    (["--out", "{tmp}/x.glb", "--directions", "0"], "--directions 0"),
    (["--out", "{tmp}/x.glb", "--scale", "-1"], "--scale -1"),
)


@pytest.mark.parametrize(("words", "fault"), BAD)
def test_bad_input_is_one_sentence(
    model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    fault: str,
) -> None:
    (tmp_path / "folder.glb").mkdir()
    (tmp_path / "there.glb").touch()
    before = tree(tmp_path)
    filled = [word.format(tmp=tmp_path) for word in words]
    in_process(capsys, "export", model_folder / "model", *filled).refuses(fault)
    assert tree(tmp_path) == before


def test_a_dataset_without_an_expression_is_not_ignored(
    model_folder: Path, tmp_path: Path, ball: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset(ball, tmp_path / "data", count=6)
    words = ["export", model_folder / "model", "--out", tmp_path / "x.glb"]
    in_process(capsys, *words, "--data", tmp_path / "data").refuses("--data: is where --expression")


def test_the_snippet_for_blender_is_python(repository: Path) -> None:
    page = (repository / "docs" / "export.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```py\n(.*?)^```$", page, re.M | re.S)
    compile(snippet, "export.md", "exec")
    assert "import_scene.gltf" in snippet


def test_a_template_without_regions_or_uv(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = ["export", model_folder / "bare", "--out"]
    in_process(capsys, *bare, tmp_path / "x.glb", "--region", "all").refuses("nothing to write")
    in_process(capsys, *bare, tmp_path / "x.html", "--region", "r1").refuses("has no regions")
    assert not list(tmp_path.iterdir())
    assert in_process(capsys, *bare, tmp_path / "x.glb").code == 0
    assert len(read_mesh(tmp_path / "x.glb").targets) == 3


def test_a_model_without_a_prior_says_so(tmp_path: Path) -> None:
    model: MorphableModel = built("pca", False)
    model.prior = None
    for act in (lambda: latent_steps(model), lambda: linearized(model)):
        with pytest.raises(InputError, match="has no prior to sample from"):
            act()
