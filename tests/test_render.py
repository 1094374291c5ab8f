"""Pictures: the z-buffer against a loop over pixels, the camera against its definition, colors,
strips and PNG.
"""

from __future__ import annotations

import io
import time

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from morphable.draw.camera import Camera, view_for
from morphable.draw.colors import UNDYED, css, heat_colors, region_colors
from morphable.draw.pictures import RING_COLOR, png, ringed, sheet, webp
from morphable.draw.render import render
from morphable.errors import InputError
from morphable.mesh.mesh import Mesh
from morphable.mesh.raster import rasterize
from morphable.mesh.template import Template

FRONT = Camera(np.eye(3), np.zeros(3), np.array([10.0, 10.0]))


def sphere(rings: int = 24, radius: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and outward triangles of a closed sphere."""
    polar, around = (
        np.linspace(0, np.pi, rings + 1),
        np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False),
    )
    p, a = np.meshgrid(polar, around, indexing="ij")
    vertices = radius * np.stack(
        [np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)], -1
    ).reshape(-1, 3)
    index = np.arange(len(vertices)).reshape(rings + 1, 2 * rings)
    ahead = np.roll(index, -1, axis=1)
    first = np.stack([index[:-1], index[1:], ahead[:-1]], -1).reshape(-1, 3)
    second = np.stack([ahead[:-1], index[1:], ahead[1:]], -1).reshape(-1, 3)
    return vertices, np.concatenate([first, second])


def by_loops(points: np.ndarray, triangles: np.ndarray, width: int, height: int) -> np.ndarray:
    """(h, w) nearest triangle of each pixel, -1 for none: barycentric coordinates pixel by pixel."""
    nearest, depth = np.full((height, width), -1), np.full((height, width), -np.inf)
    for number, corners in enumerate(points[triangles]):
        system = np.stack([*corners[:, :2].T, np.ones(3)])
        if abs(np.linalg.det(system)) < 1e-9:
            continue
        for row in range(height):
            for column in range(width):
                weights = np.linalg.solve(system, [column + 0.5, row + 0.5, 1])
                if weights.min() >= 0 and weights @ corners[:, 2] >= depth[row, column]:
                    nearest[row, column], depth[row, column] = number, weights @ corners[:, 2]
    return nearest


def picture_of(points: np.ndarray, triangles: np.ndarray, width: int, height: int) -> np.ndarray:
    seen = rasterize(points, triangles, width, height)
    picture = np.full(width * height, -1)
    picture[seen.pixel] = seen.triangle
    return picture.reshape(height, width)


def test_one_triangle_covers_the_pixels_whose_centers_it_holds() -> None:
    points = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0]], float)
    expected = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]) - 1
    for order in ([0, 1, 2], [2, 1, 0]):
        assert np.array_equal(picture_of(points, np.array([order]), 5, 4), expected)


def test_weights_and_depth_by_hand() -> None:
    points = np.array([[0, 0, 0], [4, 0, 4], [0, 4, 8]], float)
    seen = rasterize(points, np.array([[0, 1, 2]]), 4, 4)
    at = np.flatnonzero(seen.pixel == 1 * 4 + 1)[0]
    assert np.allclose(seen.weights[at], [0.25, 0.375, 0.375])
    assert np.isclose(seen.depth[at], 0.375 * 4 + 0.375 * 8)


def test_the_nearer_triangle_is_seen_whatever_the_order() -> None:
    near, far = [[1, 1, 5], [5, 1, 5], [1, 5, 5]], [[0, 0, 1], [8, 0, 1], [0, 8, 1]]
    for points, nearest in ((np.array(near + far, float), 0), (np.array(far + near, float), 1)):
        picture = picture_of(points, np.array([[0, 1, 2], [3, 4, 5]]), 8, 8)
        assert picture[2, 2] == nearest and picture[0, 0] == 1 - nearest


def test_crossing_triangles_agree_with_a_loop_over_pixels() -> None:
    random = np.random.default_rng(4)
    points = random.uniform(-3, 15, (30, 3))
    triangles = random.integers(0, 30, (24, 3))
    triangles = np.concatenate([triangles, [[0, 0, 1], [2, 2, 2]]])
    assert np.array_equal(
        picture_of(points, triangles, 12, 11), by_loops(points, triangles, 12, 11)
    )


def test_neighbors_leave_no_gap_even_on_pixel_centers() -> None:
    """A fan over the whole picture, with corners on pixel centers: every pixel is covered."""
    random = np.random.default_rng(1)
    for middle in (np.array([4.5, 3.5]), random.uniform(2, 6, 2)):
        rim = np.array(
            [[-1, -1], [4.5, -1], [10, -1], [10, 3.5], [10, 10], [2.5, 10], [-1, 10], [-1, 3.5]]
        )
        points = np.column_stack([np.vstack([middle, rim]), np.zeros(9)])
        fan = np.array([[0, i, i % 8 + 1] for i in range(1, 9)])
        assert (picture_of(points, fan, 9, 8) >= 0).all()


def test_what_lies_outside_the_picture_is_cut_off() -> None:
    points = np.array(
        [[-50, -50, 0], [90, -50, 0], [-50, 90, 0], [100, 100, 0], [120, 100, 0], [100, 120, 0]],
        float,
    )
    assert (picture_of(points, np.array([[0, 1, 2], [3, 4, 5]]), 6, 6) == 0).all()
    assert len(rasterize(points, np.array([[3, 4, 5]]), 6, 6).pixel) == 0


def test_a_sphere_covers_its_disc_and_is_lit_from_the_upper_left() -> None:
    vertices, triangles = sphere()
    picture = render(vertices, triangles, FRONT, (100, 100))
    assert picture.shape == (100, 100, 4) and picture.dtype == np.uint8
    assert np.isclose((picture[..., 3] / 255).sum(), np.pi * 40**2, rtol=0.01)
    assert picture[0, 0].tolist() == [0, 0, 0, 0]
    light = picture[..., :3].astype(float).mean(-1)
    assert light[30, 35] > light[50, 50] > light[75, 70]


def test_turning_the_mesh_and_the_camera_together_changes_nothing() -> None:
    vertices, triangles = sphere(10)
    turned = FRONT.turned(70)
    moved = vertices @ turned.rotation
    assert (
        np.abs(
            render(vertices, triangles, FRONT, (40, 40)).astype(int)
            - render(moved, triangles, turned, (40, 40))
        ).max()
        <= 1
    )


def test_the_inner_side_is_darker() -> None:
    vertices, triangles = sphere()
    outside, inside = (
        render(vertices, t, FRONT, (40, 40)) for t in (triangles, triangles[:, ::-1])
    )
    assert inside[20, 20, :3].mean() < 0.8 * outside[20, 20, :3].mean()


def test_vertex_colors_are_shown_and_checked() -> None:
    vertices, triangles = sphere()
    left = vertices[:, :1] < 0
    picture = render(
        vertices, triangles, FRONT, (60, 60), np.where(left, [[1.0, 0, 0]], [[0, 0, 1.0]])
    )
    assert picture[30, 15, 0] > 180 > 40 > picture[30, 15, 2]
    assert picture[30, 45, 2] > 120 > 40 > picture[30, 45, 0]
    with pytest.raises(InputError, match="one color per vertex"):
        render(vertices, triangles, FRONT, (60, 60), np.ones((3, 3)))
    with pytest.raises(InputError, match="at least 1 x 1"):
        render(vertices, triangles, FRONT, (0, 60))


def test_heat_colors_darken_evenly_up_to_the_limit() -> None:
    colors = heat_colors(np.linspace(0, 2, 21), 2.0)
    light = colors @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) < 0).all() and light[0] > 0.8 and light[-1] < 0.2
    assert np.array_equal(
        heat_colors(np.array([2.0, 9.0]), 2.0)[0], heat_colors(np.array([2.0, 9.0]), 2.0)[1]
    )
    assert np.array_equal(heat_colors(np.array([np.nan, 1.0]), 2.0)[0], UNDYED), "not known"
    for limit in (0.0, np.nan):
        with pytest.raises(InputError, match="limit_mm"):
            heat_colors(np.zeros(3), limit)


@pytest.mark.parametrize("name", ["hand", "ICT-face", "body", "thing"])
def test_the_camera_sees_every_shape_right_way_up(name: str) -> None:
    vertices, triangles = sphere(8)
    tall = vertices * [1, 2, 0.5]
    camera = view_for(
        Template(Mesh(tall, triangles), name), [tall * 1.5, tall + np.array([9.0, 0, 0])]
    )
    for shape in (tall, tall * 1.5, tall + np.array([9.0, 0, 0])):
        points = camera.project(shape, camera.size(200))
        assert (points[:, :2] >= 0).all() and (points[:, :2] <= camera.size(200)).all()
    assert (
        np.allclose(camera.rotation @ camera.rotation.T, np.eye(3))
        and np.linalg.det(camera.rotation) > 0
    )
    assert camera.rotation[1, 1] > 0.9 and camera.rotation[2, 2] > 0.85


def test_an_unknown_class_stands_upright() -> None:
    vertices, triangles = sphere(8)
    for axes in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        lying = (vertices * [1, 3, 0.5])[:, axes]
        extent = view_for(Template(Mesh(lying, triangles), "thing")).extent
        assert np.isclose(extent[1] / extent[0], 3, rtol=0.05)


def test_the_frame_widens_no_further_than_allowed() -> None:
    shape = np.array([[-5.0, -5, 0], [5, 5, 0]])
    assert np.allclose(FRONT.widened([shape * 0.5], 1.5).extent, [10, 10])
    assert np.allclose(FRONT.widened([shape * 1.2], 1.5).extent, [12, 12])
    assert np.allclose(FRONT.widened([shape * 9], 1.5).extent, [15, 15])


def test_a_sheet_is_its_pictures_in_rows() -> None:
    vertices, triangles = sphere(8)
    shapes = [vertices, vertices * 0.5, vertices * 0.8]
    single = [render(shape, triangles, FRONT, (40, 40)) for shape in shapes]
    assert np.array_equal(sheet(single, 3), np.concatenate(single, axis=1))
    rows = sheet(single, 2)
    assert rows.shape == (80, 80, 4)
    assert np.array_equal(rows[40:, :40], single[2]) and not rows[40:, 40:].any()
    with pytest.raises(InputError, match="at least one picture"):
        sheet([], 2)


def test_a_ring_is_round_and_leaves_the_rest() -> None:
    picture = np.zeros((80, 60, 4), np.uint8)
    drawn = ringed(picture, np.array([30.0, 40.0]))
    y, x = np.nonzero(drawn[..., 3] == 255)
    radius = np.hypot(x + 0.5 - 30, y + 0.5 - 40)
    assert len(x) > 100 and radius.min() > 10 and radius.max() < 16
    np.testing.assert_allclose(drawn[40, 43, :3], 255 * np.array(RING_COLOR), atol=1)
    assert (drawn[:20] == 0).all() and (picture == 0).all()


def opened(file: bytes) -> np.ndarray:
    """(h, w, 4) uint8, read by matplotlib, as anyone would."""
    picture = matplotlib.image.imread(io.BytesIO(file), "png")
    return np.round(picture * 255).astype(np.uint8)


def test_png_round_trip() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 4)).astype(np.uint8)
    assert np.array_equal(opened(png(picture)), picture)
    for save in (png, webp):
        with pytest.raises(InputError, match="uint8"):
            save(picture.astype(float))


def test_a_shaded_shape_as_webp_is_small_and_hardly_differs() -> None:
    """Also in the few pixels of a large error, whose color is what the picture is for."""
    vertices, triangles = sphere()
    bumpy = vertices * (1 + 0.02 * np.sin(9 * vertices[:, :1]))
    distances = np.where(np.linalg.norm(vertices - vertices[40], axis=1) < 0.5, 2.0, 0.2)
    for colors in (None, heat_colors(distances, 2.0)):
        picture = render(bumpy, triangles, FRONT, (300, 300), colors)
        small = np.asarray(Image.open(io.BytesIO(webp(picture))).convert("RGBA"))
        opaque = picture[..., 3] == 255
        difference = np.abs(small.astype(int) - picture)[opaque].max(-1)
        assert difference.mean() < 3 and np.percentile(difference, 99) < 16
        assert np.array_equal(small[..., 3], picture[..., 3])
        assert len(webp(picture)) < 0.25 * len(png(picture))


def test_neighboring_regions_differ_in_color() -> None:
    colors = region_colors(20)
    assert np.abs(np.diff(colors, axis=0)).max(1).min() > 0.1
    assert len({css(color) for color in colors}) == 20


def test_twenty_thousand_triangles_take_a_fraction_of_a_second() -> None:
    vertices, triangles = sphere(72)
    assert len(triangles) > 20_000
    started = time.process_time()
    render(vertices, triangles, FRONT, (300, 300))
    assert time.process_time() - started < 2
