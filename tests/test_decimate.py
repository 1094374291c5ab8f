"""decimate: quadrics and collapses worked by hand, a plain list-scanning twin, and the laws of a
good coarse level.
"""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from morphable.errors import InputError
from morphable.mesh.decimate import STABILIZER, decimate, vertex_quadrics
from morphable.mesh.topology import adjacency, boundary_edges, components, nonmanifold_edges


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A flat square of side x side vertices at whole numbers, facing +z."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (
        part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1])
    )
    vertices = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1).astype(float)
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def sphere(count: int, seed: int = 0, rough: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of 160 x 240 x 180, slightly rough, with outward faces, by the hull of points on
    a spiral.
    """
    from scipy.spatial import ConvexHull

    rng = np.random.default_rng(seed)
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    around = np.sqrt(1 - height**2)
    points = np.stack([around * np.cos(angle), height, around * np.sin(angle)], axis=1)
    faces = ConvexHull(points).simplices.astype(np.int64)
    corner = points[faces]
    inward = (
        np.einsum(
            "fx,fx->f",
            np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]),
            corner[:, 0],
        )
        < 0
    )
    faces[inward] = faces[inward][:, ::-1]
    return points * [80, 120, 90] + rough / np.sqrt(count) * rng.normal(size=points.shape), faces


def turned(points: np.ndarray) -> np.ndarray:
    rotation, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    return points @ (rotation * np.sign(np.linalg.det(rotation))) + [3.0, -40.0, 17.0]


def normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def plain_decimation(vertices: np.ndarray, faces: np.ndarray, target: int) -> list[int]:
    """The published construction word for word: planes by SVD, list scans, lazy re-queueing, ties
    destroy the first.
    """
    quadric = np.zeros((len(vertices), 4, 4))
    for face in faces:
        plane = np.linalg.svd(np.column_stack([vertices[face], np.ones(3)]))[2][-1]
        plane /= np.linalg.norm(plane[:3])
        quadric[face] += np.outer(plane, plane)

    def costs(r: int, c: int) -> tuple[float, float]:
        joint = quadric[r] + quadric[c]
        ends = (np.append(vertices[end], 1) for end in (r, c))
        return tuple(float(end @ joint @ end) for end in ends)

    pairs = {tuple(sorted((int(f[i]), int(f[i - 1])))) for f in faces for i in range(3)}
    queue = [(min(costs(r, c)), [r, c]) for r, c in pairs]
    heapq.heapify(queue)
    faces = faces.copy()
    while len(np.unique(faces)) > target:
        cost, (r, c) = heapq.heappop(queue)
        if r == c:
            continue
        keep_r, keep_c = costs(r, c)
        if min(keep_r, keep_c) > cost:
            heapq.heappush(queue, (min(keep_r, keep_c), [r, c]))
            continue
        gone, kept = (c, r) if keep_r < keep_c else (r, c)
        quadric[[r, c]] = quadric[r] + quadric[c]
        faces[faces == gone] = kept
        for _, edge in queue:
            edge[:] = [kept if end == gone else end for end in edge]
        faces = faces[[len(set(face)) == 3 for face in faces.tolist()]]
    return np.unique(faces).tolist()


def test_quadric_of_one_triangle_by_hand() -> None:
    points = np.array([[0.0, 0, 2], [1, 0, 2], [0, 1, 2]])  # the plane z = 2: (0, 0, 1, -2)
    quadric = vertex_quadrics(points, np.array([[0, 1, 2]]))[:, 1]
    own = STABILIZER * np.array([1, 0, 0, -1, 1, 0, 0, 1, -2, 5])  # |x - (1, 0, 2)|^2
    np.testing.assert_allclose(
        quadric, np.array([0, 0, 0, 0, 0, 0, 0, 1, -2, 4]) + own, rtol=0, atol=1e-15
    )


def test_the_flat_vertex_of_a_cube_goes_first() -> None:
    vertices = np.array(
        [[x, y, z] for x in (0.0, 1) for y in (0, 1) for z in (0, 1)] + [[0.5, 0.5, 1.0]]
    )
    top = [[1, 5, 8], [5, 7, 8], [7, 3, 8], [3, 1, 8]]
    rest = [
        [0, 2, 6],
        [0, 6, 4],
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
    ]
    result = decimate(vertices, np.array(top + rest), 8)
    assert result.kept.tolist() == list(range(8))
    assert len(result.triangles) == 12
    assert len(boundary_edges(result.triangles)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_published_construction(seed: int) -> None:
    vertices, faces = sphere(160, seed, rough=4)  # so smooth that no collapse would fold it
    assert decimate(vertices, faces, 40).kept.tolist() == plain_decimation(vertices, faces, 40)


def test_a_chain_hits_its_counts_and_stays_a_surface_with_its_border() -> None:
    vertices, faces = sphere(2000, rough=0)
    faces = faces[
        vertices[faces][:, :, 1].max(axis=1) > -80
    ]  # an open neck leaves vertices without a face
    for expected in (500, 125, 32):
        result = decimate(vertices, faces, expected)
        vertices, faces = vertices[result.kept], result.triangles
        assert len(vertices) == expected
        assert (np.diff(result.kept) > 0).all()
        assert np.array_equal(np.unique(faces), np.arange(expected))
        assert len(nonmanifold_edges(faces)) == 0 and components(faces, expected).max() == 0
        assert (
            len(vertices) - (len(faces) * 3 + len(boundary_edges(faces))) // 2 + len(faces) == 1
        ), "not a disc any more"
        assert (
            np.einsum("fx,fx->f", normals(vertices, faces), vertices[faces].mean(axis=1)) > 0
        ).all()


def test_ties_destroy_the_first_end() -> None:
    corners = np.concatenate([np.eye(3), -np.eye(3)])
    faces = np.array(
        [[0, 1, 2], [0, 5, 1], [0, 4, 5], [0, 2, 4], [3, 2, 1], [3, 1, 5], [3, 5, 4], [3, 4, 2]]
    )
    assert decimate(corners, faces, 5).kept.tolist() == [1, 2, 3, 4, 5]


def torus() -> tuple[np.ndarray, np.ndarray]:
    along, around = np.meshgrid(np.arange(60), np.arange(8), indexing="ij")
    turn, tilt = along.ravel() * np.pi / 30, around.ravel() * np.pi / 4
    radius = 100 + 9 * np.cos(tilt)
    vertices = np.stack([radius * np.cos(turn), radius * np.sin(turn), 9 * np.sin(tilt)], axis=1)
    index = np.arange(480).reshape(60, 8)
    a, b, c, d = (
        index,
        np.roll(index, -1, 0),
        np.roll(index, (-1, -1), (0, 1)),
        np.roll(index, -1, 1),
    )
    return vertices, np.concatenate(
        [np.stack(f, axis=-1).reshape(-1, 3) for f in ((a, b, c), (a, c, d))]
    )


@pytest.mark.parametrize("target", [120, 30, 12])
def test_a_thin_ring_stays_a_ring(target: int) -> None:
    result = decimate(*torus(), target)
    assert len(nonmanifold_edges(result.triangles)) == len(boundary_edges(result.triangles)) == 0
    assert (
        len(result.triangles) == 2 * target
    )  # with 3/2 as many edges as faces: Euler's number of a torus, 0


@pytest.mark.parametrize(("rows", "target"), [(2, 10), (3, 12), (20, 8)])
def test_a_strip_is_neither_torn_nor_pinched_nor_folded(rows: int, target: int) -> None:
    vertices, faces = grid(20)
    faces = faces[vertices[faces][:, :, 1].max(axis=1) < rows]
    result = decimate(vertices, faces, target)
    border = boundary_edges(result.triangles)
    assert len(result.kept) == target and len(nonmanifold_edges(result.triangles)) == 0
    assert (np.unique(border, return_counts=True)[1] == 2).all(), "borders touch in a vertex"
    assert components(result.triangles, target).max() == 0
    assert (normals(vertices[result.kept], result.triangles)[:, 2] > 0).all()


def test_neither_motion_nor_scale_nor_order_changes_the_choice() -> None:
    vertices, faces = sphere(400)
    kept = decimate(vertices, faces, 100).kept
    np.testing.assert_array_equal(decimate(turned(vertices), faces, 100).kept, kept)
    np.testing.assert_array_equal(decimate(vertices * 1e-3, faces, 100).kept, kept)
    np.testing.assert_array_equal(decimate(vertices + 1e8, faces, 100).kept, kept)
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(
        decimate(vertices, faces[rng.permutation(len(faces))], 100).kept, kept
    )
    order = rng.permutation(len(vertices))
    renamed = decimate(vertices[order], np.argsort(order)[faces], 100)
    np.testing.assert_array_equal(np.sort(order[renamed.kept]), kept)


def test_flat_ground_is_thinned_evenly_and_never_folded() -> None:
    vertices, faces = grid(40)
    result = decimate(vertices, faces, 400)
    coarse = vertices[result.kept]
    assert (normals(coarse, result.triangles)[:, 2] > 0).all()
    degree = np.asarray(adjacency(result.triangles, 400).sum(axis=1)).ravel()
    assert degree.max() <= 14
    blocks = np.histogram2d(coarse[:, 0], coarse[:, 1], bins=4)[0]  # 25 each when perfectly even
    assert blocks.min() >= 10 and blocks.max() <= 40


def test_small_parts_go_by_cost_and_leave_their_vertices_to_large_ones() -> None:
    vertices, faces = sphere(600)
    eye = sphere(50, 1)
    vertices = np.concatenate([vertices, 0.1 * eye[0] + [30, 20, 90], 0.1 * eye[0] + [-30, 20, 90]])
    faces = np.concatenate([faces, eye[1] + 600, eye[1] + 650])
    many, few = decimate(vertices, faces, 175), decimate(vertices, faces, 20)
    assert [np.sum((many.kept >= low) & (many.kept < low + 50)) >= 4 for low in (600, 650)] == [
        True,
        True,
    ]
    assert len(few.kept) == 20 and few.kept.max() < 600
    assert len(nonmanifold_edges(few.triangles)) == len(boundary_edges(few.triangles)) == 0


def test_equal_parts_share_a_level_and_few_vertices_still_make_whole_triangles() -> None:
    one, faces = sphere(40)
    parts = np.concatenate(
        [one + np.array(shift) for shift in ([0, 0, 0], [500, 0, 0], [0, 500, 0])]
    )
    faces = np.concatenate([faces, faces + 40, faces + 80])
    assert np.bincount(decimate(parts, faces, 30).kept // 40).tolist() == [10, 10, 10]
    for target in range(3, 16):
        result = decimate(parts, faces, target)
        three_triangles = (
            target if target > 8 else target // 3 * 3
        )  # what is left of three parts goes by threes
        assert len(result.kept) == three_triangles
        assert len(np.unique(np.sort(result.triangles, axis=1), axis=0)) == len(result.triangles)
        assert len(nonmanifold_edges(result.triangles)) == 0


def test_dirty_meshes_hit_their_counts() -> None:
    vertices, faces = sphere(500)
    rng = np.random.default_rng(0)
    fins = np.column_stack([faces[::20, :2], rng.integers(0, 500, len(faces[::20]))])
    dirt = [[3, 3, 7], [8, 9, 8], [5, 5, 5]]
    faces = np.concatenate([faces, fins, faces[:5], faces[:5, ::-1], dirt])
    vertices = np.concatenate([vertices, [[0.0, 0, 0]]])  # no face uses it
    for expected in (126, 32, 8):
        result = decimate(vertices, faces, expected)
        assert len(result.kept) == expected
        assert np.array_equal(np.unique(result.triangles), np.arange(expected))
        assert (
            np.sort(result.triangles, axis=1)[:, :2] != np.sort(result.triangles, axis=1)[:, 1:]
        ).all()
        assert len(np.unique(np.sort(result.triangles, axis=1), axis=0)) == len(result.triangles)
        assert 500 not in result.kept
        vertices, faces = vertices[result.kept], result.triangles


def test_separate_triangles_vanish_whole() -> None:
    vertices = np.random.default_rng(0).normal(size=(30, 3))
    faces = np.arange(30).reshape(10, 3)
    assert len(decimate(vertices, faces, 12).kept) == 12
    assert len(decimate(vertices, faces, 8).kept) == 6
    assert len(decimate(vertices, faces[:1], 3).kept) == 3


def test_coincident_vertices_and_slivers_do_no_harm() -> None:
    vertices, faces = sphere(300)
    vertices[:40] = vertices[40:80]
    vertices[80:100] = vertices[80]
    result = decimate(vertices, faces, 75)
    assert len(result.kept) == 75 and np.array_equal(np.unique(result.triangles), np.arange(75))


def test_nothing_to_do_returns_the_used_vertices() -> None:
    vertices, faces = grid(4)
    result = decimate(vertices, faces[vertices[faces][:, :, 0].max(axis=1) <= 2], 14)
    assert result.kept.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]


@pytest.mark.parametrize(
    ("faces", "target", "words"),
    [
        ([[0, 1, 2]], 2, "at least 3"),
        ([[0, 0, 1]], 3, "three different corners"),
        (np.zeros((0, 3)), 3, "got none"),
    ],
)
def test_bad_input_is_named(faces: list[list[int]], target: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        decimate(np.eye(3), np.array(faces, int), target)
