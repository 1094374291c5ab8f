"""linear-two-space: the principal components of neutral shapes, plus the principal components of
the offsets that expressions add. These are the shape spaces of FLAME (Li et al. 2017) without its
joints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, EstimatedModel, Given, Origin, Shapes, blocks
from morphable.models.carried import carried
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.parts import IdentityExpression
from morphable.models.principal_basis import principal_basis


@dataclass(frozen=True)
class TwoSpaceConfig(IdentityExpression):
    """Latent sizes of the two parts: 4 + 4 by default, as the IB-VAE has."""


class Offsets:
    """Offsets of N expressive meshes from their neutral meshes, followed by the same offsets
    negated: (2N, V, 3) mm, computed only when indexed.

    With both signs the mean is exactly zero. So the principal components pass through zero, and the
    expression code zero gives the neutral shape.

    shapes: all meshes. rows: (N,) the expressive ones. neutral: (N,) the row of each one's neutral
    mesh.
    """

    def __init__(self, shapes: Shapes, rows: np.ndarray, neutral: np.ndarray) -> None:
        self.shapes, self.rows, self.neutral = shapes, rows, neutral

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.shapes.shape[1:])

    def __len__(self) -> int:
        return 2 * len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        index = np.arange(len(self))[index]
        sign = np.where(index < len(self.rows), np.float32(1), np.float32(-1))
        return sign[:, None, None] * self.once(index % len(self.rows))

    def once(self, number: np.ndarray) -> np.ndarray:
        """(n, V, 3) mm the offsets of these numbers (n,) below N, as they are."""
        return self.shapes[self.rows[number]] - self.shapes[self.neutral[number]]


def people_and_expressive(neutral: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows (P,) of the neutral meshes, and those of all other meshes that have one.

    neutral: (N,) the row of each mesh's neutral mesh, -1 = none.
    """
    known = neutral >= 0
    return np.unique(neutral[known]), np.flatnonzero(known & (neutral != np.arange(len(neutral))))


def people_and_offsets(
    shapes: Shapes, neutral: np.ndarray, family: str
) -> tuple[np.ndarray, Offsets]:
    """The rows (P,) of the neutral meshes, and the offsets of all other meshes from theirs.

    neutral: (N,) the row of each mesh's neutral mesh, -1 = none. family: for the error message.

    Raises InputError if there are fewer than two neutral meshes or two others.
    """
    people, expressive = people_and_expressive(neutral)
    if len(people) < 2 or len(expressive) < 2:
        raise InputError(
            f"{family} needs the neutral meshes of at least two subjects and two meshes with an "
            f"expression (labels.csv, column neutral), got {len(people)} and {len(expressive)}"
        )
    return people, Offsets(shapes, expressive, neutral[expressive])


def damped_inverse(directions: np.ndarray) -> np.ndarray:
    """(D, L) the linear map from shapes to the most probable codes, if codes are standard normal
    and shapes = codes @ directions + noise of a hundredth of the longest direction.

    directions: (L, D). Short directions, which a pseudoinverse would answer with huge codes, get
    codes near zero.
    """
    gram = directions @ directions.T
    noise = 1e-4 * np.diag(gram).max()
    return np.linalg.solve(gram + noise * np.eye(len(gram)), directions).T


class LinearTwoSpace(EstimatedModel):
    """x = mean + S identity + E expression, with both codes in standard deviations.

    `encode` solves for both codes jointly, by least squares.
    """

    needs_neutral = True

    def __init__(
        self,
        template: Template,
        config: TwoSpaceConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, config.parts(), config, geometry, origin)
        width = 3 * template.n_vertices
        self.mean = nn.Buffer(torch.zeros(width))
        self.basis = nn.Buffer(torch.zeros(self.parts.size, width))
        self.inverse = nn.Buffer(torch.zeros(width, self.parts.size))

    @classmethod
    def estimate(
        cls,
        template: Template,
        vertices: Shapes,
        labels: Mapping[str, np.ndarray],
        config: TwoSpaceConfig,
    ) -> Self:
        neutral = labels.get("neutral", np.full(len(vertices), -1))
        people, offsets = people_and_offsets(vertices, neutral, "linear-two-space")
        identity = principal_basis(vertices[people], config.identity).existing(
            "linear-two-space: the neutral meshes of all subjects are equal"
        )
        expression = principal_basis(offsets, config.expression).existing(
            "linear-two-space: every mesh with an expression equals its neutral mesh"
        )
        meshes = f"{len(people)} subjects with {len(offsets.rows)} expressions"
        sizes = {"identity": len(identity.deviations), "expression": len(expression.deviations)}
        model = cls(template, carried(config, meshes, **sizes))
        # The two spaces are not orthogonal to each other, so projecting onto each separately would
        # count their overlap twice. The pseudoinverse of both gives the least squares solution.
        scaled = [space.components * space.deviations[:, None] for space in (identity, expression)]
        basis = np.concatenate(scaled)
        model.mean.copy_(torch.tensor(identity.mean))
        model.basis.copy_(torch.tensor(basis))
        model.inverse.copy_(torch.tensor(np.linalg.pinv(basis)))
        model.prior.fit(
            torch.cat([model.encode(torch.from_numpy(block)) for block in blocks(vertices)])
        )
        return model

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return (vertices.flatten(1) - self.mean) @ self.inverse

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return (self.mean + code @ self.basis).unflatten(1, (-1, 3))
