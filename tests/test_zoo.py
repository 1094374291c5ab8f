"""The models that come with the package: each loads, samples, edits and exports by its name."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import morphable
from conftest import ball_template
from helpers import in_process, shapes
from morphable.data.makers.hands import hand_template
from morphable.errors import InputError
from morphable.mesh.io import read_mesh
from morphable.models.pca import Pca, PcaConfig
from morphable.models.stored import ZOO, zoo_names

MAX_BYTES = 3_000_000


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two hands as mesh files."""
    folder = tmp_path_factory.mktemp("zoo")
    source = morphable.make_source("hands", count=10, seed=2)
    meshes = next(iter(source.blocks()))
    for name, vertices in (("a", meshes[1]), ("b", meshes[7])):
        morphable.write_mesh(folder / f"{name}.ply", source.template.mesh.moved(vertices))
    return folder


def test_the_zoo_is_small_and_of_open_hands_only() -> None:
    assert "zoo:hands" in zoo_names()
    assert sum(path.stat().st_size for path in ZOO.iterdir()) < MAX_BYTES
    for path in ZOO.iterdir():
        with zipfile.ZipFile(path) as archive:
            card = archive.read("README.md").decode()
            description = json.loads(archive.read("model.json"))
        assert description["training_data_licence"] == "CC0-1.0"
        assert "data" not in description["provenance"], "no path of the machine that made it"
        assert "- licence of the training data: CC0-1.0" in card
        assert "- training data: hands: MakeHuman hands" in card
        assert "- error: " in card and "people that training never saw" in card
        assert f"python scripts/make_zoo.py {path.stem}" in card


def test_the_script_makes_every_model_of_the_zoo(repository: Path) -> None:
    sys.path.insert(0, str(repository / "scripts"))
    try:
        import make_zoo
    finally:
        sys.path.pop(0)
    assert sorted(f"zoo:{name}" for name in make_zoo.RECIPES) == zoo_names()
    for name, recipe in make_zoo.RECIPES.items():
        assert morphable.load(f"zoo:{name}").family == recipe.family


@pytest.mark.parametrize("name", zoo_names())
def test_a_model_of_the_zoo_reconstructs_hands(name: str, sampled: Path) -> None:
    model = morphable.load(name)
    assert model.template.fingerprint == hand_template().fingerprint
    vertices = np.stack([read_mesh(sampled / f"{x}.ply").mesh.vertices for x in "ab"])
    meshes = torch.from_numpy(vertices.astype(np.float32))
    error = float((model(meshes) - meshes).norm(dim=-1).mean())
    assert error < 3, "the mean shape is 13 mm off"
    assert model.decode(model.encode(meshes)).dtype == torch.float32


@pytest.mark.parametrize("name", zoo_names())
def test_a_model_of_the_zoo_samples_edits_and_exports(
    name: str, sampled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = sampled / "a.ply", sampled / "b.ply"
    thumb = ("--region", "thumb", "--move", "3:0,0,3")
    commands = (
        ("sample", name, "-n", 2, "--seed", 1, "--out", tmp_path / "samples"),
        ("edit", "interpolate", name, a, b, "--steps", 3, "--out", tmp_path / "between"),
        ("edit", "region", name, a, *thumb, "--out", tmp_path / "moved.ply"),
        ("reconstruct", name, a, "--out", tmp_path / "reconstructed"),
        ("export", name, "--out", tmp_path / "hand.glb"),
        ("export", name, "--out", tmp_path / "hand.html"),
    )
    for words in commands:
        ended = in_process(capsys, *words)
        assert ended.code == 0, (words, ended.err)
    hand = read_mesh(tmp_path / "samples" / "sample-0000.ply").mesh.vertices
    assert 100 < np.linalg.norm(np.ptp(hand, axis=0)) < 400
    moved = read_mesh(tmp_path / "moved.ply").mesh.vertices - read_mesh(a).mesh.vertices
    assert 2 < np.linalg.norm(moved, axis=1).max() < 8


def test_what_the_zoo_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = ", ".join(zoo_names())
    with pytest.raises(InputError, match=f"zoo:faces: no such model, the zoo has {listed}"):
        morphable.load("zoo:faces")
    out = ("--out", tmp_path / "o")
    for words, message in (
        (("sample", "zoo:faces", "-n", 1, *out), f"zoo:faces: no such model, the zoo has {listed}"),
        (("sample", "zoo:../hands", "-n", 1, *out), "zoo:../hands: no such model"),
        (("report", "zoo:hands"), "zoo:hands: not a run folder"),
        (("compare", "zoo:hands", "zoo:hands", *out), "zoo:hands: not a run folder"),
        (("evaluate", "zoo:hands"), "does not record its dataset; name one with --data"),
    ):
        in_process(capsys, *words).refuses(message)
    assert not (tmp_path / "o").exists()


def test_half_precision_takes_half_the_space(tmp_path: Path) -> None:
    ball = ball_template(600)
    model = Pca.estimate(ball, shapes(ball, 40), {}, PcaConfig(6)).eval()
    model = model.with_origin(morphable.Origin("pca"))
    for half in (False, True):
        morphable.save(model, tmp_path / str(half), half=half)
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("False", "True")]
    assert sizes[1] < 0.65 * sizes[0]
    again = morphable.load(tmp_path / "True")
    code = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.decode(code), model.decode(code), atol=0.05, rtol=0)
    assert all(own.dtype == torch.float32 for own in again.state_dict().values())
    morphable.save(again, tmp_path / "again", half=True)
    first, second = (
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("True", "again")
    )
    assert first == second
