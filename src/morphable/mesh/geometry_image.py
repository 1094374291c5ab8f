"""Geometry images (Gu, Gortler and Hoppe, SIGGRAPH 2002): values at the vertices of a template as a
square image over its UV map, and back.

Both directions are constant sparse matrices, computed once per template and resolution:

- rasterize: every pixel whose center lies in a triangle of the map is the barycentric mean of the
  triangle's corners. All other pixels are empty and hold zero.
- read out: every vertex is the bilinear mean of the pixels around its place in the map.

`LaplacianReadout` is the other way back: the smoothest surface that passes near all pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree

from morphable.errors import InputError
from morphable.files import content_hash
from morphable.mesh.cache import cached
from morphable.mesh.laplacian import cotangent_laplacian
from morphable.mesh.mesh import Mesh
from morphable.mesh.parameterize import parameterize
from morphable.mesh.raster import coverage, rasterize
from morphable.mesh.stored_arrays import Arrays, stored_indices, stored_numbers, stored_sparse
from morphable.mesh.template import Template
from morphable.mesh.topology import triangulate

MARGIN = 1.0
"""Empty pixels between the map and the border of the image."""
MAX_RESOLUTION = 1024
"""Larger images than this, of 12 MiB each, are taken for a typing error."""
OVERLAP_GRID = 512
"""Side of the grid of points at which charts are tested for overlaps."""
MAX_OVERLAP = 0.01
"""Largest share of a map that may be covered twice. Scanned maps have a few folded triangles."""
ALPHA = 1.2
"""Weight of the Laplacian term as published, for displacements of any unit."""


@dataclass(frozen=True, eq=False)
class UvMap:
    """The triangles of a UV map.

    uv: (U, 2) texture coordinates, v upward. triangles: (T, 3) the mesh's vertices.
    uv_triangles: (T, 3) the rows of `uv` of the same corners. chart: (U,) number of the connected
    piece of the map that each row of `uv` belongs to.
    """

    uv: np.ndarray
    triangles: np.ndarray
    uv_triangles: np.ndarray

    @classmethod
    def of(cls, template: Template) -> Self:
        """The template's own map; if it has none, one that is computed from its shape.

        Raises InputError if it has no map and its surface is neither a disc nor a sphere.
        """
        mesh = template.mesh
        if template.uv is None or template.uv_faces is None:
            uv, uv_triangles = parameterize(mesh)
            return cls(uv, mesh.triangles, uv_triangles)
        # Triangulate corner numbers instead of vertices, so that both indices are split alike.
        faces = mesh.faces
        corners = np.where(faces >= 0, np.arange(faces.size).reshape(faces.shape), -1)
        split = triangulate(corners, np.asarray(mesh.vertices, np.float64)[faces.ravel()])
        uv_triangles = template.uv_faces.ravel()[split]
        return cls(np.asarray(template.uv, np.float64), faces.ravel()[split], uv_triangles)

    @cached_property
    def chart(self) -> np.ndarray:
        sides = np.concatenate([self.uv_triangles[:, [0, 1]], self.uv_triangles[:, [1, 2]]])
        graph = sp.coo_matrix((np.ones(len(sides)), sides.T), shape=(len(self.uv),) * 2)
        return np.asarray(connected_components(graph, directed=False)[1])

    def pixels(self, resolution: int) -> np.ndarray:
        """(U, 2) places x to the right, y down in an image of this side, in pixels: the box around
        all triangles is scaled alike in x and y and centered. Texture tiles stay side by side.
        """
        used = self.uv[np.unique(self.uv_triangles)]
        low, high = used.min(axis=0), used.max(axis=0)
        extent = float((high - low).max())
        if not extent > 0:
            raise InputError("template: all its texture coordinates are the same point")
        scale = (resolution - 2 * MARGIN) / extent
        places = (self.uv - (low + high) / 2) * scale
        return resolution / 2 + places * [1, -1]

    def overlap(self) -> float:
        """The share of the map that two triangles or more cover."""
        places = self.pixels(OVERLAP_GRID)
        counts = coverage(places, self.uv_triangles, OVERLAP_GRID, OVERLAP_GRID)
        return float((counts > 1).sum() / max(1, (counts > 0).sum()))


@dataclass(frozen=True, eq=False)
class GeometryImage:
    """Where each pixel lies on the surface of a template, and each vertex in the image.

    resolution: R, the side of the image in pixels. covered: (P,) the pixels that are not empty, as
    row * R + column, in ascending order. corners: (P, 3) the vertices of the triangle around each.
    weights: (P, 3) their barycentric weights. readout: (V, P) the weights of the covered pixels for
    each vertex.
    """

    resolution: int
    covered: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    readout: sp.csr_matrix

    @classmethod
    def of(cls, template: Template, resolution: int) -> Self:
        """Lay out the images of a template. The result is cached.

        Raises InputError if the resolution is out of range, or the template has no usable UV map.
        """
        if not 4 <= resolution <= MAX_RESOLUTION:
            raise InputError(
                f"`resolution` {resolution}: expected a whole number from 4 to {MAX_RESOLUTION}"
            )
        uv = [array for array in (template.uv, template.uv_faces) if array is not None]
        vertices = np.asarray(template.mesh.vertices, np.float64)
        key = content_hash(str(resolution), template.mesh.faces, vertices, *uv)
        return cached(
            "geometry-image",
            f"1 {key}",
            lambda: _lay_out(UvMap.of(template), vertices, resolution).to_arrays(),
            lambda arrays: cls.from_arrays(arrays, len(vertices)),
        )

    @property
    def n_vertices(self) -> int:
        return int(self.readout.shape[0])

    @cached_property
    def mask(self) -> np.ndarray:
        """(R, R) bool, True where the image is not empty."""
        mask = np.zeros(self.resolution**2, bool)
        mask[self.covered] = True
        return mask.reshape(self.resolution, self.resolution)

    @cached_property
    def raster(self) -> sp.csr_matrix:
        """(P, V) the weights of the vertices for each covered pixel, three per row."""
        start = np.arange(len(self.covered) + 1) * 3
        parts = (self.weights.ravel(), self.corners.ravel(), start)
        return sp.csr_matrix(parts, shape=(len(self.covered), self.n_vertices))

    def rasterize(self, values: np.ndarray) -> np.ndarray:
        """(N, V, C) values at vertices to (N, R, R, C) images, of the values' own type."""
        image = np.zeros((len(values), self.resolution**2, values.shape[2]), values.dtype)
        image[:, self.covered] = _apply(self.raster, values)
        return image.reshape(len(values), self.resolution, self.resolution, -1)

    def read(self, images: np.ndarray) -> np.ndarray:
        """(N, R, R, C) images to (N, V, C) values at vertices, bilinear. Empty pixels do not
        count, nor do pixels of another chart.
        """
        return _apply(self.readout, self.pixels_of(images))

    def pixels_of(self, images: np.ndarray) -> np.ndarray:
        """(N, R, R, C) images to the values (N, P, C) of the covered pixels."""
        side = self.resolution
        if images.ndim != 4 or images.shape[1:3] != (side, side):
            raise InputError(f"images: expected (N, {side}, {side}, C), got {images.shape}")
        return images.reshape(len(images), -1, images.shape[3])[:, self.covered]

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {
            "resolution": np.array([self.resolution]),
            "covered": self.covered.astype(np.int32),
            "corners": self.corners.astype(np.int32),
            "weights": self.weights,
            "readout/data": self.readout.data,
            "readout/indices": self.readout.indices.astype(np.int32),
            "readout/indptr": self.readout.indptr.astype(np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, n_vertices: int) -> Self:
        """The inverse of `to_arrays`. Raises InputError if an array is missing or does not fit."""
        side = int(stored_indices(arrays, "resolution", (1,), MAX_RESOLUTION + 1, at_least=4)[0])
        covered = stored_indices(arrays, "covered", (None,), side**2)
        if (np.diff(covered) <= 0).any():
            raise InputError("covered: expected pixels in ascending order")
        return cls(
            side,
            covered,
            stored_indices(arrays, "corners", (len(covered), 3), n_vertices),
            stored_numbers(arrays, "weights", (len(covered), 3)),
            stored_sparse(
                arrays,
                (n_vertices, len(covered)),
                data="readout/data",
                columns="readout/indices",
                rows="readout/indptr",
            ),
        )


class LaplacianReadout:
    """The way back of Eq. 4 of the paper of `gan`: the displacements u that minimize
    sum over pixels |(B u)_p - q_p|^2 + alpha |L u|^2, with B the rasterization, q the image and L
    the cotangent Laplacian of `mesh`. The system is factored once.

    Raises InputError if a piece of the surface has no pixel.
    """

    def __init__(self, layout: GeometryImage, mesh: Mesh, alpha: float = ALPHA) -> None:
        self.layout = layout
        triangles = mesh.triangles
        used = np.zeros(layout.n_vertices, bool)
        used[triangles] = True
        _require_pixels(layout, triangles, used)
        laplacian = cotangent_laplacian(mesh.vertices, triangles)
        raster = layout.raster
        # A vertex without a triangle moves with nothing, so its equation is u = 0.
        system = raster.T @ raster + alpha * (laplacian.T @ laplacian) + sp.diags_array(1.0 - used)
        self.factor = splu(
            sp.csc_matrix(system),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def read(self, images: np.ndarray) -> np.ndarray:
        """(N, R, R, C) images to (N, V, C) values at vertices, in double precision inside."""
        return self.solve(self.layout.pixels_of(images))

    def solve(self, pixels: np.ndarray) -> np.ndarray:
        """(N, P, C) values of the covered pixels to (N, V, C) values at vertices."""
        right = self.layout.raster.T @ _columns(pixels.astype(np.float64))
        return _rows(self.factor.solve(right), pixels.shape).astype(pixels.dtype)

    def transposed(self, values: np.ndarray) -> np.ndarray:
        """(N, V, C) to (N, P, C): the transpose of `solve`, which its gradient needs."""
        moved = self.factor.solve(_columns(values.astype(np.float64)))
        return _rows(self.layout.raster @ moved, values.shape).astype(values.dtype)


def quantize(images: np.ndarray, limit: float) -> np.ndarray:
    """Round values from -limit to limit to 256 levels, as an 8-bit image holds them. `limit` and
    -limit stay; an error is at most limit / 255.
    """
    step = 2 * limit / 255
    return np.clip(np.round((images + limit) / step), 0, 255) * step - limit


def _apply(matrix: sp.csr_matrix, values: np.ndarray) -> np.ndarray:
    """(n_out, n_in) times (N, n_in, C): (N, n_out, C)."""
    return _rows(matrix.astype(values.dtype) @ _columns(values), values.shape)


def _columns(values: np.ndarray) -> np.ndarray:
    """(N, n, C) to (n, N * C): one column for each right-hand side."""
    return np.ascontiguousarray(values.transpose(1, 0, 2)).reshape(values.shape[1], -1)


def _rows(columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_columns`, for values of `shape` (N, any, C)."""
    return columns.reshape(len(columns), shape[0], shape[2]).transpose(1, 0, 2)


def _lay_out(uv_map: UvMap, vertices: np.ndarray, resolution: int) -> GeometryImage:
    overlap = uv_map.overlap()
    if overlap > MAX_OVERLAP:
        raise InputError(
            f"template: {overlap:.0%} of its UV map is covered twice, so charts overlap or are "
            "mirrored onto each other; give each its own place in the map"
        )
    places = uv_map.pixels(resolution)
    flat = np.pad(places, ((0, 0), (0, 1)))
    seen = rasterize(flat, uv_map.uv_triangles, resolution, resolution)
    if not len(seen.pixel):
        raise InputError(f"`resolution` {resolution}: no pixel meets the template's UV map")
    corners = uv_map.triangles[seen.triangle]
    chart = uv_map.chart[uv_map.uv_triangles[seen.triangle, 0]]
    points = np.einsum("pk,pkx->px", seen.weights, vertices[corners])
    readout = _bilinear(uv_map, places, seen.pixel, chart, len(vertices), resolution)
    readout = _fill_from_nearest(readout, points, vertices)
    return GeometryImage(resolution, seen.pixel, corners, seen.weights, readout)


def _bilinear(
    uv_map: UvMap,
    places: np.ndarray,
    covered: np.ndarray,
    chart: np.ndarray,
    n_vertices: int,
    resolution: int,
) -> sp.csr_matrix:
    """(V, P) bilinear weights of the covered pixels of a vertex's own chart, which sum to one. A
    vertex with several places in the map reads their mean. Rows of vertices without such a pixel
    are empty.
    """
    number = np.full(resolution**2, -1)
    number[covered] = np.arange(len(covered))
    pairs = np.stack([uv_map.triangles.ravel(), uv_map.uv_triangles.ravel()], axis=1)
    vertex, place = np.unique(pairs, axis=0).T

    corner = places[place] - 0.5
    low = np.floor(corner).astype(np.int64)
    share = corner - low
    rows, columns, weights = [], [], []
    for dy in (0, 1):
        for dx in (0, 1):
            pixel = np.clip(low + np.array([dx, dy]), 0, resolution - 1)
            column = number[pixel[:, 1] * resolution + pixel[:, 0]]
            weight = np.abs(1 - dx - share[:, 0]) * np.abs(1 - dy - share[:, 1])
            own = (column >= 0) & (chart[column] == uv_map.chart[place]) & (weight > 1e-9)
            rows.append(np.flatnonzero(own))
            columns.append(column[own])
            weights.append(weight[own])
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    by_place = _normalized(sp.csr_matrix(entries, shape=(len(place), len(covered))))
    ones = (np.ones(len(vertex)), (vertex, np.arange(len(vertex))))
    return _normalized(sp.csr_matrix(ones, shape=(n_vertices, len(vertex))) @ by_place)


def _normalized(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The matrix with every row divided by its sum; empty rows stay empty."""
    total = np.asarray(matrix.sum(axis=1)).ravel()
    inverse = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    return sp.csr_matrix(sp.diags_array(inverse) @ matrix)


def _fill_from_nearest(
    readout: sp.csr_matrix, points: np.ndarray, vertices: np.ndarray
) -> sp.csr_matrix:
    """Let every vertex without a pixel read the pixel that is nearest on the template.

    points: (P, 3) mm, the place of each pixel on the surface.
    """
    empty = np.flatnonzero(np.diff(readout.indptr) == 0)
    nearest = KDTree(points).query(vertices[empty])[1] if len(empty) else empty
    entries = (np.ones(len(empty)), (empty, nearest))
    return sp.csr_matrix(readout + sp.csr_matrix(entries, shape=readout.shape))


def _require_pixels(layout: GeometryImage, triangles: np.ndarray, used: np.ndarray) -> None:
    """Raise InputError if a connected piece of the surface is met by no pixel."""
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    graph = sp.coo_matrix((np.ones(len(sides)), sides.T), shape=(layout.n_vertices,) * 2)
    piece = connected_components(graph, directed=False)[1]
    missed = np.setdiff1d(piece[used], piece[layout.corners])
    if len(missed):
        raise InputError(
            f"`resolution` {layout.resolution}: {len(missed)} pieces of the template's surface "
            "have no pixel; choose a larger one"
        )
