"""Polygons with more than four corners: triangulated for geometry, kept for export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import dataset, in_process, shapes
from morphable.data.dataset import load_dataset, write_dataset
from morphable.data.importers.folder import folder
from morphable.data.registered_mesh import read_registered, write_shape
from morphable.mesh.io import read_mesh, write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.mesh.topology import boundary_edges, half_edges, triangulate


def area(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Signed areas (T,) of triangles in the plane z = 0."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    return np.cross(b - a, c - a)[:, 2] / 2


@pytest.mark.parametrize("n", [5, 6, 11, 40])
@pytest.mark.parametrize("kind", ["round", "star", "comb"])
def test_triangles_fill_a_polygon_exactly(n: int, kind: str, rng: np.random.Generator) -> None:
    """Also a concave one: no triangle is turned over, and the outline is the polygon's."""
    angle = np.arange(n) * 2 * np.pi / n
    radius = np.ones(n) if kind == "round" else np.where(np.arange(n) % 2, 0.3, 1.0)
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)
    if kind == "comb":
        x = np.linspace(0, 1, n - 2)
        top = np.stack([x, np.where(np.arange(n - 2) % 2, 0.1, 1.0), 0 * x], axis=1)[::-1]
        vertices = np.concatenate([[[0, -0.1, 0], [1, -0.1, 0]], top])
    order = rng.permutation(n)
    place = np.argsort(order)
    triangles = triangulate(place[None], vertices[order])
    assert triangles.shape == (n - 2, 3)
    areas = area(vertices[order], triangles)
    x, y = vertices[:, 0], vertices[:, 1]
    whole = 0.5 * (x @ np.roll(y, -1) - y @ np.roll(x, -1))
    assert (areas > -1e-12).all()
    np.testing.assert_allclose(areas.sum(), whole)
    outline = np.sort(half_edges(place[None]), axis=1)
    assert {*map(tuple, boundary_edges(triangles))} == {*map(tuple, outline)}


def test_a_mixture_is_split_in_face_order() -> None:
    faces = np.array([[0, 1, 2, 3, 4], [5, 6, 7, -1, -1], [4, 5, 6, 7, -1]])
    expected = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [5, 6, 7], [4, 5, 6], [4, 6, 7]]
    assert triangulate(faces).tolist() == expected
    sides = half_edges(faces)
    assert len(sides) == 12 and sides[4].tolist() == [4, 0] and sides[7].tolist() == [7, 5]


def disc(n: int = 26) -> Template:
    """A bowl of quads whose bottom is one hexagon, and which has one triangle."""
    rings = np.arange(n // 2) + 1.0
    angle = np.arange(6) * np.pi / 3
    vertices = np.stack(
        [
            np.outer(rings, np.cos(angle)),
            np.outer(rings, np.sin(angle)),
            np.repeat(rings[:, None] ** 1.5, 6, axis=1),
        ],
        axis=-1,
    ).reshape(-1, 3)
    inner = 6 * np.arange(len(rings) - 1)[:, None] + np.arange(6)
    following = inner - np.arange(6) + (np.arange(6) + 1) % 6
    quads = np.stack([inner, inner + 6, following + 6, following], axis=-1).reshape(-1, 4)
    faces = np.concatenate(
        [np.arange(6)[None], np.pad(quads, ((0, 0), (0, 2)), constant_values=-1)]
    )
    faces[-1, 3] = -1
    return Template(Mesh(10 * vertices, faces), "bowl")


@pytest.mark.parametrize("suffix", ["obj", "ply", "off", "glb"])
def test_a_folder_of_polygons(tmp_path: Path, suffix: str) -> None:
    """Read, kept in the dataset and in what is written; a GLB of their triangles fits them."""
    template = disc()
    (tmp_path / "raw").mkdir()
    for row, mesh in enumerate(shapes(template, 4)):
        write_mesh(tmp_path / "raw" / f"{row}.obj", Mesh(mesh, template.mesh.faces))
    write_dataset(folder(tmp_path / "raw", unit="mm"), tmp_path / "set")
    loaded = load_dataset(tmp_path / "set")
    np.testing.assert_array_equal(loaded.template.mesh.faces, template.mesh.faces)
    path = tmp_path / f"a.{suffix}"
    write_shape(path, loaded.vertices[2], loaded.template)
    tolerance = 1e-6 if suffix == "glb" else 0  # the file is in meters
    found = read_registered(path, template)
    np.testing.assert_allclose(found, loaded.vertices[2], rtol=tolerance)
    if suffix != "glb":
        np.testing.assert_array_equal(read_mesh(path).mesh.faces, template.mesh.faces)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_polygons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From training to a written mesh."""
    template = disc(260)
    dataset(template, tmp_path / "set", 30, subjects=10)
    train = ("train", "coma", "--data", tmp_path / "set", "--out", tmp_path / "run")
    assert in_process(capsys, *train, "--epochs", 1).code == 0
    assert in_process(capsys, "evaluate", tmp_path / "run").code == 0
    sample = ("sample", tmp_path / "run", "-n", 1, "--out", tmp_path / "out")
    assert in_process(capsys, *sample).code == 0
    (found,) = (tmp_path / "out").glob("*.ply")
    np.testing.assert_array_equal(read_mesh(found).mesh.faces, template.mesh.faces)
    info = in_process(capsys, "data", "info", tmp_path / "set")
    assert "(773 quads, 1 larger)" in info.out
