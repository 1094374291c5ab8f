"""multilinear: a Tucker model of a complete grid of subjects by expressions.

Vlasic et al., "Face transfer with multilinear models", SIGGRAPH 2005; truncated higher-order SVD
(De Lathauwer et al. 2000) followed by alternating rounds (higher-order orthogonal iteration).
Vertices are not compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, EstimatedModel, Given, Origin, Shapes, blocks
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.parts import IdentityExpression
from morphable.rows import evenly_spread

ROUNDS = 10
"""Alternating rounds of the estimate."""
FITTING_ROUNDS = 60
"""Alternating rounds of fitting both codes to a mesh."""
MAX_SUBJECTS = 200
"""The grid is held in memory, so at most this many subjects are used, evenly spread."""
RIDGE = 1e-6
"""Weight of a code's distance to the mean of the training codes, relative to the fit of the mesh.
It keeps a code bounded if the other code leaves it undetermined.
"""


@dataclass(frozen=True)
class MultilinearConfig(IdentityExpression):
    """Sizes of the two parts: useful are at most as many as the grid has subjects, and expressions
    besides the neutral.
    """


class Multilinear(EstimatedModel):
    """x = sum_ij core_ij identity'_i expression'_j, where a prime puts a one before a code: core_00
    is the mean shape.

    So each part also acts alone, and zero is the mean person and the neutral expression.
    """

    needs_neutral = True

    def __init__(
        self,
        template: Template,
        config: MultilinearConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, config.parts(), config, geometry, origin)
        leading = (1 + config.identity, 1 + config.expression)
        size = leading[0] * leading[1]
        self.core = nn.Buffer(torch.zeros(size, 3 * template.n_vertices))
        self.space = nn.Buffer(torch.zeros(size, 3 * template.n_vertices))
        self.reduced = nn.Buffer(torch.zeros(size, *leading))
        self.start = nn.Buffer(torch.zeros(self.parts.size))

    @classmethod
    def estimate(
        cls,
        template: Template,
        vertices: Shapes,
        labels: Mapping[str, np.ndarray],
        config: MultilinearConfig,
    ) -> Self:
        rows = complete_grid(len(vertices), labels)
        people, expressions = rows.shape
        grid = (
            np.stack([vertices[row] for row in rows])
            .reshape(people, expressions, -1)
            .astype(np.float64)
        )
        ranks = min(config.identity, people - 1), min(config.expression, expressions - 1)
        core, identity, expression = tucker(grid, *ranks)
        model = cls(template, config)
        model._set(core, (identity.std(0), expression.std(0)), expression.mean(0))
        model.prior.fit(
            torch.cat([model.encode(torch.from_numpy(block)) for block in blocks(vertices)])
        )
        return model

    def _set(
        self, core: np.ndarray, scales: tuple[np.ndarray, np.ndarray], expression: np.ndarray
    ) -> None:
        """Set the buffers for codes in standard deviations. Dimensions beyond what the grid allows
        do nothing.
        """
        config = self.config
        padded = np.zeros((1 + config.identity, 1 + config.expression, core.shape[-1]))
        scaled = core * np.r_[1, scales[0]][:, None, None] * np.r_[1, scales[1]][None, :, None]
        padded[: len(scaled), : scaled.shape[1]] = scaled
        flat = padded.reshape(-1, core.shape[-1])
        space = np.linalg.qr(flat.T)[0].T
        self.core.copy_(torch.tensor(flat))
        self.space.copy_(torch.tensor(space))
        self.reduced.copy_(torch.tensor((space @ flat.T).reshape(-1, *padded.shape[:2])))
        start = np.zeros(self.parts.size)
        start[config.identity : config.identity + len(expression)] = expression / np.maximum(
            scales[1], 1e-30
        )
        self.start.copy_(torch.tensor(start))

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """Both codes by alternating least squares, from the mean person with the mean
        expression.
        """
        self.check_vertices(vertices)
        y = vertices.flatten(1) @ self.space.T
        where = self.parts["identity"], self.parts["expression"]
        identity, expression = (self.start[part].expand(len(y), -1) for part in where)
        for _ in range(FITTING_ROUNDS):
            acting = torch.einsum("kij,bj->bki", self.reduced, _with_one(expression))
            identity = _least_squares(acting, y, self.start[where[0]])
            acting = torch.einsum("kij,bi->bkj", self.reduced, _with_one(identity))
            expression = _least_squares(acting, y, self.start[where[1]])
        return torch.cat([identity, expression], -1)

    def decode(self, code: Tensor) -> Tensor:
        identity, expression = (
            _with_one(code[:, self.parts[name]]) for name in ("identity", "expression")
        )
        weights = identity[:, :, None] * expression[:, None, :]
        return (weights.flatten(1) @ self.core).unflatten(1, (-1, 3))


def complete_grid(count: int, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """(subjects, expressions) rows of a complete grid, each expression at its highest level, the
    neutral in column 0.

    Subjects with at most half as many expressions as the one with most are left out, then the
    expressions that one of the others lacks. Raises InputError unless two subjects have a neutral
    mesh and an expression in common.
    """
    nothing = np.full(count, -1)
    subject, expression, neutral = (
        labels.get(name, nothing) for name in ("subject", "expression", "neutral")
    )
    level = np.nan_to_num(labels.get("level", np.ones(count)), nan=1.0)
    cells: dict[int, dict[int, int]] = {}
    for row in np.argsort(-level, kind="stable"):
        if subject[row] >= 0 and expression[row] >= 0 and neutral[row] >= 0 and neutral[row] != row:
            cells.setdefault(int(subject[row]), {}).setdefault(int(expression[row]), int(row))
    most = max((len(found) for found in cells.values()), default=0)
    people = [number for number, found in sorted(cells.items()) if 2 * len(found) > most]
    common = sorted(set.intersection(*(set(cells[number]) for number in people))) if people else []
    if len(people) < 2 or not common:
        raise InputError(
            "multilinear needs a complete grid: at least two subjects, each with a neutral "
            "mesh and the same named "
            f"expressions (labels.csv: subject, expression, neutral), got {len(people)} "
            "subjects with "
            f"{len(common)} expressions in common"
        )
    people = [people[i] for i in evenly_spread(len(people), MAX_SUBJECTS)]
    return np.array(
        [[neutral[cells[p][common[0]]], *(cells[p][e] for e in common)] for p in people]
    )


def tucker(
    grid: np.ndarray, identity: int, expression: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decompose (P, E, D) meshes, the neutral in column 0: core (1 + I, 1 + J, D), codes (P, I),
    codes (E, J).

    grid ~ core contracted with [1, identity code] and [1, expression code]. The ones stand for the
    mean over subjects and for the neutral column; the rest is compressed by orthogonal iteration
    from the truncated higher-order SVD.
    """
    relative = grid - grid[:, :1]
    people = _leading(
        np.concatenate([grid[:, :1] - grid[:, :1].mean(0), relative - relative.mean(0)], 1),
        0,
        identity,
    )
    faces = _leading(relative, 1, expression)
    for _ in range(ROUNDS):
        faces = _leading(
            np.einsum("ped,pi->ied", relative, np.c_[np.ones(len(people)), people]), 1, expression
        )
        centered = np.concatenate(
            [grid[:, :1] - grid[:, :1].mean(0), np.einsum("ped,ej->pjd", relative, faces)], 1
        )
        people = _leading(centered - centered.mean(0), 0, identity)
    designs = np.c_[np.ones(len(people)), people], np.c_[np.ones(len(faces)), faces - faces[0]]
    core = np.einsum(
        "ip,je,ped->ijd",
        np.linalg.pinv(designs[0]),
        np.linalg.pinv(designs[1]),
        grid,
        optimize=True,
    )
    return core, people, faces - faces[0]


def _leading(tensor: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """(n, rank) leading left singular vectors of the unfolding of a tensor along `axis`."""
    unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    vectors = np.linalg.eigh(unfolded @ unfolded.T)[1][:, ::-1][:, :rank]
    signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0))
    return vectors * signs


def _with_one(code: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(code[:, :1]), code], -1)


def _least_squares(acting: Tensor, y: Tensor, center: Tensor) -> Tensor:
    """(B, n) codes c for which acting [1, c] is nearest to y, with a slight pull to `center`;
    acting: (B, K, 1 + n).
    """
    design, target = acting[:, :, 1:].double(), (y - acting[:, :, 0]).double()
    gram = design.transpose(1, 2) @ design
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None].clamp(min=1e-12)
    pull = ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    right = (design.transpose(1, 2) @ target[..., None]) + ridge * center.double()[:, None]
    return torch.linalg.solve(gram + pull, right)[..., 0].to(y)
