"""Hierarchy: a template at decreasing resolutions, with sparse maps between consecutive levels.

A level is a subset of the template's vertices, in the template's order and positions. Source:
Ranjan et al., "Generating 3D faces using convolutional mesh autoencoders", ECCV 2018.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from morphable.errors import InputError
from morphable.files import content_hash
from morphable.mesh.cache import cached
from morphable.mesh.decimate import decimate
from morphable.mesh.mesh import Mesh
from morphable.mesh.stored_arrays import stored_indices, stored_numbers, stored_sparse
from morphable.mesh.topology import nonmanifold_edges
from morphable.mesh.upsample import up_map

MIN_VERTICES = 3
"""Vertices of the smallest level, which is one triangle."""
ALGORITHM = "quadric half-edge collapse, barycentric up, 4"
"""Part of the cache key: change it with anything that changes the result."""


@dataclass(frozen=True, eq=False)
class Level:
    """One resolution of a template.

    vertices: (n, 3) float64 mm. triangles: (T, 3) int64. kept: (n,) int64 template vertex of each
    of this level's vertices, ascending, so `regions[level.kept]` are this level's regions.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Levels from fine to coarse and the maps between them.

    levels: the first is the template itself, with its faces as triangles; they have n_0, n_1, ...
    vertices. down: for each step a (n_{i+1}, n_i) selection with a single 1 in every row. up: for
    each step a (n_i, n_{i+1}) interpolation without negative weights, whose rows sum to one.
    `down @ up` is the identity.
    """

    levels: tuple[Level, ...]
    down: tuple[sp.csr_matrix, ...]
    up: tuple[sp.csr_matrix, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(level.vertices) for level in self.levels)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the levels and the up maps as plain arrays; `down` follows from them."""
        arrays = {"vertices": self.levels[0].vertices}
        for i, level in enumerate(self.levels):
            arrays |= {
                f"{i}/triangles": level.triangles.astype(np.int32),
                f"{i}/kept": level.kept.astype(np.int32),
            }
        for i, up in enumerate(self.up):
            arrays |= {
                f"{i}/up_weights": up.data,
                f"{i}/up_columns": up.indices,
                f"{i}/up_rows": up.indptr,
            }
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Hierarchy:
        """Invert `to_arrays`, ignoring other keys.

        Raises InputError if an array is missing or wrong, whatever the file holds.
        """
        try:
            vertices = stored_numbers(arrays, "vertices", (None, 3)).astype(np.float64)
            count = sum(name.endswith("/kept") for name in arrays)
            levels = [_level(vertices, arrays, number) for number in range(max(1, count))]
            if len(levels[0].kept) != len(vertices):
                raise InputError(f"0/kept: expected all {len(vertices)} vertices")
            for number, (fine, coarse) in enumerate(_steps(levels)):
                if not np.isin(coarse.kept, fine.kept).all():
                    raise InputError(f"{number + 1}/kept: a vertex is not on the finer level")
            up = [
                _up(arrays, number, fine, coarse)
                for number, (fine, coarse) in enumerate(_steps(levels))
            ]
        except InputError as error:
            raise InputError(f"hierarchy: not a complete hierarchy ({error})") from error
        return _hierarchy(levels, up)


def build_hierarchy(mesh: Mesh, factors: Sequence[float] = (4, 4, 4, 4)) -> Hierarchy:
    """Decimate a template once per factor: the level after one of n vertices has ceil(n / factor).
    The levels end before one that would have fewer than three vertices; then a warning says so.

    The result is read from the cache if the same mesh was decimated with the same factors before.
    Warns if the mesh has edges with three or more faces, because coarse levels may then keep
    surplus faces.

    Raises InputError if a factor is one or less, or the mesh has no face.
    """
    for factor in factors:
        if not factor > 1:
            raise InputError(f"factors: each must be above 1, got {factor}")
    vertices = np.asarray(mesh.vertices, np.float64)
    triangles = mesh.triangles
    if not len(triangles):
        raise InputError("the template has no faces, which its coarser levels are made from")
    if surplus := len(nonmanifold_edges(triangles)):
        warnings.warn(
            f"the mesh has {surplus} edges with three or more faces; coarse levels may keep "
            "surplus faces"
        )
    key = content_hash(vertices, triangles, str(tuple(map(float, factors))), ALGORITHM)

    def read(arrays: Mapping[str, np.ndarray]) -> Hierarchy:
        hierarchy = Hierarchy.from_arrays(arrays)
        if not _fits(hierarchy.sizes, len(vertices), factors):
            raise InputError(f"hierarchy: levels of {hierarchy.sizes} do not fit the factors")
        return hierarchy

    hierarchy = cached(
        "hierarchy", key, lambda: _build(vertices, triangles, factors).to_arrays(), read
    )
    if (coarser := len(hierarchy.down)) < len(factors):
        warnings.warn(
            f"the template has {len(vertices)} vertices, enough for {coarser} of {len(factors)} "
            "coarser levels; networks have only those"
        )
    return hierarchy


def _build(vertices: np.ndarray, triangles: np.ndarray, factors: Sequence[float]) -> Hierarchy:
    levels = [Level(vertices, triangles, np.arange(len(vertices)))]
    up = []
    for factor in factors:
        fine = levels[-1]
        target = math.ceil(len(fine.vertices) / factor)
        if target < MIN_VERTICES:
            break
        chosen = decimate(fine.vertices, fine.triangles, target)
        coarse = Level(fine.vertices[chosen.kept], chosen.triangles, fine.kept[chosen.kept])
        up.append(up_map(fine.vertices, coarse.vertices, coarse.triangles, chosen.kept))
        levels.append(coarse)
    return _hierarchy(levels, up)


def _fits(sizes: Sequence[int], count: int, factors: Sequence[float]) -> bool:
    """Whether a mesh of `count` vertices can have levels of these sizes. A level has fewer vertices
    than it should if faces use only some of those of the level above.
    """
    steps = list(zip(sizes, sizes[1:], factors, strict=False))
    ended = len(steps) == len(factors) or sizes[-1] / factors[len(steps)] <= MIN_VERTICES - 1
    return (
        sizes[0] == count
        and len(sizes) == len(steps) + 1
        and ended
        and all(coarse <= math.ceil(fine / factor) for fine, coarse, factor in steps)
    )


def _hierarchy(levels: Sequence[Level], up: Sequence[sp.csr_matrix]) -> Hierarchy:
    """Complete a hierarchy with its `down` maps, which follow from `kept`."""
    down = [
        _selection(np.searchsorted(fine.kept, coarse.kept), len(fine.kept))
        for fine, coarse in _steps(levels)
    ]
    return Hierarchy(tuple(levels), tuple(down), tuple(up))


def _steps(levels: Sequence[Level]) -> Iterator[tuple[Level, Level]]:
    return itertools.pairwise(levels)


def _selection(rows: np.ndarray, count: int) -> sp.csr_matrix:
    return sp.csr_matrix(
        (np.ones(len(rows)), rows, np.arange(len(rows) + 1)), shape=(len(rows), count)
    )


def _level(vertices: np.ndarray, arrays: Mapping[str, np.ndarray], number: int) -> Level:
    kept = stored_indices(arrays, f"{number}/kept", (None,), len(vertices))
    if (np.diff(kept) <= 0).any():
        raise InputError(f"{number}/kept: expected vertices in ascending order")
    triangles = stored_indices(arrays, f"{number}/triangles", (None, 3), len(kept))
    return Level(vertices[kept], triangles, kept)


def _up(arrays: Mapping[str, np.ndarray], number: int, fine: Level, coarse: Level) -> sp.csr_matrix:
    shape = (len(fine.kept), len(coarse.kept))
    names = {
        "data": f"{number}/up_weights",
        "columns": f"{number}/up_columns",
        "rows": f"{number}/up_rows",
    }
    return stored_sparse(arrays, shape, **names)
