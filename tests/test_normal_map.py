"""Normal maps: each pixel is the direction of the surface that is seen there."""

from __future__ import annotations

import numpy as np

from morphable.draw.normal_map import NormalMaps
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template


def test_a_plate_faces_the_viewer() -> None:
    """A flat square, seen along its shortest axis, has one normal; the background is zero."""
    vertices = np.array([[0, 0, 0], [10, 0, 0], [10, 20, 0], [0, 20, 0]], float)
    template = Template(Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]])), "plate")
    maps = NormalMaps.of(template, [vertices], 16)
    image = maps.draw(vertices[None].astype(np.float32))[0]
    covered = np.abs(image).sum(0) > 0
    assert 0 < covered.sum() < covered.size
    assert np.allclose(image[:2, covered], 0, atol=1e-6)
    assert np.allclose(np.abs(image[2, covered]), 1)


def test_normals_of_a_ball_are_unit_and_point_outward(ball: Template) -> None:
    image = NormalMaps.of(ball, [], 32).draw(ball.mesh.vertices[None].astype(np.float32))[0]
    length = np.linalg.norm(image, axis=0)
    seen = length > 0
    assert np.allclose(length[seen], 1, atol=1e-5)
    assert (image[2, seen] > -0.2).all(), "what is seen faces the viewer"
    columns = np.broadcast_to(np.arange(32), (32, 32))
    left, right = seen & (columns < 10), seen & (columns > 21)
    assert image[0, left].mean() < 0 < image[0, right].mean()


def test_a_shape_does_not_depend_on_its_batch(ball: Template) -> None:
    shapes = np.stack([ball.mesh.vertices * scale for scale in (0.8, 1.0, 0.9)]).astype(np.float32)
    maps = NormalMaps.of(ball, list(shapes), 24)
    together = maps.draw(shapes)
    assert together.shape == (3, 3, 24, 24) and together.dtype == np.float32
    for number, shape in enumerate(shapes):
        assert np.array_equal(maps.draw(shape[None])[0], together[number])


def test_a_fine_mesh_is_drawn_by_fewer_triangles(ball: Template) -> None:
    fine, coarse = NormalMaps.of(ball, [], 64), NormalMaps.of(ball, [], 16)
    assert len(coarse.kept) < len(fine.kept) == ball.n_vertices
    shape = ball.mesh.vertices[None].astype(np.float32)
    full = NormalMaps(coarse.camera, fine.kept, fine.triangles, fine.incidence, coarse.size).draw(
        shape
    )[0]
    drawn = coarse.draw(shape)[0]
    both = (np.abs(full).sum(0) > 0) & (np.abs(drawn).sum(0) > 0)
    assert both.sum() > 0.9 * (np.abs(full).sum(0) > 0).sum()
    assert (full * drawn).sum(0)[both].mean() > 0.9
