"""Placement: known maps are found and named, of registered shapes and of clouds; `reconstruct` warns
and fits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from conftest import ball_template
from helpers import in_process, shapes
from morphable.mesh.io import read_mesh, write_mesh
from morphable.mesh.placement import align_cloud, align_shape, placement, refine_cloud
from morphable.mesh.template import Template
from morphable.models.base import Origin
from morphable.models.io import save
from morphable.models.pca import Pca, PcaConfig

NO_FACES = np.zeros((0, 3), np.int64)
CHANGES = {
    "turned": ((90.0, [1, 0, 0]), 1.0, [0, 0, 0], "turned by 90 degrees about x"),
    "turned back": ((-90.0, [1, 0, 0]), 1.0, [0, 0, 0], "turned by 90 degrees about -x"),
    "upside down": ((180.0, [0, 0, 1]), 1.0, [0, 0, 0], "turned by 180 degrees about"),
    "a little turned": ((20.0, [0, 1, 0]), 1.0, [0, 0, 0], "turned by 20 degrees about y"),
    "scaled": ((0.0, [1, 0, 0]), 1.5, [0, 0, 0], "scaled by 1.50"),
    "shifted": ((0.0, [1, 0, 0]), 1.0, [0, 40, 0], "shifted by (0, 40, 0) mm"),
}


@pytest.fixture(scope="module")
def ball() -> Template:
    return ball_template(320)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ball: Template) -> Path:
    """A model, and a mesh that it reconstructs, as it was and changed in each way."""
    place = tmp_path_factory.mktemp("placement")
    meshes = shapes(ball, 40)
    model = Pca.estimate(ball, meshes, {}, PcaConfig(6)).eval().with_origin(Origin("pca"))
    save(model, place / "model")
    write_mesh(place / "as-is.ply", ball.mesh.moved(meshes[3]))
    for name in CHANGES:
        write_mesh(place / f"{name}.ply", ball.mesh.moved(changed(meshes[3], name)))
    return place


def changed(shape: np.ndarray, name: str) -> np.ndarray:
    (degrees, axis), scale, shift, _ = CHANGES[name]
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array(axis)).as_matrix()
    center = shape.mean(0)
    return np.asarray((shape - center) @ turn.T * scale + center + shift, np.float32)


@pytest.mark.parametrize("name", CHANGES)
def test_a_known_change_is_found_and_undone(ball: Template, name: str) -> None:
    vertices = np.asarray(ball.mesh.vertices) * [1.0, 1.4, 0.7]
    other = changed(vertices, name)
    found = align_shape(other, vertices, scale=True)
    np.testing.assert_allclose(found.apply(other), vertices, atol=1e-3)
    (cause,) = placement(found, other, vertices).causes
    assert cause.startswith(CHANGES[name][3])


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "scaled"])
def test_a_cloud_is_brought_back_too(ball: Template, name: str) -> None:
    vertices = np.asarray(ball.mesh.vertices) * [1.0, 1.4, 0.7]
    other = changed(vertices, name)[np.random.default_rng(0).permutation(320)[:250]]
    found = align_cloud(other, vertices)
    back = refine_cloud(other, vertices, found, scale=True).apply(other)
    assert np.linalg.norm(back[:, None] - vertices, axis=-1).min(1).mean() < 0.5


def test_a_bent_finger_does_not_turn_the_palm(ball: Template) -> None:
    vertices = np.asarray(ball.mesh.vertices)
    other = vertices.copy()
    other[:60] += [0, 30, 0]
    found = align_shape(other, vertices)
    np.testing.assert_allclose(found.apply(other)[60:], vertices[60:], atol=0.1)


def test_nothing_unusual_has_no_cause(ball: Template) -> None:
    vertices = np.asarray(ball.mesh.vertices)
    near = vertices * 1.02 + 3
    assert placement(align_shape(near, vertices, scale=True), near, vertices).causes == []


@pytest.mark.parametrize("name", CHANGES)
def test_reconstruct_warns_with_the_cause_and_the_flag_that_mends_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = folder / f"{name}.ply"
    flag = "--fit-scale" if name == "scaled" else "--fit-pose"
    done = in_process(capsys, "reconstruct", folder / "model", file, "--out", tmp_path / "a")
    assert done.code == 0 and done.err.count("note:") == 1
    cause = "scaled by 1." if name == "scaled" else CHANGES[name][3]
    assert all(word in done.err for word in (file.name, cause, flag)), done.err

    done = in_process(capsys, "reconstruct", folder / "model", file, flag, "--out", tmp_path / "b")
    assert done.code == 0 and done.err == ""
    back = read_mesh(tmp_path / "b" / file.name).mesh.vertices
    error = np.linalg.norm(back - read_mesh(folder / "as-is.ply").mesh.vertices, axis=1).mean()
    assert error < 8, "the change is undone up to what the shape differs from the mean"


def test_a_well_placed_mesh_gets_no_warning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "as-is.ply"
    done = in_process(capsys, "reconstruct", folder / "model", file, "--out", tmp_path / "a")
    assert done.code == 0 and done.err == ""


def test_points_on_one_line_have_no_pose(
    folder: Path, ball: Template, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = np.linspace(-60, 60, ball.n_vertices)[:, None] * [1.0, 0, 0]
    write_mesh(tmp_path / "line.ply", ball.mesh.moved(line))
    command = ("reconstruct", folder / "model", tmp_path / "line.ply", "--out")
    assert in_process(capsys, *command, tmp_path / "a").code == 0
    done = in_process(capsys, *command, tmp_path / "b", "--fit-pose")
    assert done.code == 2 and "line.ply: its points lie on one line" in done.err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("scale", [False, True])
def test_a_cloud_whose_points_all_match_one_vertex_stays(ball: Template, scale: bool) -> None:
    vertices = np.asarray(ball.mesh.vertices)
    cloud = vertices[7] * 1.5 + np.random.default_rng(0).normal(size=(80, 3)) * 0.1
    start = align_cloud(cloud, vertices)
    assert np.isfinite(refine_cloud(cloud, vertices, start, scale=scale).apply(cloud)).all()
