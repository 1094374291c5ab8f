"""Extrapolation and deformation transfer: laws of codes, and for a linear model exactly linear in
the shapes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import in_process, shapes
from morphable.data.registered_mesh import write_shape
from morphable.edit.code import interpolate, transfer
from morphable.errors import InputError
from morphable.mesh.io import read_mesh
from morphable.models.base import Origin
from morphable.models.io import save
from morphable.models.parts import Parts
from morphable.models.pca import Pca, PcaConfig

PARTS = Parts.of(identity=2, expression=3)
FEW = 3


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PCA model of three components, fewer than the shapes have, and three shapes as files."""
    root, template = tmp_path_factory.mktemp("edit"), ball_template(60)
    meshes = shapes(template, 40)
    model = Pca.estimate(template, meshes, {}, PcaConfig(FEW))
    save(model.eval().with_origin(Origin("pca")), root / "m")
    for name, mesh in zip(("s0", "s1", "t0"), shapes(template, 3, seed=9), strict=True):
        write_shape(root / f"{name}.ply", mesh, template)
    return root


def projected(work: Path) -> dict[str, np.ndarray]:
    """Each file's shape on the plane of the principal components, found by an SVD of the training
    shapes.
    """
    data = shapes(ball_template(60), 40).reshape(40, -1).astype(np.float64)
    mean = data.mean(0)
    basis = np.linalg.svd(data - mean, full_matrices=False)[2][:FEW]
    found = {}
    for name in ("s0", "s1", "t0"):
        vertices = read_mesh(work / f"{name}.ply").mesh.vertices.reshape(-1)
        found[name] = (mean + basis.T @ (basis @ (vertices - mean))).reshape(-1, 3)
    return found


def vertices(path: Path) -> np.ndarray:
    return read_mesh(path).mesh.vertices


def test_a_transfer_by_hand() -> None:
    s0, s1, t0 = (
        torch.tensor(row) for row in ([1.0, 2, 3, 4, 5], [2.0, 2, 5, 4, 9], [10.0, 20, 30, 40, 50])
    )
    assert transfer(PARTS, s0, s1, t0).tolist() == [11, 20, 32, 40, 54]
    assert transfer(PARTS, s0, s1, t0, "identity").tolist() == [11, 20, 30, 40, 50]
    assert transfer(PARTS, s0, s1, t0, "expression").tolist() == [10, 20, 32, 40, 54]
    with pytest.raises(
        InputError, match="part 'pose': this model's parts are identity, expression"
    ):
        transfer(PARTS, s0, s1, t0, "pose")


def test_laws_of_transfer() -> None:
    a, b, c, d = torch.randn(4, 7, 5)
    torch.testing.assert_close(transfer(PARTS, a, a, c), c)
    torch.testing.assert_close(transfer(PARTS, a, b, a), b)
    there = transfer(PARTS, a, b, c)
    torch.testing.assert_close(transfer(PARTS, b, a, there), c)
    torch.testing.assert_close(transfer(PARTS, b, d, there), transfer(PARTS, a, d, c))
    parts = transfer(PARTS, a, b, transfer(PARTS, a, b, c, "identity"), "expression")
    torch.testing.assert_close(parts, there)


def test_extrapolation_is_the_line_gone_on() -> None:
    a, b = torch.randn(2, 5)
    double = interpolate(PARTS, a, b, torch.tensor([2.0]))[0]
    torch.testing.assert_close(double, transfer(PARTS, a, b, b))
    torch.testing.assert_close(
        interpolate(PARTS, a, b, torch.tensor([-1.0]))[0], transfer(PARTS, b, a, a)
    )


def test_a_linear_models_transfer_is_linear_in_the_shapes(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [work / f"{name}.ply" for name in ("s0", "s1", "t0")]
    ended = in_process(capsys, "edit", "transfer", work / "m", *files, "--out", tmp_path / "t1.ply")
    assert ended.code == 0, ended.err
    plane = projected(work)
    expected = plane["t0"] + plane["s1"] - plane["s0"]
    assert np.abs(expected - plane["t0"]).max() > 1, "something was transfer"
    np.testing.assert_allclose(vertices(tmp_path / "t1.ply"), expected, atol=2e-3)


def test_a_linear_models_extrapolation_is_a_straight_line(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["edit", "extrapolate", work / "m", work / "s0.ply", work / "s1.ply"]
    assert in_process(capsys, *command, "--out", tmp_path / "x").code == 0
    files = sorted((tmp_path / "x").iterdir())
    plane, positions = projected(work), np.linspace(-1, 2, 13)
    assert len(files) == 13 and positions[4] == 0 and positions[8] == 1
    for path, t in zip(files, positions, strict=True):
        np.testing.assert_allclose(
            vertices(path), plane["s0"] + t * (plane["s1"] - plane["s0"]), atol=3e-3
        )
    chosen = ["--from", -0.5, "--to", 3, "--steps", 2]
    assert in_process(capsys, *command, *chosen, "--out", tmp_path / "y").code == 0
    first, last = (vertices(tmp_path / "y" / f"step-00{i}.ply") for i in (0, 1))
    np.testing.assert_allclose(first, 1.5 * plane["s0"] - 0.5 * plane["s1"], atol=3e-3)
    np.testing.assert_allclose(last, 3 * plane["s1"] - 2 * plane["s0"], atol=5e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["extrapolate", "s0.ply", "s1.ply", "--from", "1", "--to", "1"],
            "expected two different numbers",
        ),
        (["extrapolate", "s0.ply", "s1.ply", "--to", "inf"], "expected two different numbers"),
        (["extrapolate", "s0.ply", "s1.ply", "--steps", "1"], "--steps 1: expected at least 2"),
        (["extrapolate", "s0.ply", "s1.ply", "--part", "pose"], "part 'pose'"),
        (["transfer", "s0.ply", "s1.ply", "none.ply"], "none.ply: no such file"),
        (["transfer", "s0.ply", "s1.ply", "t0.ply", "--part", "pose"], "part 'pose'"),
    ],
)
def test_what_cannot_be_done_is_said(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    command, *rest = [str(work / word) if word.endswith(".ply") else word for word in words]
    in_process(capsys, "edit", command, work / "m", *rest, "--out", tmp_path / "o.ply").refuses(
        message
    )
    assert not (tmp_path / "o.ply").exists()


def test_nothing_is_overwritten(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [work / f"{name}.ply" for name in ("s0", "s1", "t0")]
    (tmp_path / "mine.ply").write_text("mine")
    ended = in_process(
        capsys, "edit", "transfer", work / "m", *files, "--out", tmp_path / "mine.ply"
    )
    ended.refuses("mine.ply: already exists")
    assert (tmp_path / "mine.ply").read_text() == "mine"
