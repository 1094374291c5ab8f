"""transport: carry the deformation of one shape over to another of the same topology (deformation
transfer, Sumner and Popovic, SIGGRAPH 2004).

A source moves from its neutral shape n to a posed one p. Per triangle, S = frame(p) frame(n)^-1 is
the linear map that does it, frame = (edge, edge, normal). The transported shape x of a target t
has edges as near as possible to

    (edge of p) + S (edge of t - edge of n)

in least squares, each edge of each triangle with weight one. For a triangle with a frame that is
S (edge of t), the published goal. So the matrix depends on the topology alone and is factored once
for all shapes, and x = t + (p - n) + u, where u solves for the edges (S - I) (edge of t - edge of
n): source and target alike give p to the last bit, and `offsets` is the same without u.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, splu

from morphable.errors import InputError
from morphable.mesh.align import procrustes
from morphable.mesh.topology import components, triangulate

Method = Literal["gradients", "offsets"]

MIN_HEIGHT = 1e-4
"""A triangle of the source whose height is less than this share of its longest side has no frame
to speak of; the similarity map of the whole shape stands in for its own.
"""
BLOCK = 32
"""Shapes that are solved for at once."""


@dataclass(frozen=True, eq=False)
class Transport:
    """Transports deformations between shapes of one topology. Make it once, apply it often.

    triangles: (T, 3). component: (V,) number of each vertex's connected component.
    """

    triangles: np.ndarray
    component: np.ndarray

    @classmethod
    def of(cls, faces: np.ndarray, n_vertices: int) -> Transport:
        """The transport of a topology. faces: (F, K), of which polygons are split from corner 0."""
        triangles = triangulate(np.asarray(faces, np.int64))
        return cls(triangles, components(triangles, n_vertices))

    def apply(
        self,
        neutral: np.ndarray,
        posed: np.ndarray,
        target: np.ndarray,
        method: Method = "gradients",
    ) -> np.ndarray:
        """Deform `target` as `neutral` was deformed into `posed`.

        neutral, posed, target: (V, 3), or (B, V, 3) each of a batch, which may be mixed. method:
        `gradients` turns the deformation with the surface that it moves, `offsets` adds posed -
        neutral. Returns (V, 3) or (B, V, 3) in the precision of `target`. The centroid moves as the
        source's does. Vertices without a triangle are components of their own.

        Raises InputError for an unknown method, shapes that do not fit, or a coordinate that is not
        finite.
        """
        if method not in get_args(Method):
            raise InputError(f"`method` {method!r}: expected one of {', '.join(get_args(Method))}")
        shapes = [
            self._checked(name, array)
            for name, array in (("neutral", neutral), ("posed", posed), ("target", target))
        ]
        try:
            n, p, t = np.broadcast_arrays(*shapes)
        except ValueError:
            sizes = ", ".join(str(shape.shape) for shape in shapes)
            raise InputError(
                f"neutral, posed, target: expected one shape or as many of each, got {sizes}"
            ) from None
        moved = t + (p - n)
        if method == "gradients":
            flat = moved.reshape(-1, *moved.shape[-2:])
            n, p, t = (array.reshape(flat.shape) for array in (n, p, t))
            for start in range(0, len(flat), BLOCK):
                part = slice(start, start + BLOCK)
                flat[part] += self._correction(n[part], p[part], t[part])
            moved = flat.reshape(moved.shape)
        kind = np.asarray(target).dtype
        return moved.astype(kind if np.issubdtype(kind, np.floating) else np.float64)

    def _checked(self, name: str, array: np.ndarray) -> np.ndarray:
        shape = np.asarray(array, np.float64)
        count = len(self.component)
        if shape.ndim not in (2, 3) or shape.shape[-2:] != (count, 3):
            raise InputError(f"`{name}`: expected (..., {count}, 3), got {shape.shape}")
        if not np.isfinite(shape).all():
            raise InputError(f"`{name}`: has a coordinate that is not finite")
        return shape

    def _correction(self, n: np.ndarray, p: np.ndarray, t: np.ndarray) -> np.ndarray:
        """u, (B, V, 3): what a deformation that turns with the surface adds to the offsets."""
        differ = t - n
        whole = procrustes(n, p, scale=True)
        linear = whole.scale[:, None, None] * whole.rotation
        a, b, c = self.triangles.T
        edges = np.stack([differ[:, b] - differ[:, a], differ[:, c] - differ[:, a]], axis=2)
        wanted = _turned(n[:, self.triangles], p[:, self.triangles], edges, linear) - edges

        # One column per shape and coordinate, so that one solve does for the block.
        columns = np.moveaxis(wanted, 0, 2).reshape(2 * len(self.triangles), -1)
        u = self._solve(self._divergence @ columns)
        u -= (self._means @ u)[self.component]

        # Components move apart, or around each other, as the whole shape turns and grows.
        centers = self._means @ np.moveaxis(differ, 0, 1).reshape(len(u), -1)
        apart = np.moveaxis(centers.reshape(len(centers), -1, 3), 1, 0)
        apart = apart - differ.mean(axis=1, keepdims=True)
        apart = apart @ np.swapaxes(linear, 1, 2) - apart
        return np.moveaxis(u.reshape(len(u), -1, 3), 1, 0) + apart[:, self.component]

    def _solve(self, columns: np.ndarray) -> np.ndarray:
        """(V, n): the solution of the normal equations with the first vertex of each component at
        zero.
        """
        solution = np.zeros_like(columns)
        if self._solver is not None:
            solution[self._free] = self._solver.solve(columns[self._free])
        return solution

    @cached_property
    def _free(self) -> np.ndarray:
        """All vertices but the first of each component."""
        first = np.unique(self.component, return_index=True)[1]
        return np.setdiff1d(np.arange(len(self.component)), first)

    @cached_property
    def _solver(self) -> SuperLU | None:
        """The factored normal equations of the free vertices, a graph Laplacian whose edges weigh
        as much as they have triangles; None if there are none.
        """
        if not len(self._free):
            return None
        sides = self.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        count = len(self.component)
        ends = (np.ones(len(sides)), (sides[:, 0], sides[:, 1]))
        weights = sp.csr_matrix(ends, shape=(count, count))
        weights = weights + weights.T
        laplacian = sp.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights
        free = sp.csc_matrix(laplacian)[self._free][:, self._free]
        symmetric = {"SymmetricMode": True}
        return splu(free.tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=symmetric)

    @cached_property
    def _divergence(self) -> sp.csr_matrix:
        """(V, 2T): from the two wanted edges of each triangle, b - a and c - a, to the right side
        of the normal equations. The third, c - b, is the difference of the two.
        """
        count = len(self.triangles)
        first, second = 2 * np.arange(count), 2 * np.arange(count) + 1
        rows = np.concatenate([self.triangles.T.ravel()] * 2)
        columns = np.concatenate([first] * 3 + [second] * 3)
        values = np.repeat([-1.0, 2.0, -1.0, -1.0, -1.0, 2.0], count)
        shape = (len(self.component), 2 * len(self.triangles))
        return sp.csr_matrix((values, (rows, columns)), shape=shape)

    @cached_property
    def _means(self) -> sp.csr_matrix:
        """(C, V): from vertices to the centroids of the components."""
        size = np.bincount(self.component)
        place = (self.component, np.arange(len(self.component)))
        return sp.csr_matrix((1 / size[self.component], place), shape=(len(size), len(place[0])))


def transport(
    neutral: np.ndarray,
    posed: np.ndarray,
    target: np.ndarray,
    faces: np.ndarray,
    method: Method = "gradients",
) -> np.ndarray:
    """Deform `target` as `neutral` was deformed into `posed`: deformation transfer without a model.

    neutral, posed, target: (V, 3), or (B, V, 3) each of a batch, which may be mixed; in any unit.
    faces: (F, K) the topology that they share. method: `gradients` turns the deformation with the
    surface that it moves, `offsets` adds posed - neutral. Returns (V, 3) or (B, V, 3) in the
    precision of `target`. For many calls make a `Transport` once.

    Raises InputError as `Transport.apply` does.
    """
    return Transport.of(faces, np.shape(target)[-2]).apply(neutral, posed, target, method)


def _turned(n: np.ndarray, p: np.ndarray, edges: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """S applied to the edges (B, T, 2, 3) of each triangle.

    n, p: (B, T, 3, 3) corners of the source's triangles. whole: (B, 3, 3), instead of the S of
    triangles without a frame.
    """
    first, second = n[:, :, 1] - n[:, :, 0], n[:, :, 2] - n[:, :, 0]
    cross = np.cross(first, second)
    area = np.linalg.norm(cross, axis=-1, keepdims=True)
    third = second - first
    longest = np.max([(side**2).sum(-1, keepdims=True) for side in (first, second, third)], axis=0)
    flat = area <= MIN_HEIGHT * longest

    # frame(n)^-1 has these rows. Along the normal, lengths change as the root of the area does.
    inverse = [np.cross(second, cross), np.cross(cross, first), cross * np.sqrt(area)]
    rows = np.stack(inverse, axis=-2) / np.where(flat, 1, area**2)[..., None]
    one, two = p[:, :, 1] - p[:, :, 0], p[:, :, 2] - p[:, :, 0]
    normal = np.cross(one, two)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = normal / np.sqrt(np.where(length > 0, length, 1))
    frame = np.stack([one, two, normal], axis=-2)

    turned = (edges @ np.swapaxes(rows, -1, -2)) @ frame
    return np.where(flat[..., None], edges @ np.swapaxes(whole, 1, 2)[:, None], turned)
