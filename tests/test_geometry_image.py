import dataclasses
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.mesh.geometry_image import GeometryImage, LaplacianReadout, UvMap, quantize
from morphable.mesh.laplacian import cotangent_laplacian
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template


def square(cells: int = 4, bump: float = 0.0) -> Template:
    """A grid of quads in the unit square, whose texture coordinates are its own x and y."""
    line = np.linspace(0, 1, cells + 1)
    x, y = np.meshgrid(line, line, indexing="ij")
    vertices = np.stack([x, y, bump * np.sin(3 * x) * y], axis=-1).reshape(-1, 3)
    number = np.arange(len(vertices)).reshape(cells + 1, cells + 1)
    faces = np.stack([number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]], -1)
    faces = faces.reshape(-1, 4)
    return Template(Mesh(vertices, faces), "square", vertices[:, :2].copy(), faces)


def affine(places: np.ndarray) -> np.ndarray:
    """(..., 2) places to (..., 3) values that depend on them linearly."""
    return places @ np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]]) + [5.0, 6.0, 7.0]


def test_an_image_by_hand() -> None:
    """4 x 4 pixels, one of margin: the square fills the four in the middle, whose centers lie at a
    quarter and three quarters. Rows go down as v falls.
    """
    template = square(1)
    layout = GeometryImage.of(template, 4)
    assert layout.covered.tolist() == [5, 6, 9, 10]
    image = layout.rasterize(affine(template.mesh.vertices[None, :, :2]))[0]
    places = {
        (1, 1): (0.25, 0.75),
        (1, 2): (0.75, 0.75),
        (2, 1): (0.25, 0.25),
        (2, 2): (0.75, 0.25),
    }
    for (row, column), place in places.items():
        np.testing.assert_allclose(image[row, column], affine(np.array(place)), atol=1e-12)
    assert (image[~layout.mask] == 0).all()
    assert layout.mask.sum() == 4


def test_every_pixel_agrees_with_a_search_over_all_triangles(hands: MeshDataset) -> None:
    """The barycentric weights of each pixel rebuild its center, and a pixel is empty exactly if no
    triangle contains it.
    """
    uv_map = UvMap.of(hands.template)
    layout = GeometryImage.of(hands.template, 24)
    corners = uv_map.pixels(24)[uv_map.uv_triangles]
    for pixel in range(24 * 24):
        center = np.array([pixel % 24 + 0.5, pixel // 24 + 0.5])
        matrix = np.concatenate([corners, np.ones((len(corners), 3, 1))], axis=2)
        with np.errstate(all="ignore"):
            weights = np.linalg.solve(matrix.transpose(0, 2, 1), np.append(center, 1)[:, None])
        inside = (weights[..., 0] >= -1e-9).all(axis=1)
        where = np.flatnonzero(layout.covered == pixel)
        assert inside.any() == bool(len(where))
        if len(where):
            found = weights[inside][:, :, 0]
            own = np.sort(layout.weights[where[0]])
            assert np.abs(np.sort(found, axis=1) - own).max(axis=1).min() < 1e-9


def test_affine_values_return_exactly_away_from_the_border() -> None:
    template = square(8)
    layout = GeometryImage.of(template, 32)
    values = affine(template.mesh.vertices[None, :, :2])
    back = layout.read(layout.rasterize(values))
    inner = ((template.mesh.vertices[:, :2] > 0.01) & (template.mesh.vertices[:, :2] < 0.99)).all(1)
    np.testing.assert_allclose(back[0, inner], values[0, inner], atol=1e-10)


def test_constants_return_exactly_and_all_weights_sum_to_one(hands: MeshDataset) -> None:
    layout = GeometryImage.of(hands.template, 32)
    constant = np.tile([1.0, -2.0, 3.0], (1, hands.template.n_vertices, 1))
    np.testing.assert_allclose(layout.read(layout.rasterize(constant)), constant, atol=1e-12)
    np.testing.assert_allclose(layout.raster.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(layout.readout.sum(axis=1), 1, atol=1e-12)


def test_the_order_of_the_vertices_does_not_matter(hands: MeshDataset) -> None:
    template = hands.template
    order = np.random.default_rng(0).permutation(template.n_vertices)
    place = np.argsort(order)
    faces = np.where(template.mesh.faces >= 0, place[template.mesh.faces], -1)
    moved = Template(
        Mesh(template.mesh.vertices[order], faces), "hand", template.uv, template.uv_faces
    )
    values = np.asarray(hands.vertices[:2], np.float64)
    image = GeometryImage.of(template, 32).rasterize(values)
    again = GeometryImage.of(moved, 32)
    np.testing.assert_allclose(again.rasterize(values[:, order]), image, atol=1e-9)
    expected = GeometryImage.of(template, 32).read(image)
    np.testing.assert_allclose(again.read(image), expected[:, order], atol=1e-9)


def test_the_error_of_a_round_trip_falls_with_the_resolution(hands: MeshDataset) -> None:
    shapes = np.asarray(hands.vertices[:8], np.float64) - np.asarray(hands.vertices[:]).mean(0)
    errors = []
    for resolution in (16, 32, 64, 128):
        layout = GeometryImage.of(hands.template, resolution)
        back = layout.read(layout.rasterize(shapes))
        errors.append(float(np.linalg.norm(back - shapes, axis=-1).mean()))
    assert sorted(errors, reverse=True) == errors
    assert errors[-1] < 0.25


def test_a_vertex_on_a_seam_reads_the_mean_of_its_places() -> None:
    """The square cut in two charts, side by side with a gap: a vertex on the cut reads both."""
    whole = square(4)
    left = (whole.mesh.vertices[whole.mesh.faces][..., 0] < 0.51).all(axis=1)
    uv = np.concatenate([whole.uv, whole.uv + np.array([0.5, 0.0])])  # type: ignore[operator]
    uv_faces = np.where(left[:, None], whole.mesh.faces, whole.mesh.faces + len(whole.uv))  # type: ignore[arg-type]
    layout = GeometryImage.of(Template(whole.mesh, "cut", uv, uv_faces), 64)
    assert len(np.unique(UvMap.of(Template(whole.mesh, "cut", uv, uv_faces)).chart)) > 2
    # Values that differ between the charts: a vertex of one chart reads that chart alone.
    image = np.zeros((1, 64, 64, 1))
    image[:, :, 32:] = 1
    read = layout.read(image)[0, :, 0]
    x = whole.mesh.vertices[:, 0]
    np.testing.assert_allclose(read[x < 0.49], 0)
    np.testing.assert_allclose(read[x > 0.51], 1)
    np.testing.assert_allclose(read[np.abs(x - 0.5) < 0.01], 0.5)


def test_a_mesh_without_a_map_gets_one(ball: Template) -> None:
    values = np.asarray(ball.mesh.vertices, np.float64)[None]
    layout = GeometryImage.of(ball, 64)
    back = layout.read(layout.rasterize(values))
    assert np.linalg.norm(back - values, axis=-1).mean() < 0.5  # of 100 mm across
    assert layout.mask.mean() > 0.8


@pytest.fixture
def solve() -> tuple[Template, GeometryImage, LaplacianReadout]:
    template = square(6, bump=0.3)
    layout = GeometryImage.of(template, 12)
    return template, layout, LaplacianReadout(layout, template.mesh)


def test_the_solve_gives_nothing_for_nothing_and_constants_exactly(
    solve: tuple[Template, GeometryImage, LaplacianReadout],
) -> None:
    template, layout, readout = solve
    assert (readout.read(np.zeros((2, 12, 12, 3))) == 0).all()
    constant = np.tile([30.0, -20.0, 10.0], (1, template.n_vertices, 1))
    np.testing.assert_allclose(readout.read(layout.rasterize(constant)), constant, atol=1e-10)


def test_the_solve_is_the_dense_least_squares_solution(
    solve: tuple[Template, GeometryImage, LaplacianReadout],
) -> None:
    template, layout, readout = solve
    image = np.random.default_rng(0).normal(size=(2, 12, 12, 3))
    laplacian = cotangent_laplacian(template.mesh.vertices, template.mesh.triangles)
    stacked = sp.vstack([layout.raster, np.sqrt(1.2) * laplacian]).toarray()
    for pixels, found in zip(layout.pixels_of(image), readout.read(image), strict=True):
        right = np.concatenate([pixels, np.zeros((template.n_vertices, 3))])
        np.testing.assert_allclose(found, np.linalg.lstsq(stacked, right)[0], atol=1e-9)
        residual = stacked.T @ (stacked @ found - right)
        assert np.abs(residual).max() < 1e-10


def test_the_transposed_solve_is_its_gradient(
    solve: tuple[Template, GeometryImage, LaplacianReadout],
) -> None:
    """<y, S x> = <S^T y, x> for any x and y."""
    template, layout, readout = solve
    random = np.random.default_rng(1)
    x = random.normal(size=(2, len(layout.covered), 3))
    y = random.normal(size=(2, template.n_vertices, 3))
    left = (y * readout.solve(x)).sum()
    assert left == pytest.approx((readout.transposed(y) * x).sum(), rel=1e-10)


def test_the_error_of_the_solve_falls_with_alpha_and_with_resolution() -> None:
    template = square(40, bump=0.3)
    mesh = Mesh(template.mesh.vertices * 100, template.mesh.faces)
    x, y = template.mesh.vertices[:, 0], template.mesh.vertices[:, 1]
    moved = 8 * np.stack([np.sin(5 * x), np.cos(4 * y), np.sin(6 * x * y)], axis=-1)[None]

    def error(resolution: int, alpha: float) -> float:
        layout = GeometryImage.of(template, resolution)
        back = LaplacianReadout(layout, mesh, alpha).read(layout.rasterize(moved))
        return float(np.linalg.norm(back - moved, axis=-1).mean())

    assert error(24, 1e-3) < error(24, 1.2) / 2 < 0.2
    assert error(48, 1.2) < error(24, 1.2) < error(16, 1.2)


def test_eight_bits_round_to_256_levels() -> None:
    values = np.linspace(-30, 30, 10_001)
    rounded = quantize(values, 30.0)
    assert len(np.unique(rounded)) == 256
    assert np.abs(rounded - values).max() <= 30 / 255 + 1e-12
    np.testing.assert_allclose(rounded[[0, -1]], [-30, 30])


def test_stored_and_read_it_is_the_same(hands: MeshDataset) -> None:
    layout = GeometryImage.of(hands.template, 16)
    back = GeometryImage.from_arrays(layout.to_arrays(), hands.template.n_vertices)
    shapes = hands.vertices[:2]
    np.testing.assert_array_equal(layout.rasterize(shapes), back.rasterize(shapes))
    np.testing.assert_array_equal(
        layout.read(layout.rasterize(shapes)), back.read(back.rasterize(shapes))
    )
    with pytest.raises(InputError, match="covered: expected indices from 0 to 255"):
        GeometryImage.from_arrays(
            layout.to_arrays() | {"covered": layout.covered + 256}, hands.template.n_vertices
        )


@pytest.mark.parametrize("resolution", [0, -4, 100_000])
def test_an_impossible_resolution(resolution: int) -> None:
    with pytest.raises(InputError, match=r"`resolution` -?\d+: expected a whole number from 4"):
        GeometryImage.of(square(), resolution)


def test_charts_that_overlap_are_refused() -> None:
    whole = square(4)
    assert whole.uv is not None
    mirrored = np.abs(whole.uv - np.array([0.5, 0.0]))
    with pytest.raises(InputError, match=r"\d+% of its UV map is covered twice"):
        GeometryImage.of(dataclasses.replace(whole, uv=mirrored), 32)
    with pytest.raises(InputError, match="are the same point"):
        GeometryImage.of(dataclasses.replace(whole, uv=np.zeros_like(whole.uv)), 32)


def test_a_piece_without_a_pixel_cannot_be_solved(hands: MeshDataset) -> None:
    """The bilinear way back reads the nearest pixel instead."""
    whole = square(4)
    assert whole.uv is not None
    crumb = np.array([[3.0, 0, 0], [3.001, 0, 0], [3, 0.001, 0]])
    vertices = np.concatenate([whole.mesh.vertices, crumb])
    faces = np.concatenate([whole.mesh.faces, [[25, 26, 27, -1]]])
    uv = np.concatenate([whole.uv, crumb[:, :2] * 0.3])
    template = Template(Mesh(vertices, faces), "crumb", uv, faces)
    layout = GeometryImage.of(template, 8)
    values = np.ones((1, 28, 3))
    np.testing.assert_allclose(layout.read(layout.rasterize(values)), values)
    with pytest.raises(InputError, match="1 pieces of the template's surface have no pixel"):
        LaplacianReadout(layout, template.mesh)


def test_round_trips_of_the_open_sets_are_fast(hands: MeshDataset, tmp_path: Path) -> None:
    """The factored solve agrees with the bilinear way back to within the error of both."""
    layout = GeometryImage.of(hands.template, 64)
    mean = np.asarray(hands.vertices[:]).mean(0)
    shapes = np.asarray(hands.vertices[:8]) - mean
    image = layout.rasterize(shapes)
    readout = LaplacianReadout(layout, hands.template.mesh.moved(mean))
    error = np.linalg.norm(readout.read(image) - shapes, axis=-1).mean()
    assert error < 1.0
