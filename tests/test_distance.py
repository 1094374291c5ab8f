import numpy as np
import pytest

from morphable.errors import InputError
from morphable.mesh.distance import (
    closest_alike,
    closest_points,
    point_to_surface,
    surface_distance,
)
from morphable.mesh.topology import vertex_normals

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
HALVES = np.array([[0, 1, 2], [0, 2, 3]])


def random_surface(
    seed: int, n_vertices: int = 30, n_triangles: int = 25
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    triangles = np.stack(
        [generator.choice(n_vertices, 3, replace=False) for _ in range(n_triangles)]
    )
    return generator.normal(size=(n_vertices, 3)), triangles


def sampled_distance(point: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> float:
    """Brute force over a fine grid of barycentric weights of every triangle."""
    a, b = np.meshgrid(np.linspace(0, 1, 61), np.linspace(0, 1, 61))
    keep = a + b <= 1 + 1e-12
    weights = np.stack([a[keep], b[keep], np.maximum(1 - a[keep] - b[keep], 0)], 1)
    places = np.einsum("wc,tcx->twx", weights, vertices[triangles])
    return float(np.linalg.norm(places - point, axis=2).min())


def test_by_hand() -> None:
    points = np.array([[0.75, 0.25, 2.0], [-3.0, 0.5, 0], [2, 2, 1], [0.5, -1, 0], [0, 0, 0]])
    nearest = closest_points(points, SQUARE, HALVES)
    places = np.einsum("pc,pcx->px", nearest.barycentric, SQUARE[HALVES[nearest.face]])
    expected = [[0.75, 0.25, 0], [0, 0.5, 0], [1, 1, 0], [0.5, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(places, expected, atol=1e-15)
    np.testing.assert_allclose(nearest.distance, [2, 3, np.sqrt(3), 1, 0], atol=1e-15)
    assert nearest.face[0] == 0 and nearest.face[1] == 1


def test_agrees_with_brute_force_and_with_libigl() -> None:
    vertices, triangles = random_surface(1)
    points = np.random.default_rng(2).normal(size=(20, 3)) * 1.5
    nearest = closest_points(points, vertices, triangles)
    brute = np.array([sampled_distance(p, vertices, triangles) for p in points])
    assert (nearest.distance <= brute + 1e-12).all()
    np.testing.assert_allclose(nearest.distance, brute, atol=0.04)
    np.testing.assert_allclose(
        nearest.distance, point_to_surface(points, vertices, triangles), atol=1e-12
    )


@pytest.mark.parametrize("offset", [0.0, 1500.0])
def test_weights_are_true_barycentric_coordinates(offset: float) -> None:
    vertices, triangles = random_surface(3)
    vertices = vertices + offset
    points = np.random.default_rng(4).normal(size=(500, 3)) * 2 + offset
    nearest = closest_points(points, vertices, triangles)
    assert (nearest.barycentric >= 0).all()
    np.testing.assert_allclose(nearest.barycentric.sum(1), 1, atol=1e-15)
    places = np.einsum("pc,pcx->px", nearest.barycentric, vertices[triangles[nearest.face]])
    np.testing.assert_allclose(
        np.linalg.norm(places - points, axis=1), nearest.distance, atol=1e-12
    )


def test_a_point_built_on_a_triangle_gives_its_weights_back() -> None:
    weights = np.random.default_rng(5).dirichlet([1, 1, 1], size=100)
    triangle = np.array([[0.0, 0, 0], [3, 1, 0], [1, 2, 5]])
    nearest = closest_points(weights @ triangle, triangle, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(nearest.barycentric, weights, atol=1e-12)
    np.testing.assert_allclose(nearest.distance, 0, atol=1e-12)


def test_degenerate_triangles_are_segments_and_points() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 9, 9]])
    nearest = closest_points(
        np.array([[1.5, 2, 0], [9, 9, 8]]), vertices, np.array([[0, 1, 2], [3, 3, 3]])
    )
    np.testing.assert_allclose(nearest.distance, [2, 1])
    assert nearest.face.tolist() == [0, 1]
    assert np.isfinite(nearest.barycentric).all() and (nearest.barycentric >= 0).all()
    np.testing.assert_allclose(nearest.barycentric[0] @ vertices[:3], [1.5, 0, 0])


def test_surface_distance_is_symmetric_and_rigidly_invariant() -> None:
    above = SQUARE + np.array([0, 0, 0.25])
    assert surface_distance(SQUARE, above, HALVES) == pytest.approx(0.25)
    assert surface_distance(SQUARE, SQUARE + np.array([0.25, 0, 0]), HALVES) == pytest.approx(0.125)
    lonely = [np.vstack([shape, [[99.0 * i, 0, 0]]]) for i, shape in enumerate((SQUARE, above))]
    assert surface_distance(*lonely, HALVES) == pytest.approx(0.25)
    a, triangles = random_surface(6)
    b = random_surface(7)[0]
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))[0]
    assert surface_distance(a, b, triangles) == pytest.approx(surface_distance(b, a, triangles))
    assert surface_distance(a, b, triangles) == pytest.approx(
        surface_distance(a @ rotation, b @ rotation, triangles)
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="at least one triangle"):
        closest_points(SQUARE, SQUARE, np.zeros((0, 3), int))
    with pytest.raises(InputError, match="points: expected finite"):
        closest_points(SQUARE * np.nan, SQUARE, HALVES)
    with pytest.raises(InputError, match=r"0\.\.3"):
        point_to_surface(SQUARE, SQUARE, HALVES + 2)
    with pytest.raises(InputError, match=r"points: expected shape \(n, 3\), got \(4, 2\)"):
        point_to_surface(SQUARE[:, :2], SQUARE, HALVES)


def test_of_two_sheets_the_one_that_looks_the_same_way_is_meant() -> None:
    sheets = np.concatenate([SQUARE, SQUARE + np.array([0, 0, 3])])
    normals = np.repeat([[0, 0, 1.0], [0, 0, -1.0]], 4, axis=0)
    triangles = np.concatenate([HALVES, HALVES + 4])
    point, down = np.array([[0.6, 0.3, 1.0]]), np.array([[0, 0, -1.0]])
    near = closest_alike(point, down, sheets, normals, triangles, 0.5)
    assert near.face[0] == 0 and near.distance[0] == pytest.approx(np.sqrt(1 + 1))
    alike = closest_alike(point, down, sheets, normals, triangles, 2.0)
    assert alike.face[0] == 2 and alike.distance[0] == pytest.approx(2)
    place = alike.barycentric[0] @ sheets[triangles[2]]
    np.testing.assert_allclose(place, [0.6, 0.3, 3], atol=1e-15)


def bumpy_sheet() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    side = np.arange(12.0)
    x, y = (axis.ravel() for axis in np.meshgrid(side, side))
    vertices = np.stack([x, y, np.sin(x) + np.cos(0.7 * y)], 1)
    corner = (np.arange(11)[:, None] * 12 + np.arange(11)).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + 13], 1),
            np.stack([corner, corner + 13, corner + 12], 1),
        ]
    )
    return vertices, triangles, vertex_normals(vertices, triangles)


def test_places_alike_agree_with_brute_force() -> None:
    vertices, triangles, normals = bumpy_sheet()
    random = np.random.default_rng(0)
    points = vertices[40:60] + random.normal(0, 0.3, (20, 3))
    own = random.normal(size=(20, 3)) + np.array([0, 0, 2])
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    found = closest_alike(points, own, vertices, normals, triangles, 1.5)
    both = np.concatenate([vertices, 1.5 * normals], 1)
    brute = [
        sampled_distance(row, both, triangles) for row in np.concatenate([points, 1.5 * own], 1)
    ]
    assert (found.distance <= np.array(brute) + 1e-12).all()
    np.testing.assert_allclose(found.distance, brute, atol=0.01)


def test_normals_of_no_length_leave_the_nearest_places() -> None:
    vertices, triangles, normals = bumpy_sheet()
    points = vertices[40:60] + np.array([0.2, 0.1, 0.4])
    found = closest_alike(points, normals[40:60], vertices, normals, triangles, 0.0)
    expected = closest_points(points, vertices, triangles)
    np.testing.assert_allclose(found.distance, expected.distance, atol=1e-12)


def test_slid_points_are_brought_back_by_their_normals() -> None:
    """The nearest places of points that were slid along a bumpy sheet follow the slide; places of the
    same normals undo half of it or more.
    """
    vertices, triangles, normals = bumpy_sheet()
    inner = np.flatnonzero((np.abs(vertices[:, :2] - 5.5) < 3).all(1))
    slide = np.array([0.4, 0.0, 0.0])

    def left(face: np.ndarray, weights: np.ndarray) -> float:
        places = np.einsum("pc,pcx->px", weights, vertices[triangles[face]])
        return float(np.abs(places - vertices[inner])[:, 0].mean())

    near = closest_points(vertices[inner] + slide, vertices, triangles)
    alike = closest_alike(vertices[inner] + slide, normals[inner], vertices, normals, triangles, 4)
    assert left(alike.face, alike.barycentric) < 0.5 * left(near.face, near.barycentric)
