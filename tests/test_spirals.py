"""spirals: grids worked by hand, breadth-first distances as the other route, and what no motion may
change.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse.csgraph import dijkstra, shortest_path

from morphable.errors import InputError
from morphable.mesh.hierarchy import Hierarchy, Level, build_hierarchy
from morphable.mesh.mesh import Mesh
from morphable.mesh.spirals import reference_spirals, ring_spirals
from morphable.mesh.topology import adjacency, boundary_edges


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHABLE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def grid(side: int, rough: float = 0) -> Mesh:
    """Vertex x + side * y at (x, y, 0), every cell cut from its lower left to its upper right,
    facing +z.
    """
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (
        part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1])
    )
    vertices = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1).astype(float)
    vertices += rough * np.random.default_rng(0).normal(size=vertices.shape)
    return Mesh(vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


def single(mesh: Mesh) -> Hierarchy:
    return build_hierarchy(mesh, factors=())


def flat_spirals(mesh: Mesh, steps: int = 1, dilation: int = 1, **options: list[int]) -> np.ndarray:
    return reference_spirals(single(mesh), (steps,), (dilation,), **options)[0]


def without_tail(spiral: np.ndarray) -> list[int]:
    """A spiral less its padding; a -1 that closes an open ring looks like padding and goes too."""
    return [int(entry) for entry in np.trim_zeros(spiral + 1, "b") - 1]


def lengths(mesh: Mesh) -> np.ndarray:
    pairs = adjacency(mesh.faces, len(mesh.vertices)).tocoo()
    dense = np.zeros(pairs.shape)
    dense[pairs.row, pairs.col] = np.linalg.norm(
        mesh.vertices[pairs.row] - mesh.vertices[pairs.col], axis=1
    )
    return dense


# Neural3DMM


def test_reference_spirals_of_a_grid_by_hand() -> None:
    spirals = flat_spirals(grid(5))  # the reference is the middle, 12
    assert without_tail(spirals[12]) == [
        12,
        7,
        13,
        18,
        17,
        11,
        6,
    ]  # start: of four nearest the lowest index
    assert without_tail(spirals[8])[:7] == [8, 7, 2, 3, 9, 14, 13]  # 7 and 13 lie on shortest paths
    assert without_tail(spirals[2]) == [
        2,
        7,
        1,
        -1,
        3,
        8,
    ]  # from the start to the border, then the other way
    assert without_tail(spirals[4]) == [4, 3, -1, 9]
    assert without_tail(spirals[0]) == [0, 6, 5, -1, 1]


def test_second_ring_and_dilation_by_hand() -> None:
    mesh = grid(7)  # 9 lies beyond the side of the first ring's last and first, 16 and 17
    rings = [24, 17, 25, 32, 31, 23, 16, 9, 10, 18, 26, 33, 40, 39, 38, 30, 22, 15, 8]
    assert without_tail(flat_spirals(mesh, steps=2)[24]) == rings
    assert without_tail(flat_spirals(mesh, steps=2, dilation=2)[24]) == rings[:1] + rings[1::2]


def test_first_rings_of_a_grid_turn_with_the_faces() -> None:
    mesh = grid(7, rough=0.1)
    spirals = flat_spirals(mesh)
    border = np.unique(boundary_edges(mesh.faces))
    interior = np.setdiff1d(np.arange(49), border)
    assert spirals.shape[1] == 7
    assert spirals[interior].min() >= 0
    around = mesh.vertices[spirals[interior, 1:]] - mesh.vertices[interior][:, None]
    angle = np.unwrap(np.arctan2(around[..., 1], around[..., 0]), axis=1)
    assert (np.diff(angle, axis=1) > 0).all() and (angle[:, -1] - angle[:, 0] < 2 * np.pi).all()
    degree = np.asarray(adjacency(mesh.faces, 49).sum(axis=1)).ravel()
    for vertex in border:
        ring = spirals[
            vertex, 1 : 2 + int(degree[vertex])
        ]  # its neighbors and one gap, then padding
        assert (ring == -1).sum() == 1
        assert (spirals[vertex, 2 + int(degree[vertex]) :] == -1).all()


def test_starts_lie_on_shortest_paths_to_the_reference() -> None:
    mesh = grid(7, rough=0.15)
    spirals = flat_spirals(mesh, references=[9])
    distance = dijkstra(lengths(mesh), indices=9)
    others = np.setdiff1d(np.arange(49), [9])
    start = spirals[others, 1]
    step = np.linalg.norm(mesh.vertices[start] - mesh.vertices[others], axis=1)
    np.testing.assert_allclose(distance[start] + step, distance[others], rtol=1e-12)
    nearest = np.where(lengths(mesh)[9] > 0, lengths(mesh)[9], np.inf).argmin()
    assert spirals[9, 1] == nearest


def test_every_component_has_a_reference_its_own_or_the_given_one() -> None:
    one = grid(4, rough=0.1)
    both = Mesh(
        np.concatenate([one.vertices, one.vertices + np.array([50, 0, 0])]),
        np.concatenate([one.faces, one.faces + 16]),
    )
    spirals = flat_spirals(both)
    assert np.array_equal(spirals[16:], np.where(spirals[:16] >= 0, spirals[:16] + 16, -1))
    moved = flat_spirals(both, references=[31])
    width = min(moved.shape[1], spirals.shape[1])
    assert np.array_equal(moved[:16, :width], spirals[:16, :width])
    assert not np.array_equal(moved[16:], spirals[16:])
    assert np.array_equal(
        flat_spirals(both, references=[20, 31]), moved
    )  # the last one in a component counts


# SpiralNet++


def test_ring_spirals_of_a_grid_by_hand() -> None:
    (spirals,) = ring_spirals(single(grid(5)))
    assert spirals.shape == (25, 9)
    assert spirals[12].tolist() == [
        12,
        6,
        7,
        13,
        18,
        17,
        11,
        5,
        0,
    ]  # the second ring goes on from 6
    assert spirals[4].tolist()[:3] == [4, 3, 9]
    (strided,) = ring_spirals(single(grid(5)), seq_length=4, dilation=2)
    assert strided[12].tolist() == [12, 7, 18, 11]


def test_ring_spirals_are_whole_rings_in_order() -> None:
    mesh = grid(8, rough=0.1)
    hops = shortest_path(adjacency(mesh.faces, 64), unweighted=True)
    for length in (9, 30):
        (spirals,) = ring_spirals(single(mesh), seq_length=length)
        along = np.take_along_axis(hops, spirals, axis=1)
        assert (np.diff(along, axis=1) >= 0).all() and (along[:, 0] == 0).all()
        np.testing.assert_array_equal(
            along, np.sort(hops, axis=1)[:, :length]
        )  # a ring is left only when it is complete


def test_small_components_take_the_nearest_vertices_and_small_levels_repeat() -> None:
    vertices = np.array(
        [[0.0, 0, 0], [1, 0, 0], [0, 1.5, 0], [0, 0, 2.5], [9, 0, 0], [9, 1, 0], [9.5, 2, 0]]
    )
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2], [4, 5, 6]])
    (spirals,) = ring_spirals(
        single(Mesh(vertices, faces)), seq_length=9
    )  # 7 vertices, like the coarsest hand level
    assert spirals[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert np.array_equal(np.sort(spirals[:, :7], axis=1), np.tile(np.arange(7), (7, 1)))
    assert np.array_equal(spirals[:, 7:], spirals[:, :2])
    (short,) = ring_spirals(single(Mesh(vertices, faces)), seq_length=4)
    assert short[4].tolist() == [4, 5, 6, 1]
    assert sorted(short[0].tolist()) == [0, 1, 2, 3] and short[0, 1] == 1


# Both


def turned(hierarchy: Hierarchy) -> Hierarchy:
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    levels = tuple(
        replace(level, vertices=level.vertices @ rotation + [5.0, 6, -70])
        for level in hierarchy.levels
    )
    return replace(hierarchy, levels=levels)


@pytest.mark.parametrize(
    "rough", [0, 0.1]
)  # a flat grid is full of ties, which rounding must not decide
def test_rigid_motion_changes_nothing(rough: float) -> None:
    hierarchy = build_hierarchy(grid(20, rough), factors=(4, 4))
    for one, other in zip(
        reference_spirals(hierarchy, (2, 2, 1), (2, 1, 1)),
        reference_spirals(turned(hierarchy), (2, 2, 1), (2, 1, 1)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(ring_spirals(hierarchy), ring_spirals(turned(hierarchy)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_face_order_and_first_corner_change_nothing() -> None:
    mesh = grid(9, rough=0.1)
    order = np.random.default_rng(0).permutation(len(mesh.faces))
    other = Mesh(mesh.vertices, np.roll(mesh.faces[order], 1, axis=1))
    np.testing.assert_array_equal(flat_spirals(mesh, 2), flat_spirals(other, 2))
    np.testing.assert_array_equal(ring_spirals(single(mesh))[0], ring_spirals(single(other))[0])


def test_every_level_starts_with_itself_and_repeats_nothing() -> None:
    hierarchy = build_hierarchy(grid(24, rough=0.2))
    for level, reference, ring in zip(
        hierarchy.levels, reference_spirals(hierarchy), ring_spirals(hierarchy), strict=True
    ):
        count = len(level.vertices)
        assert reference.dtype == ring.dtype == np.int64
        assert reference.shape[0] == ring.shape[0] == count and ring.shape[1] == 9
        assert np.array_equal(reference[:, 0], np.arange(count)) and np.array_equal(
            ring[:, 0], np.arange(count)
        )
        assert (
            reference.min() >= -1 and ring.min() >= 0 and max(reference.max(), ring.max()) < count
        )
        for spiral in reference.tolist():
            used = [vertex for vertex in spiral if vertex >= 0]
            assert len(used) == len(set(used))
        assert all(len(set(spiral)) == min(9, count) for spiral in ring.tolist())


def test_length_is_mean_and_two_deviations_and_cuts_the_rest() -> None:
    turn = np.arange(20) * np.pi / 10
    vertices = np.concatenate(
        [[[0.0, 0, 0]], np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)]
    )
    wheel = Mesh(vertices, np.array([[0, 1 + i, 1 + (i + 1) % 20] for i in range(20)]))
    sizes = np.array([1 + 20] + [1 + 3 + 1] * 20)  # the rim has three neighbors and a gap
    spirals = flat_spirals(wheel)
    assert spirals.shape == (21, int(sizes.mean() + 2 * sizes.std())) == (21, 12)
    assert spirals[0].tolist() == list(range(12))
    assert spirals[2].tolist() == [2, 0, 1, -1, 3] + [-1] * 7


def test_the_default_reference_is_the_lowest_of_the_nearest_to_the_centroid() -> None:
    spirals = flat_spirals(grid(4))  # 5, 6, 9 and 10 surround the middle
    assert spirals[5, 1] == 1 and spirals[10, 1] == 5


def test_dirty_levels_have_spirals() -> None:
    """Isolated and coincident vertices, an edge with three faces, two fans at one vertex,
    degenerate faces.
    """
    vertices = np.array(
        [
            [0.0, 0, 0],
            [1, 0, 0],
            [0, 1, 0],
            [0, -1, 0],
            [0, 0, 1],
            [3, 0, 0],
            [-1, 0, 0],
            [-1, 1, 0],
            [3, 0, 0],
        ]
    )
    faces = np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4], [0, 6, 7], [4, 4, 2], [3, 3, 3]])
    level = Level(vertices, faces, np.arange(9))
    hierarchy = Hierarchy((level,), (), ())
    (reference,) = reference_spirals(hierarchy, (2,), (1,))
    (ring,) = ring_spirals(hierarchy, seq_length=6)
    for vertex in (5, 8):
        assert without_tail(reference[vertex]) == [vertex]
    assert ring[8].tolist()[:2] == [8, 5] and ring[5].tolist()[:2] == [5, 8]
    assert np.array_equal(ring[:, 0], np.arange(9)) and all(
        len(set(spiral)) == 6 for spiral in ring.tolist()
    )
    assert set(ring_spirals(hierarchy, seq_length=7)[0][0].tolist()) == {0, 1, 2, 3, 4, 6, 7}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_steps": (2, 1)}, "n_steps: expected one positive number for each of 1 levels"),
        ({"n_steps": (1,), "dilation": (0,)}, "dilation: expected one positive"),
        (
            {"n_steps": (1,), "dilation": (1,), "references": [25]},
            r"references: expected vertex indices in 0\.\.24",
        ),
        ({"n_steps": (1,), "dilation": (1,), "references": [-1]}, "references"),
    ],
)
def test_bad_reference_options_are_named(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        reference_spirals(single(grid(5)), **options)


@pytest.mark.parametrize("options", [{"seq_length": 0}, {"dilation": 0}])
def test_bad_ring_options_are_named(options: dict) -> None:
    with pytest.raises(InputError, match="must be positive"):
        ring_spirals(single(grid(5)), **options)
