import dataclasses

import numpy as np
import pytest

from conftest import ball_template
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.mesh.mesh import Mesh
from morphable.mesh.parameterize import parameterize
from morphable.mesh.topology import boundary_edges, edges
from test_geometry_image import square


def areas(uv: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(T,) signed areas of the triangles in the plane."""
    a, b, c = (uv[triangles[:, k]] for k in range(3))
    return ((b - a)[:, 0] * (c - a)[:, 1] - (c - a)[:, 0] * (b - a)[:, 1]) / 2


@pytest.mark.parametrize("count", [12, 320, 2000])
def test_a_sphere_is_cut_open_and_laid_out_without_folds(count: int) -> None:
    ball = ball_template(count)
    uv, triangles = parameterize(ball.mesh)
    signed = areas(uv, triangles)
    assert (signed > 0).all() or (signed < 0).all()
    # Cut along a path of k edges, a sphere becomes a disc with a border of 2 k edges.
    border = boundary_edges(triangles)
    assert len(uv) - count == len(border) // 2 - 1
    assert len(uv) - len(edges(triangles)) + len(triangles) == 1
    # Every corner is still that of the mesh, except for the copies along the cut.
    own = triangles < count
    assert (triangles[own] == ball.mesh.triangles[own]).all()


def test_a_tetrahedron_is_cut_along_two_edges() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    mesh = Mesh(points, np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]))
    uv, triangles = parameterize(mesh)
    assert uv.shape == (5, 2)
    assert len(boundary_edges(triangles)) == 4
    signed = areas(uv, triangles)
    assert (signed > 0).all() or (signed < 0).all()


def test_a_disc_keeps_its_vertices_and_its_border_is_convex() -> None:
    mesh = square(8, bump=0.4).mesh
    uv, triangles = parameterize(mesh)
    assert uv.shape == (81, 2)
    assert (areas(uv, triangles) > 0).all()
    border = np.unique(boundary_edges(triangles))
    np.testing.assert_allclose((uv[border] ** 4).sum(axis=1), 1, atol=1e-9)


def test_a_flat_square_of_one_inner_vertex_by_hand() -> None:
    """By symmetry, the middle vertex of a symmetric fan stays in the middle."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 0]])
    fan = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    uv, _ = parameterize(Mesh(corners, fan))
    np.testing.assert_allclose(uv[4], 0, atol=1e-6)


def test_holes_are_closed_and_opened_again() -> None:
    mesh = square(10, bump=0.2).mesh
    holes = np.isin(np.arange(100), [23, 66, 67])
    uv, triangles = parameterize(Mesh(mesh.vertices, mesh.faces[~holes]))
    assert len(uv) == mesh.vertices.shape[0]
    assert len(triangles) == 2 * 97
    assert (areas(uv, triangles) > 0).all()


def test_the_stretch_is_lower_than_of_plain_weights(hands: MeshDataset) -> None:
    """A hand has fingers, which plain weights shrink to nothing."""
    uv, triangles = parameterize(hands.template.mesh)
    share = np.abs(areas(uv, triangles))
    p, q, r = (hands.template.mesh.vertices[triangles[:, k]] for k in range(3))
    surface = np.linalg.norm(np.cross(q - p, r - p), axis=1)
    ratio = (share / share.sum()) / (surface / surface.sum())
    assert np.median(ratio) > 0.05


def test_other_surfaces_are_refused(hands: MeshDataset) -> None:
    mesh = hands.template.mesh
    two = np.concatenate([mesh.vertices, mesh.vertices + 300])
    faces = np.concatenate([mesh.faces, np.where(mesh.faces >= 0, mesh.faces + 1609, -1)])
    with pytest.raises(InputError, match="its surface has 2 pieces; add texture coordinates"):
        parameterize(Mesh(two, faces))

    n = 8  # a torus of 8 x 8 quads
    i, j = np.meshgrid(range(n), range(n), indexing="ij")
    ring = lambda a, b: ((a % n) * n + b % n).ravel()  # noqa: E731
    quads = np.stack([ring(i, j), ring(i + 1, j), ring(i + 1, j + 1), ring(i, j + 1)], axis=1)
    points = np.random.default_rng(0).normal(size=(n * n, 3))
    with pytest.raises(InputError, match="handles or tunnels"):
        parameterize(Mesh(points, quads))

    wings = Mesh(np.eye(5)[:, :3], np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))
    with pytest.raises(InputError, match="not manifold"):
        parameterize(wings)


def test_the_map_is_the_same_every_time(ball_again: int = 320) -> None:
    first, second = (parameterize(ball_template(ball_again).mesh)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_moved_or_larger_mesh_has_the_same_map() -> None:
    ball = ball_template(320)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    moved = dataclasses.replace(ball, mesh=ball.mesh.moved(7 * ball.mesh.vertices @ turn + 5))
    np.testing.assert_allclose(parameterize(ball.mesh)[0], parameterize(moved.mesh)[0], atol=1e-6)
