"""Linear starts of a model with two decoders: along the principal components of all meshes, or as
the linear model of identity and expression (`linear-two-space`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.models.base import Labels, Shapes
from morphable.models.linear_basis import LinearBasis
from morphable.models.linear_two_space import Offsets, people_and_expressive
from morphable.models.normalization import Normalization
from morphable.models.principal_basis import principal_basis

START_MESHES = 1000
"""Number of training meshes, evenly spread, whose principal components decoders can start at."""


@torch.no_grad()
def start_at_components(
    decoders: Sequence[nn.Sequential], shapes: Shapes, normalization: Normalization
) -> None:
    """Start decoders (linear, ReLU, linear) as linear functions whose outputs are mixtures of
    principal components.

    Hidden units come in pairs with opposite input weights. relu(a) - relu(-a) = a, so one unit
    moves the shape along a component and the other one moves it back. With a single rectified unit
    per component, which moves in one direction only, some runs never learned an expression.
    """
    subset = shapes[:: -(-len(shapes) // START_MESHES)]
    for decoder in decoders:
        first, last = _layers(decoder)
        pairs = first.out_features // 2
        basis = principal_basis(subset, pairs)
        moves = torch.from_numpy(basis.components * basis.deviations[:, None])
        moves = moves.to(normalization.std)
        first.weight[pairs : 2 * pairs] = -first.weight[:pairs]
        first.bias.zero_()
        last.weight.zero_()
        last.weight[:, : 2 * pairs] = torch.cat([moves, -moves]).T / normalization.std
        last.bias.zero_()


@dataclass(frozen=True, eq=False)
class TwoSpaces:
    """The linear model x = mean + identity code @ identity + expression code @ expression.

    mean: (3V,) mm. identity, expression: (L, 3V) mm; rows beyond the dimensions that vary are zero.
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray

    @classmethod
    def of(cls, shapes: Shapes, labels: Labels, identity: int, expression: int) -> Self | None:
        """Estimate both spaces, of these latent sizes: principal components of neutral meshes, and
        of offsets from them.

        labels: `neutral`, (N,) the row of each mesh's neutral mesh, -1 = none. Returns None if
        there are fewer than two neutral meshes, or fewer than two others.
        """
        neutral = labels.get("neutral", np.full(len(shapes), -1))
        people, expressive = people_and_expressive(neutral)
        if len(people) < 2 or len(expressive) < 2:
            return None
        offsets = Offsets(shapes, expressive, neutral[expressive])
        bases = principal_basis(shapes[people], identity), principal_basis(offsets, expression)
        scaled = [basis.components * basis.deviations[:, None] for basis in bases]
        return cls(bases[0].mean, *scaled)

    @torch.no_grad()
    def start(self, decoders: Sequence[nn.Sequential], normalization: Normalization) -> None:
        """Start the identity decoder and the full decoder (linear, ReLU, linear) as this model."""
        std = normalization.std.reshape(())
        mean, identity, expression = (
            torch.from_numpy(array).to(std) for array in (self.mean, self.identity, self.expression)
        )
        mean = (mean - normalization.mean.flatten()) / std
        codes = (identity, torch.cat([identity, expression]))
        for decoder, directions in zip(decoders, codes, strict=True):
            first, last = _layers(decoder)
            count = min(len(directions), first.out_features // 2)
            moves, rows = directions[:count] / std, torch.arange(count)
            # The first units do what the linear model does; the others begin with no effect.
            first.bias[: 2 * count] = 0
            first.weight[: 2 * count] = 0
            first.weight[rows, rows] = 1
            first.weight[count + rows, rows] = -1
            last.bias.copy_(mean)
            last.weight.zero_()
            last.weight[:, : 2 * count] = torch.cat([moves, -moves]).T

    @torch.no_grad()
    def start_posterior(self, layer: nn.Linear, basis: LinearBasis, log_variance: float) -> None:
        """Start a layer on whitened coefficients and other features as the posterior whose means
        are the codes of least squares, with one variance for all.

        layer: gives means and log variances of identity, then those of expression.
        """
        inverse = np.linalg.pinv(np.concatenate([self.identity, self.expression]))
        codes: Tensor = torch.from_numpy(inverse).to(basis.mean)
        shift = (basis.mean - torch.from_numpy(self.mean).to(basis.mean)) @ codes
        linear = ((basis.components * basis.units[:, None]) @ codes).T

        layer.weight.zero_()
        layer.bias.fill_(log_variance)
        sizes = [len(self.identity), len(self.expression)]
        rows = [torch.arange(sizes[0]), 2 * sizes[0] + torch.arange(sizes[1])]
        means = torch.cat(rows)
        layer.weight[means, : linear.shape[1]] = linear
        layer.bias[means] = shift


def _layers(decoder: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    """The first and the last layer."""
    first, last = decoder[0], decoder[-1]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    return first, last
