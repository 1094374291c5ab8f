"""multilinear: a Tucker model of a complete grid of subjects by expressions.

Vlasic et al., "Face transfer with multilinear models", SIGGRAPH 2005. The model is estimated by a
truncated higher-order SVD (De Lathauwer et al. 2000), then alternating rounds (higher-order
orthogonal iteration). The vertex mode is not compressed.
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
from morphable.models.carried import carried
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.parts import IdentityExpression
from morphable.rows import evenly_spread

ROUNDS = 10
"""Number of alternating rounds of the estimate."""
FITTING_ROUNDS = 60
"""Number of alternating rounds that fit both codes to a mesh."""
MAX_SUBJECTS = 200
"""At most this many subjects are used, evenly spread, because the grid is held in memory."""
RIDGE = 1e-6
"""Weight of the pull towards the mean training code, relative to the fit of the mesh. It keeps a
code bounded if the current value of the other code leaves it undetermined.
"""


@dataclass(frozen=True)
class MultilinearConfig(IdentityExpression):
    """Latent sizes of the two parts. A grid carries at most as many identity dimensions as it has
    subjects less one, and as many expression dimensions as it has expressions besides the neutral.
    """


class Multilinear(EstimatedModel):
    """x = sum_ij core_ij identity'_i expression'_j, where identity' = [1, identity] and expression'
    = [1, expression]. So core_00 is the mean shape.

    Because of the ones, each part also acts alone: zero is the mean subject, or the neutral
    expression.
    """

    needs_neutral = True
    encodes_by_search = True

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
        span = min(size, 3 * template.n_vertices)
        self.space = nn.Buffer(torch.zeros(span, 3 * template.n_vertices))
        self.reduced = nn.Buffer(torch.zeros(span, *leading))
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
        meshes = f"the grid's {people} subjects with {expressions - 1} expressions"
        config = carried(config, meshes, identity=people - 1, expression=expressions - 1)
        grid = (
            np.stack([vertices[row] for row in rows])
            .reshape(people, expressions, -1)
            .astype(np.float64)
        )
        core, identity, expression = tucker(grid, config.identity, config.expression)
        model = cls(template, config)
        model._set(core, (identity.std(0), expression.std(0)), expression.mean(0))
        model.prior.fit(
            torch.cat([model.encode(torch.from_numpy(block)) for block in blocks(vertices)])
        )
        return model

    def _set(
        self, core: np.ndarray, scales: tuple[np.ndarray, np.ndarray], expression: np.ndarray
    ) -> None:
        """Set the buffers, with codes in standard deviations (`scales`)."""
        config = self.config
        scaled = core * np.r_[1, scales[0]][:, None, None] * np.r_[1, scales[1]][None, :, None]
        # Fitting works in the span of the core, an orthonormal basis of a few dozen dimensions,
        # instead of all 3V coordinates. Least squares has the same solution there.
        flat = scaled.reshape(-1, core.shape[-1])
        space = np.linalg.qr(flat.T)[0].T
        self.core.copy_(torch.tensor(flat))
        self.space.copy_(torch.tensor(space))
        self.reduced.copy_(torch.tensor((space @ flat.T).reshape(-1, *scaled.shape[:2])))
        start = np.zeros(self.parts.size)
        start[config.identity :] = expression / np.maximum(scales[1], 1e-30)
        self.start.copy_(torch.tensor(start))

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """Fit both codes by alternating least squares, starting from the mean subject with the mean
        expression.
        """
        # If it started from the neutral expression, zero, the first identity would have to explain
        # the expression as well.

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
        self.check_code(code)
        identity, expression = (
            _with_one(code[:, self.parts[name]]) for name in ("identity", "expression")
        )
        weights = identity[:, :, None] * expression[:, None, :]
        return (weights.flatten(1) @ self.core).unflatten(1, (-1, 3))


def complete_grid(count: int, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Choose a complete grid (subjects, 1 + expressions) of row numbers. Column 0 is the neutral
    mesh; each expression is at its highest level.

    Subjects with at most half as many expressions as the best covered subject are left out. Of the
    others, only the expressions that all of them have are used.

    Raises InputError if fewer than two subjects have a neutral mesh and an expression in common.
    """
    nothing = np.full(count, -1)
    subject, expression, neutral = (
        labels.get(name, nothing) for name in ("subject", "expression", "neutral")
    )
    level = np.nan_to_num(labels.get("level", np.ones(count)), nan=1.0)
    # Highest level first, so that `setdefault` keeps that one.
    cells: dict[int, dict[int, int]] = {}
    for row in np.argsort(-level, kind="stable"):
        if subject[row] >= 0 and expression[row] >= 0 and neutral[row] >= 0 and neutral[row] != row:
            cells.setdefault(int(subject[row]), {}).setdefault(int(expression[row]), int(row))
    max_count = max((len(own) for own in cells.values()), default=0)
    people = [number for number, own in sorted(cells.items()) if 2 * len(own) > max_count]
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
    """Decompose meshes (P, E, D), with the neutral ones in column 0, into a core (1 + I, 1 + J, D),
    identity codes (P, I) and expression codes (E, J).

    The grid is approximated by the core contracted with [1, identity code] and [1, expression
    code]. The ones stand for the mean over subjects and for the neutral column. The rest is
    compressed by orthogonal iteration, which starts at the truncated higher-order SVD.
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
    # Shift the expression codes so that the neutral one is zero, then solve for the core.
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
    """(n, rank) leading left singular vectors of a tensor unfolded along `axis`. The sign of each
    makes its largest entry positive, so that the result can be repeated.
    """
    unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    vectors = np.linalg.eigh(unfolded @ unfolded.T)[1][:, ::-1][:, :rank]
    signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0))
    return vectors * signs


def _with_one(code: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(code[:, :1]), code], -1)


def _least_squares(acting: Tensor, y: Tensor, center: Tensor) -> Tensor:
    """(B, n) codes c that minimize |acting [1, c] - y|^2, with a slight pull to `center`.

    acting: (B, K, 1 + n), the model with the other code fixed. y: (B, K). center: (n,).
    """
    design, target = acting[:, :, 1:].double(), (y - acting[:, :, 0]).double()
    gram = design.transpose(1, 2) @ design
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None].clamp(min=1e-12)
    pull = ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    right = (design.transpose(1, 2) @ target[..., None]) + ridge * center.double()[:, None]
    return torch.linalg.solve(gram + pull, right)[..., 0].to(y)
