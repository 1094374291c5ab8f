"""PartDecoder: decodes K part codes into one shape, each part where its weights are.

The paper says only that "each pre-computed local weight is multiplied by each latent vector". It
does not say how a weight per vertex multiplies a code, so there are four readings:

- `features`: sum_k w_k(v) F_k(v), where F_k are the features that the first steps of the decoder
  make of part k. The other steps go on with the sum.
- `output`: sum_k w_k(v) D_k(v), where D_k is the shape that the whole decoder makes of part k. So a
  part moves nothing where its weight is zero.
- `outer`: f(sum_k w_k(v) z_k, position of v), where f is a small network for all vertices.
- `latent`: D(sum_k w_k * z_k), where w_k has one number per latent dimension.

`sum` uses no weights: D(sum_k z_k).

Letters: B batch, K parts, Z latent size, V vertices, n vertices of a level, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Count, CountOrZero
from morphable.mesh.regions import farthest_points
from morphable.models.autoencoder import AutoencoderConfig
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.mesh_network import MeshDecoder, activation
from morphable.models.part_weights import PartWeightsConfig

Decode = Callable[[Tensor], Tensor]
Reading = Literal["features", "output", "outer", "latent", "sum"]


@dataclass(frozen=True)
class PartDecoderConfig(PartWeightsConfig, AutoencoderConfig):
    """latent: Z, the size of each part's code. reading: see this module. blend_level: in the
    reading `features`, the level of the hierarchy on which the parts are summed, 0 = the finest; a
    hierarchy with fewer levels sums on its coarsest. pointwise_width: in the reading `outer`, the
    width of the small network.
    """

    latent: Count = 64
    reading: Reading = "output"
    blend_level: CountOrZero = 4
    pointwise_width: Count = 64


class PartDecoder(nn.Module):
    """Maps part codes (B, K, Z) to normalized coordinates (B, V, 3).

    Buffer: weights (V, K), whose rows sum to one. Before training they are equal.
    """

    def __init__(
        self, geometry: MeshGeometry, config: PartDecoderConfig, maps: nn.ModuleList
    ) -> None:
        super().__init__()
        levels = geometry.hierarchy.levels
        vertices = np.asarray(levels[0].vertices)
        self.reading = config.reading
        self.weights = nn.Buffer(torch.full((len(vertices), config.parts), 1 / config.parts))

        if self.reading == "outer":
            self.positions = nn.Buffer(_standardized(vertices), persistent=False)
            self.pointwise = _pointwise(config)
            return

        self.activation = activation(config) if config.bottleneck_activation else nn.Identity()
        self.decoder = MeshDecoder(geometry, config, maps)
        n, channels = self.decoder.shape
        self.from_code = nn.Linear(config.latent, n * channels)

        if self.reading == "latent":
            places = _spread_vertices(vertices, config.latent)
            self.weighted = nn.Buffer(torch.from_numpy(places), persistent=False)
        elif self.reading == "features":
            level = min(config.blend_level, len(levels) - 1)
            self.blend_after = len(levels) - 1 - level
            kept = torch.from_numpy(np.asarray(levels[level].kept))
            self.weighted = nn.Buffer(kept, persistent=False)

    def forward(self, parts: Tensor) -> Tensor:
        return self.blend(self.decode_parts(parts))

    def decode_parts(self, parts: Tensor) -> Tensor:
        """(B, K, Z) -> (B, K, ...) what the decoder makes of each part by itself, before the parts
        are summed; the codes themselves where they are summed first.
        """
        match self.reading:
            case "features":
                return self._one_by_one(parts, self._first_steps)
            case "output":
                return self._one_by_one(parts, self._shape)
            case "outer" | "latent" | "sum":
                return parts

    def blend(self, decoded: Tensor) -> Tensor:
        """(B, K, ...) what `decode_parts` returns -> (B, V, 3)."""
        match self.reading:
            case "features":
                return self._blend_features(decoded)
            case "output":
                return _weighted_sum(decoded, self.weights)
            case "outer":
                return self._outer(decoded)
            case "latent":
                return self._shape((decoded * self.weights[self.weighted].T).sum(1))
            case "sum":
                return self._shape(decoded.sum(1))

    @property
    def layers(self) -> list[nn.Module]:
        """The convolutions and linear layers, in order, to initialize them."""
        if self.reading == "outer":
            return [layer for layer in self.pointwise if isinstance(layer, nn.Linear)]
        return [*self.decoder.layers, self.from_code]

    def _first_steps(self, codes: Tensor) -> Tensor:
        """(B, Z) -> (B, n, C) features of the level on which the parts are summed."""
        return self.decoder.refine(self._features(codes), 0, self.blend_after)

    def _blend_features(self, features: Tensor) -> Tensor:
        decoder = self.decoder
        weights = self.weights[self.weighted]
        # SpiralNet's dummy vertex, the last of the coarsest level, belongs to all parts equally.
        extra = features.shape[2] - len(weights)
        weights = nn.functional.pad(weights, (0, 0, 0, extra), value=1 / weights.shape[1])
        return decoder.finish(
            decoder.refine(_weighted_sum(features, weights), self.blend_after, decoder.steps)
        )

    def _outer(self, parts: Tensor) -> Tensor:
        local = torch.einsum("vk,bkz->bvz", self.weights, parts)
        positions = self.positions.expand(len(parts), -1, -1)
        shapes: Tensor = self.pointwise(torch.cat([local, positions], 2))
        return shapes

    def _features(self, codes: Tensor) -> Tensor:
        """(B, Z) -> (B, n, C) features of the coarsest level."""
        return self.activation(self.from_code(codes)).unflatten(1, self.decoder.shape)

    def _shape(self, codes: Tensor) -> Tensor:
        """(B, Z) -> (B, V, 3) by the whole decoder."""
        return self.decoder(self._features(codes))

    @staticmethod
    def _one_by_one(parts: Tensor, decode: Decode) -> Tensor:
        """Decode every part by itself: (B, K, Z) -> (B, K, n, C)."""
        return decode(parts.flatten(0, 1)).unflatten(0, parts.shape[:2])


def _weighted_sum(features: Tensor, weights: Tensor) -> Tensor:
    """Sum features (B, K, n, C) over the parts with weights (n, K): (B, n, C)."""
    return (features * weights.T[:, :, None]).sum(1)


def _pointwise(config: PartDecoderConfig) -> nn.Sequential:
    width = config.pointwise_width
    return nn.Sequential(
        nn.Linear(config.latent + 3, width),
        activation(config),
        nn.Linear(width, width),
        activation(config),
        nn.Linear(width, 3),
    )


def _standardized(vertices: np.ndarray) -> Tensor:
    """(V, 3) positions with mean 0 and standard deviation 1 along each axis."""
    std = vertices.std(0)
    return torch.tensor((vertices - vertices.mean(0)) / np.where(std > 0, std, 1.0)).float()


def _spread_vertices(vertices: np.ndarray, count: int) -> np.ndarray:
    """`count` vertices spread over the template, one for each latent dimension. On a template of
    fewer vertices, some serve several.
    """
    chosen = farthest_points(vertices, np.arange(len(vertices)), count)
    return np.resize(chosen, count)
