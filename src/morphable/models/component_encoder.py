"""ComponentEncoder: reads registered meshes through their principal components. It needs the order
of the vertices, and is smaller, faster and more exact than an encoder of points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count
from morphable.models.base import Shapes
from morphable.models.linear_basis import LinearBasis
from morphable.models.principal_basis import principal_basis


@dataclass(frozen=True)
class ComponentEncoderConfig(Configuration):
    """encoder: what meshes are encoded from, their `points`, which need no topology, as in the
    paper, or their principal `components`. rank: number of components. width, depth: units per
    hidden layer and number of hidden layers of the network that reads them.
    """

    encoder: Literal["points", "components"] = "points"
    rank: Count = 128
    width: Count = 256
    depth: Count = 2


class ComponentEncoder(nn.Module):
    """x -> (c, h(c)): c are whitened PCA coefficients (B, rank), h an MLP (B, width). A linear layer
    on both is a linear skip and the MLP's last layer.
    """

    def __init__(self, config: ComponentEncoderConfig, n_vertices: int) -> None:
        super().__init__()
        self.basis = LinearBasis(config.rank, n_vertices)
        layers: list[nn.Module] = []
        for number in range(config.depth):
            layers += [nn.Linear(config.width if number else config.rank, config.width), nn.SiLU()]
        self.hidden = nn.Sequential(*layers)
        self.features = config.rank + config.width

    def initialize(self, shapes: Shapes) -> None:
        """Compute the components of the training meshes (N, V, 3) mm."""
        self.basis.set(principal_basis(shapes, len(self.basis.components)))

    def of_meshes(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, rank + width)"""
        coefficients = self.basis.whitened(vertices)
        return torch.cat([coefficients, self.hidden(coefficients)], -1)

    def in_training(self, vertices: Tensor, generator: torch.Generator) -> Tensor:
        """The same; training encodes nothing else."""
        return self.of_meshes(vertices)
