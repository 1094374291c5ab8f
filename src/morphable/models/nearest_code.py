"""A search for the code of least error, which starts at the code of an encoder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from morphable.config import Configuration, Range
from morphable.models.base import Given, TrainableModel
from morphable.models.linear_basis import LinearBasis
from morphable.rows import evenly_spread

SearchSteps = Annotated[int, Range("a whole number from 0 to 100", lambda n: 0 <= n <= 100)]

SEEN = 500
"""Errors are measured at so many vertices, evenly spread."""
BLOCK = 64
"""So many meshes are searched at a time."""
DAMPING = 1e-2
"""The first damping of a step, relative to the mean curvature; it falls to a tenth after a step
that helped, and grows tenfold after one that did not.
"""
SHORTEST = 1e-3
"""mm. A vertex that is nearer counts as if it were so far away."""


@torch.no_grad()
def nearest_code(
    code: Tensor, shape_of: Callable[[Tensor], Tensor], wanted: Tensor, steps: int
) -> Tensor:
    """(B, L) codes whose mean vertex errors are at most those of the given ones, by `steps` damped
    Gauss-Newton steps. Distances are made squares by weights 1 / distance, anew in each step.

    shape_of: codes (B, L) -> points (B, S, 3) mm, each shape by its own code alone. wanted: (B, S,
    3) mm.
    """
    directions = torch.eye(code.shape[1]).to(code)[:, None].expand(-1, *code.shape)

    def along(direction: Tensor) -> Tensor:
        moved: Tensor = torch.func.jvp(shape_of, (code,), (direction,))[1]
        return moved

    shape = shape_of(code)
    damping = torch.full_like(code[:, :1], DAMPING)
    for _ in range(steps):
        rest = shape - wanted
        distance = rest.norm(dim=-1)
        weight = distance.clamp(min=SHORTEST).rsqrt()[..., None]
        slope = (torch.func.vmap(along)(directions) * weight).flatten(2).transpose(0, 1)
        curvature = slope @ slope.transpose(1, 2)
        gradient = slope @ (rest * weight).flatten(1)[..., None]
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        added = damping * (diagonal + diagonal.mean(1, keepdim=True) + 1e-12)
        step = torch.linalg.solve(curvature + torch.diag_embed(added), gradient)[..., 0]
        moved = shape_of(code - step)
        better = (moved - wanted).norm(dim=-1).mean(1) < distance.mean(1)
        code = torch.where(better[:, None], code - step, code)
        shape = torch.where(better[:, None, None], moved, shape)
        damping = damping * torch.where(better[:, None], 0.1, 10.0)
    return code


@dataclass(frozen=True)
class SearchedConfig(Configuration):
    """search: how many steps `encode` takes from the encoder's code towards the one of least error. A
    step costs about as much as decoding as many meshes as the code has numbers.
    """

    search: SearchSteps = 0


class SearchedModel(TrainableModel):
    """A model on a linear basis whose `encode` searches from the code of its encoder on, by
    `model.search` steps. Training, validation and the gates use the encoder's code as it is.
    """

    basis: LinearBasis
    config: SearchedConfig

    @abstractmethod
    def encoded(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, L) by the encoder alone."""

    @abstractmethod
    def coefficients_of_code(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, K) mm along the components of the basis."""

    @property
    def encoder_is_network(self) -> bool:
        return not self.config.search

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """(B, V, 3) mm -> (B, L). Its gradient is that of the encoder, without the search."""
        self.check_vertices(vertices)
        code = self.encoded(vertices)
        if not self.config.search:
            return code
        found = self._searched(code.detach(), vertices.detach())
        return code + (found - code).detach()

    def _searched(self, code: Tensor, vertices: Tensor) -> Tensor:
        count = self.template.n_vertices
        seen = torch.from_numpy(evenly_spread(count, SEEN)).to(vertices.device)
        mean = self.basis.mean.unflatten(0, (-1, 3))[seen]
        components = self.basis.components.unflatten(1, (-1, 3))[:, seen].flatten(1)

        def shape_of(code: Tensor) -> Tensor:
            return mean + (self.coefficients_of_code(code) @ components).unflatten(1, (-1, 3))

        blocks = zip(code.split(BLOCK), vertices[:, seen].split(BLOCK), strict=True)
        return torch.cat(
            [nearest_code(codes, shape_of, wanted, self.config.search) for codes, wanted in blocks]
        )

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return self.basis.shape_with(self.coefficients_of_code(code))

    def validate(self, vertices: Tensor, stage: str) -> Tensor | None:
        errors: Tensor = (self.decode(self.encoded(vertices)) - vertices).norm(dim=-1)
        return errors
