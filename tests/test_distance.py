import numpy as np
import pytest

from morphable.errors import InputError
from morphable.mesh.distance import closest_points, point_to_surface, surface_distance

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
