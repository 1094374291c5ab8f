"""mae: the multilinear autoencoder, a network that finds the codes of a Tucker model's decoder, and
is trained together with it.

Abrevaya, Wuhrer and Boyer, "Multilinear autoencoder for 3D face model learning", WACV 2018. They
start at the higher-order SVD of a complete grid of labelled meshes. Few datasets have one, so this
one starts at the two linear spaces of `linear_two_space.py`, and learns the rest of the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Count, PositiveOrZero
from morphable.mesh.template import Template
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    Given,
    Labels,
    Origin,
    Shapes,
    TrainableModel,
)
from morphable.models.carried import carried_by_people
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.linear_basis import LinearBasis
from morphable.models.linear_two_space import damped_inverse, people_and_offsets
from morphable.models.parts import IdentityExpression
from morphable.models.pca_mlp import mlp
from morphable.models.principal_basis import principal_basis
from morphable.models.training import Batch, Progress

FULL_LEVEL = 0.9
"""From this level on, meshes with the same named expression should have the same code."""


@dataclass(frozen=True)
class MaeConfig(IdentityExpression):
    """rank: number of PCA coefficients that the network reads and the tensor makes. width, depth:
    of the hidden layers of the encoder. consistency_weight: of the errors with exchanged codes.
    """

    identity: Count = 65
    expression: Count = 20
    rank: Count = 200
    width: Count = 256
    depth: Count = 2
    consistency_weight: PositiveOrZero = 1.0

    proportions: ClassVar[Mapping[str, int]] = {"identity": 65, "expression": 20}


class MultilinearAutoencoder(TrainableModel):
    """c = sum_ij core_ij identity'_i expression'_j, where c are PCA coefficients, identity' = [1,
    identity] and expression' = [1, expression]. The code is a linear map plus an MLP of the
    coefficients of the mesh.

    loss = squared error of the mesh + consistency_weight * (squared errors of the neutral mesh and
    of meshes decoded with the code of another mesh that has the same subject or expression).

    Meshes with a label in common should have that part of the code in common. A distance between
    the codes could be made small by small codes; the error of an exchange cannot.
    """

    needs_neutral = True
    labels_used = ("subject", "expression", "level", "neutral")
    labels_drawn = ("expression",)

    def __init__(
        self,
        template: Template,
        config: MaeConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, config.parts(), config, geometry, origin)
        self.basis = LinearBasis(config.rank, template.n_vertices)
        self.unit = nn.Buffer(torch.ones(()))  # mm, of the coefficients that the core makes
        core = torch.zeros(1 + config.identity, 1 + config.expression, config.rank)
        self.core = nn.Parameter(core)
        self.encoder_linear = nn.Linear(config.rank, self.parts.size)
        self.encoder = mlp([config.rank, *[config.width] * config.depth, self.parts.size])

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]], meshes: int) -> Any:
        return carried_by_people(config, classes, meshes)

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        config = self.config
        neutral = labels.get("neutral", np.full(len(shapes), -1))
        people, offsets = people_and_offsets(shapes, neutral, "mae")
        self.basis.set(principal_basis(shapes, config.rank))
        identity = principal_basis(shapes[people], config.identity)
        expression = principal_basis(offsets, config.expression)

        components = self.basis.components.double().cpu().numpy()
        center = components @ (identity.mean - self.basis.mean.double().cpu().numpy())
        directions = [
            (space.components * space.deviations[:, None]) @ components.T
            for space in (identity, expression)
        ]
        unit = float(self.basis.deviations[: self.parts.size].mean())
        self.unit.fill_(unit)
        # The codes of coefficients c = center + code @ directions.
        inverse = damped_inverse(np.concatenate(directions))
        units = self.basis.units.double().cpu().numpy()
        with torch.no_grad():
            self.core.zero_()
            self.core[0, 0] = torch.tensor(center / unit)
            self.core[1:, 0] = torch.tensor(directions[0] / unit)
            self.core[0, 1:] = torch.tensor(directions[1] / unit)
            self.encoder_linear.weight.copy_(torch.tensor((units[:, None] * inverse).T))
            self.encoder_linear.bias.copy_(torch.tensor(-center @ inverse))

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return self._encoded(self.basis.whitened(vertices))

    def _encoded(self, whitened: Tensor) -> Tensor:
        code: Tensor = self.encoder_linear(whitened) + self.encoder(whitened)
        return code

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return self.basis.shape_with(self.coefficients(code))

    def coefficients(self, code: Tensor) -> Tensor:
        """(B, L) to (B, rank) PCA coefficients in mm."""
        one = torch.ones_like(code[:, :1])
        identity, expression = (
            torch.cat([one, code[:, self.parts[name]]], 1) for name in ("identity", "expression")
        )
        weights = identity[:, :, None] * expression[:, None, :]
        return weights.flatten(1) @ self.core.flatten(0, 1) * self.unit

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        assert batch.neutral is not None
        whitened, neutral = self.basis.whitened(batch.vertices), self.basis.whitened(batch.neutral)
        code, person = self._encoded(whitened), self._encoded(neutral)
        identity, expression = self.parts["identity"], self.parts["expression"]
        alone = code.clone()
        alone[:, expression] = 0
        exchanged = code.clone()
        exchanged[:, identity] = person[:, identity]
        terms = {
            "mesh": self._error(code, whitened),
            "neutral": self._error(alone, neutral),
            "same_subject": self._error(exchanged, whitened),
        }

        drawn = batch.labelled.get("expression", batch)
        numbers = drawn.labels.get("expression")
        if numbers is not None:
            level = drawn.labels.get("level")
            full = numbers >= 0 if level is None else (numbers >= 0) & (level >= FULL_LEVEL)
            rows, others = same_class(numbers, full)
            if len(rows):
                labelled = self.basis.whitened(drawn.vertices)
                mixed = self._encoded(labelled)
                exchanged = mixed[rows].clone()
                exchanged[:, expression] = mixed[others][:, expression]
                terms["same_expression"] = self._error(exchanged, labelled[rows])
        weight = self.config.consistency_weight
        return {name: term * (1 if name == "mesh" else weight) for name, term in terms.items()}

    def _error(self, code: Tensor, whitened: Tensor) -> Tensor:
        """Mean squared distance per vertex in mm^2, apart from what the coefficients cannot say."""
        difference = self.coefficients(code) - whitened * self.basis.units
        return difference.square().sum(1).mean() / self.template.n_vertices


def same_class(numbers: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (n,) of usable meshes whose class another usable mesh has, too, and for each the
    next such mesh, in a ring.

    >>> same_class(torch.tensor([4, 7, 4, 4, 9]), torch.tensor([True, True, True, True, False]))
    (tensor([0, 2, 3]), tensor([2, 3, 0]))
    """
    rows, others = [], []
    for number in numbers[usable].unique():
        own = torch.nonzero((numbers == number) & usable)[:, 0]
        if len(own) > 1:
            rows.append(own)
            others.append(own.roll(-1))
    nothing = numbers.new_zeros(0)
    return torch.cat([nothing, *rows]), torch.cat([nothing, *others])
