"""LocalRotations: how the surface is turned and stretched at some triangles. Bending a limb or a
finger changes these numbers in proportion, whereas its vertices move along arcs; so principal
components of them describe poses by fewer numbers (the idea of rotation-invariant and
as-consistent-as-possible deformation representations: Gao et al., 2016 and 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.mesh.stored_arrays import stored_indices
from morphable.mesh.template import Template
from morphable.models.base import blocks
from morphable.models.coefficient_start import ridge
from morphable.models.geometry import Arrays, Geometry
from morphable.ops.point_sampling import farthest_points
from morphable.ops.rotations import rotation_matrices, rotation_vectors

RIDGE = 1e-4
"""The variance of the noise that the regression of meshes on their deformations expects in these,
as a share of their mean variance.
"""
MIN_HEIGHT = 0.2
"""A triangle of the template whose height is less than this share of its longest side has no frame
to speak of, and is not read, unless there is no better one.
"""
LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class ReadTriangles(Geometry):
    """The triangles at which rotations are read, spread over the template. corners: (n, 3)."""

    corners: np.ndarray

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        if config.features == "positions":
            return cls(np.zeros((0, 3), np.int64))
        triangles = np.asarray(template.mesh.triangles, np.int64)
        places = np.asarray(template.mesh.vertices, np.float64)[triangles]
        sides = places - np.roll(places, 1, axis=1)
        longest = np.square(sides).sum(-1).max(1, initial=0.0)
        area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=-1)
        shape = area / np.maximum(longest, LEAST)
        large = np.flatnonzero(shape > min(MIN_HEIGHT, 0.5 * shape.max(initial=0.0)))
        if not len(large):
            raise InputError(
                "`features` rotations: the template has no triangles that have an area"
            )
        centers = torch.from_numpy(places[large].mean(1)[None])
        chosen = farthest_points(centers, min(config.triangles, len(large)))[0]
        return cls(triangles[large[chosen.numpy()]])

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"corners": self.corners}

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        return cls(stored_indices(arrays, "corners", (None, 3), template.n_vertices))


class LocalRotations(nn.Module):
    """Reads, at each of n triangles, the rotation R and the stretch U from the reference mesh, and
    makes coefficients of the whole mesh from them, which are almost linear in U R.

    A triangle's frame has rows edge, edge and normal, the normal as long as the root of twice the
    area. With frames in rows, frame(mesh) = frame(reference) U R.

    Rotation vectors and U - I are the features. What a network reads are the principal components
    of J f, where J is the derivative of the coefficients of the mesh by the features at their
    mean: as if all rotations were small ones. So a feature counts as much as it moves the surface,
    and the components are in mm. Features come back from the components by regression.

    deviations: (R,) mm of the components.
    """

    corners: Tensor

    def __init__(self, geometry: ReadTriangles, rank: int) -> None:
        """rank: number of coefficients of the whole mesh."""
        super().__init__()
        count = len(geometry.corners)
        self.register_buffer("corners", torch.from_numpy(geometry.corners), persistent=False)
        self.axes = nn.Buffer(torch.zeros(count, 3, 3))
        self.inverse = nn.Buffer(torch.zeros(count, 3, 3))
        self.weight = nn.Buffer(torch.zeros(9 * count, rank))
        self.bias = nn.Buffer(torch.zeros(rank))
        self.mean = nn.Buffer(torch.zeros(12 * count))
        self.reader = nn.Buffer(torch.zeros(12 * count, rank))
        self.writer = nn.Buffer(torch.zeros(rank, 12 * count))
        self.deviations = nn.Buffer(torch.ones(rank))

    @torch.no_grad()
    def choose_reference(self, shapes: np.ndarray) -> None:
        """Take the mesh nearest the mean of shapes (N, V, 3) mm as the reference.

        Raises InputError if one of the triangles has no area there.
        """
        mean = shapes.mean(0, dtype=np.float64)
        distance = np.concatenate([np.square(b - mean).sum((1, 2)) for b in blocks(shapes)])
        reference = torch.from_numpy(shapes[distance.argmin()]).double()
        axes, frames = _frames(reference[self.corners.cpu()])
        if not torch.linalg.det(frames).abs().min() > LEAST:
            raise InputError(
                "`features` rotations: a triangle of a training mesh has no area; take positions"
            )
        self.axes.copy_(axes)
        self.inverse.copy_(torch.linalg.inv(frames))

    def features(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, 12n): n rotation vectors in radians, then n stretches less one."""
        turn, stretch = self._parts(vertices)
        less = stretch - torch.eye(3).to(stretch)
        return torch.cat([rotation_vectors(turn).flatten(1), less.flatten(1)], 1)

    def deformation(self, features: Tensor) -> Tensor:
        """(B, 12n) -> (B, 9n), the entries of U R."""
        count = 3 * len(self.corners)
        turn = rotation_matrices(features[:, :count].unflatten(1, (-1, 3)))
        less = features[:, count:].unflatten(1, (-1, 3, 3))
        return ((torch.eye(3).to(features) + less) @ turn).flatten(1)

    def read(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, R) mm along the components of the features."""
        return (self.features(vertices) - self.mean) @ self.reader

    def write(self, components: Tensor) -> Tensor:
        """(B, R) mm as of `read` -> (B, R) mm coefficients of the whole mesh."""
        return self._coefficients(self.mean + components @ self.writer)

    def _coefficients(self, features: Tensor) -> Tensor:
        return self.deformation(features) @ self.weight + self.bias

    @torch.no_grad()
    def fit(self, meshes: Sequence[Tensor], coefficients: Tensor) -> None:
        """Compute the linear maps. meshes: N in blocks (n, V, 3) mm. coefficients: (N, R) mm of
        them.
        """
        features = torch.cat([self.features(block) for block in meshes])
        inputs = torch.cat([self.deformation(block) for block in features.split(256)])
        noise = max(RIDGE * float(inputs.var(0, correction=0).mean()), LEAST)
        weight, bias = ridge(inputs.double(), coefficients.double(), noise)
        self.weight.copy_(weight)
        self.bias.copy_(bias)

        self.mean.copy_(features.mean(0))
        centered = features - self.mean
        jacobian = torch.func.jacrev(lambda f: self._coefficients(f[None])[0])(self.mean)
        straight = (centered @ jacobian.T).double()
        values, axes = torch.linalg.eigh(straight.T @ straight)
        axes = axes.flip(1)
        axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # the sign is arbitrary
        spread = values.flip(0).clamp(min=0)
        existing = spread > LEAST * spread[0]
        found = straight @ axes
        back = (found.T @ centered.double()) / torch.where(existing, spread, 1.0)[:, None]
        self.reader.copy_(jacobian.T @ axes.to(jacobian))
        self.writer.copy_(back * existing[:, None])
        self.deviations.copy_((spread * existing / max(1, len(features) - 1)).sqrt())

    def _parts(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """R and U (B, n, 3, 3) of each triangle, for rows."""
        axes, frames = _frames(vertices[:, self.corners])
        turn = self.axes.transpose(-1, -2) @ axes
        return turn, self.inverse @ frames @ turn.transpose(-1, -2)


def _frames(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Of triangles (..., 3, 3): orthonormal axes, the first along the first edge, and frames; both
    (..., 3, 3) with vectors in rows. A triangle without area has some, which mean nothing.
    """
    first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    cross = torch.linalg.cross(first, second)
    area = (cross.square().sum(-1, keepdim=True) + LEAST).sqrt()
    normal = cross / area
    along = first / (first.square().sum(-1, keepdim=True) + LEAST).sqrt()
    axes = torch.stack([along, normal, torch.linalg.cross(along, normal)], -2)
    return axes, torch.stack([first, second, normal * area.sqrt()], -2)
