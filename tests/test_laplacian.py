import igl
import numpy as np
import pytest
from scipy.spatial import ConvexHull, Delaunay

from morphable.mesh.laplacian import cotangent_laplacian, graph_laplacian, mass_matrix
from morphable.mesh.topology import adjacency, boundary_edges

SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
HALVES = np.array([[0, 1, 2], [0, 2, 3]])


def ball(seed: int = 0, count: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """A closed bumpy surface."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points * generator.uniform(0.8, 1.2, (count, 1)) * 90, ConvexHull(
        points
    ).simplices.astype(np.int64)


def flat_patch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A planar triangulation of scattered points, tilted in space."""
    generator = np.random.default_rng(seed)
    plane = generator.uniform(size=(60, 2))
    tilt = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    return plane @ tilt[:2] + 5, Delaunay(plane).simplices.astype(np.int64)


def test_unit_square_by_hand() -> None:
    # Every side of the square faces one 45 degree corner (weight 1/2), the diagonal faces two right
    # angles (weight 0).
    expected = np.array(
        [[1, -0.5, 0, -0.5], [-0.5, 1, -0.5, 0], [0, -0.5, 1, -0.5], [-0.5, 0, -0.5, 1]]
    )
    np.testing.assert_allclose(cotangent_laplacian(SQUARE, HALVES).toarray(), expected, atol=1e-15)
    np.testing.assert_allclose(mass_matrix(SQUARE, HALVES).diagonal(), [1 / 3, 1 / 6, 1 / 3, 1 / 6])


def test_agrees_with_libigl_up_to_sign() -> None:
    vertices, triangles = ball()
    laplacian = cotangent_laplacian(vertices, triangles)
    assert abs(laplacian + igl.cotmatrix(vertices, triangles)).max() < 1e-12 * abs(laplacian).max()
    barycentric = igl.massmatrix(vertices, triangles, igl.MASSMATRIX_TYPE_BARYCENTRIC)
    np.testing.assert_allclose(
        mass_matrix(vertices, triangles).diagonal(), barycentric.diagonal(), rtol=1e-12
    )


def test_symmetric_positive_semidefinite_and_blind_to_constants() -> None:
    vertices, triangles = ball(1)
    laplacian = cotangent_laplacian(vertices, triangles)
    assert abs(laplacian - laplacian.T).max() == 0
    spectrum = np.linalg.eigvalsh(laplacian.toarray())
    assert spectrum[0] == pytest.approx(0, abs=1e-12) and spectrum[1] > 1e-3
    np.testing.assert_allclose(laplacian @ np.ones(len(vertices)), 0, atol=1e-12)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    assert (
        abs(cotangent_laplacian(7 * vertices @ rotation + 3, triangles) - laplacian).max() < 1e-10
    )


def test_linear_functions_are_harmonic_inside_a_flat_patch() -> None:
    vertices, triangles = flat_patch()
    inner = np.setdiff1d(np.arange(len(vertices)), boundary_edges(triangles))
    assert len(inner) > 30
    residual = cotangent_laplacian(vertices, triangles) @ vertices
    np.testing.assert_allclose(residual[inner], 0, atol=1e-10)
    assert abs(residual).max() > 0.1  # the border is not harmonic, so zero inside means something


def test_energy_of_a_linear_function_is_its_squared_gradient_times_the_area() -> None:
    vertices, triangles = flat_patch(3)
    direction = vertices[5] - vertices[9]
    direction /= np.linalg.norm(direction)
    values = vertices @ direction
    energy = values @ cotangent_laplacian(vertices, triangles) @ values
    assert energy == pytest.approx(mass_matrix(vertices, triangles).sum())


def test_a_triangle_without_area_and_a_lone_vertex_do_no_harm() -> None:
    vertices = np.vstack([SQUARE, [[5.0, 5, 5]]])
    triangles = np.vstack([HALVES, [[0, 0, 1]]])
    laplacian = cotangent_laplacian(vertices, triangles).toarray()
    np.testing.assert_allclose(laplacian[:4, :4], cotangent_laplacian(SQUARE, HALVES).toarray())
    assert not laplacian[4].any() and not laplacian[:, 4].any()
    assert mass_matrix(vertices, triangles).diagonal()[4] == 0


def test_graph_laplacian_by_hand() -> None:
    # A quad 0123, a triangle on its side 12, and vertex 5 alone: degrees 2 3 3 2 2 0.
    faces = np.array([[0, 1, 2, 3], [1, 4, 2, -1]])
    root = np.sqrt(6)
    expected = np.eye(6)
    for i, j, weight in (
        (0, 1, root),
        (1, 2, 3),
        (2, 3, root),
        (0, 3, 2),
        (1, 4, root),
        (2, 4, root),
    ):
        expected[i, j] = expected[j, i] = -1 / weight
    np.testing.assert_allclose(graph_laplacian(faces, 6).toarray(), expected, atol=1e-15)
    plain = np.diag([2, 3, 3, 2, 2, 0]) - adjacency(faces, 6).toarray()
    np.testing.assert_array_equal(graph_laplacian(faces, 6, normalized=False).toarray(), plain)


def test_graph_laplacian_spectrum_lies_in_0_to_2_and_follows_relabelling() -> None:
    triangles = ball(4)[1]
    laplacian = graph_laplacian(triangles, 80).toarray()
    spectrum = np.linalg.eigvalsh(laplacian)
    assert spectrum[0] == pytest.approx(0, abs=1e-12) and spectrum[-1] < 2
    order = np.random.default_rng(5).permutation(80)
    relabelled = graph_laplacian(np.argsort(order)[triangles], 80).toarray()
    np.testing.assert_allclose(relabelled, laplacian[np.ix_(order, order)], atol=1e-15)
