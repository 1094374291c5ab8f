"""`morphable fit`: what it writes, and what it refuses in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import morphable
from helpers import Outcome, in_process, shapes, tree
from morphable.data.registered_mesh import write_shape
from morphable.mesh.io import read_vertices, write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.base import Origin
from morphable.models.pca import Pca, PcaConfig


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, ball: Template) -> Path:
    """A model and targets."""
    folder = tmp_path_factory.mktemp("fit")
    model = Pca.estimate(ball, shapes(ball, 40), {}, PcaConfig(4)).eval()
    morphable.save(model.with_origin(Origin("pca")), folder / "model")
    unseen = shapes(ball, 3, seed=7)
    write_shape(folder / "a.ply", unseen[0], ball)
    write_shape(folder / "b.obj", unseen[1], ball)
    rows = np.arange(0, 320, 16)
    table = "".join(
        f"{row},{x},{y},{z}\n" for row, (x, y, z) in zip(rows, unseen[2][rows], strict=True)
    )
    (folder / "few.csv").write_text("vertex,x,y,z\n" + table)
    np.save(folder / "known.npy", np.asarray(ball.mesh.vertices)[:, 1] > 0)
    holes = unseen.copy()
    holes[:, ::4] = np.nan
    np.save(folder / "holes.npy", holes)
    order = np.random.default_rng(0).permutation(320)[:300]
    scan = Mesh(unseen[0][order][:, [1, 2, 0]] + 40, np.zeros((0, 3), np.int64))
    write_mesh(folder / "scan.ply", scan)
    write_mesh(folder / "huge.ply", Mesh(1000 * scan.vertices, scan.faces))
    write_mesh(folder / "far.ply", Mesh(scan.vertices + 5000, scan.faces))
    return folder


def fit(work: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Outcome:
    named = [work / word if (work / word).exists() else word for word in words]
    return in_process(capsys, "fit", work / "model", *named)


def test_every_kind_of_target(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    done = fit(work, capsys, "a.ply", "b.obj", "few.csv", "scan.ply", "--out", str(out))
    assert done.code == 0, done.err
    assert {path.name for path in out.iterdir()} == {"fit.html"} | {
        f"{name}{ending}"
        for name, mesh in (("a", ".ply"), ("b", ".obj"), ("few", ".ply"), ("scan", ".ply"))
        for ending in (mesh, ".json", ".npz")
    }
    record = json.loads((out / "scan.json").read_text())
    assert record["residual_mm"]["mean"] < 1 and len(record["code"]["shape"]) == 4
    arrays = np.load(out / "a.npz")
    assert arrays["uncertainty"].shape == (320,) and arrays["covariance"].shape == (4, 4)
    np.testing.assert_allclose(read_vertices(out / "a.ply"), arrays["vertices"], atol=1e-3)
    assert "20 landmarks" in (out / "fit.html").read_text()


def test_holes_and_masks(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("holes.npy", "--nan-is-missing", "--out", str(tmp_path / "a"))
    assert fit(work, capsys, *words).code == 0
    assert len(list((tmp_path / "a").glob("*.ply"))) == 3
    words = ("a.ply", "--mask", "known.npy", "--format", "glb", "--out", str(tmp_path / "b"))
    assert fit(work, capsys, *words).code == 0
    assert (tmp_path / "b" / "a.glb").exists()


REFUSED = (
    (("huge.ply",), "is the unit right?"),
    (("far.ply", "--pose", "none"), "do not show the same thing"),
    (("holes.npy",), "--nan-is-missing"),
    (("a.ply", "--nan-is-missing"), "not a stack"),
    (("missing.ply",), "no such file"),
    (("a.ply", "--mask", "few.csv"), "expected a number"),
    (("scan.ply", "--mask", "known.npy"), "is not a registered mesh"),
    (("a.ply", "--landmarks", "few.csv"), "is not a scan"),
    (("a.ply", "--noise", "-1"), "--noise -1"),
    (("a.ply", "--prior-weight", "-1"), "--prior-weight -1"),
    (("few.csv", "--unit", "m"), "is the unit right?"),
    (("a.ply", "a.ply"), "two inputs have this name"),
)


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_it_refuses(
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    before = tree(work)
    fit(work, capsys, *words, "--out", str(tmp_path / "out")).refuses(sentence)
    assert tree(work) == before and not list(tmp_path.iterdir())


def test_a_folder_or_an_empty_file(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    fit(work, capsys, str(tmp_path / "empty.csv"), "--out", str(tmp_path / "x")).refuses("empty")
    fit(work, capsys, "a.ply", "--out", str(tmp_path / "full")).refuses("already exists")
    other = tmp_path / "other.csv"
    other.write_text("vertex,x,y,z\n1,0,0,0\n999,50,0,0\n5,0,50,0\n")
    fit(work, capsys, str(other), "--out", str(tmp_path / "x")).refuses("of another template")
    assert not (tmp_path / "x").exists()
