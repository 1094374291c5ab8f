import time

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from morphable.errors import InputError
from morphable.mesh.intersections import intersecting_pairs, self_intersecting_faces


def soup(seed: int, count: int, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Loose triangles of about one size in a unit box."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(size=(count, 1, 3)) + generator.normal(size=(count, 3, 3)) * size
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A flat square of 2 (n-1)^2 triangles, tilted in space and rounded to float32, so that it is
    not quite flat.
    """
    x, y = np.meshgrid(np.linspace(0, 100, n), np.linspace(0, 100, n))
    tilt = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    vertices = (np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1) @ tilt + 700).astype(np.float32)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel(), i[:-1, 1:].ravel()
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def volume(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
    return float(np.linalg.det(np.stack([b - a, c - a, d - a])))


def pierces(p: np.ndarray, q: np.ndarray, triangle: np.ndarray) -> bool:
    """The segment pq passes through the triangle, by the signs of five tetrahedra."""
    a, b, c = triangle
    if volume(a, b, c, p) * volume(a, b, c, q) >= 0:
        return False
    sides = np.sign([volume(p, q, a, b), volume(p, q, b, c), volume(p, q, c, a)])
    return bool(abs(sides.sum()) == 3)


def brute_force(vertices: np.ndarray, triangles: np.ndarray) -> list[list[int]]:
    corners = vertices.astype(float)[triangles]
    return [
        [i, j]
        for i in range(len(triangles))
        for j in range(i + 1, len(triangles))
        if not set(triangles[i]) & set(triangles[j])
        and any(
            pierces(one[k], one[k - 1], other)
            for one, other in ((corners[i], corners[j]), (corners[j], corners[i]))
            for k in range(3)
        )
    ]


FLOOR = [[0, 0, 0], [4, 0, 0], [0, 4, 0]]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([[1, 1, -1], [1, 1, 1], [9, 9, 1]], True),  # an edge pierces the inside
        ([[1, 1, 1], [2, 1, 1], [1, 2, 2]], False),  # above
        ([[5, 5, -1], [5, 5, 1], [9, 9, 1]], False),  # straddles the plane, beside the triangle
        ([[1, 1, 0], [2, 1, 1], [1, 2, 1]], False),  # a corner touches the inside
        ([[1, 1, 0], [1, 1, 1], [1, 2, -1]], True),  # a corner on the plane, the rest on both sides
        ([[0.5, 0.5, 0], [2, 0.5, 0], [0.5, 2, 0]], False),  # within one plane
        ([[0, 0, 0], [1, 1, 1], [1, 1, -1]], False),  # passes through, but from a common corner
        ([[1, 1, -1], [1, 1, 1], [1, 1, 0]], False),  # no area
    ],
)
def test_two_triangles_by_hand(other: list, expected: bool) -> None:
    vertices = np.array([*FLOOR, *other], float)
    triangles = np.array([[0, 1, 2], [3, 4, 5]])
    assert self_intersecting_faces(vertices, triangles).tolist() == ([0, 1] if expected else [])


@pytest.mark.parametrize(("seed", "count", "size"), [(0, 60, 0.3), (1, 80, 0.15), (2, 33, 0.5)])
def test_agrees_with_brute_force(seed: int, count: int, size: float) -> None:
    vertices, triangles = soup(seed, count, size)
    expected = brute_force(vertices, triangles)
    assert len(expected) > 5
    assert intersecting_pairs(vertices, triangles).tolist() == expected


def test_agrees_with_brute_force_where_sizes_differ_and_corners_are_shared() -> None:
    generator = np.random.default_rng(3)
    vertices = generator.normal(size=(40, 3)) * 10.0 ** generator.uniform(-2, 0, (40, 1))
    triangles = np.stack([generator.choice(40, 3, replace=False) for _ in range(90)])
    expected = brute_force(vertices, triangles)
    assert len(expected) > 50
    assert intersecting_pairs(vertices, triangles).tolist() == expected


def test_convex_and_flat_surfaces_are_clean() -> None:
    points = np.random.default_rng(4).normal(size=(400, 3))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True) * 90 + [0, 1500, 0]).astype(
        np.float32
    )
    assert len(self_intersecting_faces(points, ConvexHull(points).simplices)) == 0
    assert len(self_intersecting_faces(*grid(30))) == 0


def test_a_closed_seam_of_doubled_vertices_is_clean() -> None:
    vertices, triangles = grid(12)
    assert (
        len(
            self_intersecting_faces(
                vertices[triangles].reshape(-1, 3), np.arange(triangles.size).reshape(-1, 3)
            )
        )
        == 0
    )


def test_a_pushed_vertex_cuts_through_the_sheet_below() -> None:
    vertices, triangles = grid(15)
    normal = np.cross(vertices[1] - vertices[0], vertices[15] - vertices[0])
    normal /= np.linalg.norm(normal)
    both = np.concatenate([vertices, vertices + 5 * normal])
    faces = np.concatenate([triangles, triangles + len(vertices)])
    assert len(self_intersecting_faces(both, faces)) == 0
    both[len(vertices) + 7 * 15 + 7] -= 7 * normal
    pairs = intersecting_pairs(both, faces)
    pushed = set(np.flatnonzero((faces == len(vertices) + 7 * 15 + 7).any(axis=1)))
    assert len(pairs) and set(pairs[:, 1]) == pushed and (pairs[:, 0] < len(triangles)).all()


def test_rigid_motion_scale_and_renumbering_change_nothing() -> None:
    vertices, triangles = soup(5, 200, 0.1)
    pairs = intersecting_pairs(vertices, triangles)
    rotation = np.linalg.qr(np.random.default_rng(6).normal(size=(3, 3)))[0]
    np.testing.assert_array_equal(
        intersecting_pairs(vertices @ rotation * 1e3 + 500, triangles), pairs
    )
    order = np.random.default_rng(7).permutation(len(triangles))
    renamed = order[intersecting_pairs(vertices, triangles[order])]
    assert sorted(map(sorted, renamed.tolist())) == pairs.tolist()


def test_small_and_bad_input() -> None:
    vertices, triangles = soup(8, 1, 0.1)
    assert len(self_intersecting_faces(vertices, triangles)) == 0
    assert len(self_intersecting_faces(vertices, triangles[:0])) == 0
    with pytest.raises(InputError, match="expected finite vertices"):
        self_intersecting_faces(vertices * np.nan, triangles)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, triangles = soup(9, 300, 0.1)
    expected = intersecting_pairs(vertices, triangles)
    monkeypatch.setattr("morphable.mesh.intersections._BLOCK", 7)
    np.testing.assert_array_equal(intersecting_pairs(vertices, triangles), expected)


def test_a_few_large_triangles_do_not_make_it_slow() -> None:
    vertices, triangles = grid(60)
    large = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]]) * 1e4 + np.arange(20)[:, None, None]
    both = np.concatenate([vertices, large.reshape(-1, 3)])
    faces = np.concatenate([triangles, len(vertices) + np.arange(60).reshape(-1, 3)])

    def seconds(*mesh: np.ndarray) -> float:
        start = time.process_time()
        self_intersecting_faces(*mesh)
        return time.process_time() - start

    assert seconds(both, faces) < 10 * seconds(vertices, triangles) + 0.1
