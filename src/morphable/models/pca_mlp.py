"""pca-mlp: a small MLP autoencoder on whitened PCA coefficients, with a linear skip connection. It
is the strongest cheap baseline.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from morphable.config import Count
from morphable.mesh.template import Template
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    Labels,
    Origin,
    Shapes,
)
from morphable.models.carried import carried
from morphable.models.dense import DenseDecoder, with_outputs_times
from morphable.models.gates import choose_pair
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.linear_basis import LinearBasis, units_of
from morphable.models.nearest_code import SearchedConfig, SearchedModel
from morphable.models.parts import Parts
from morphable.models.principal_basis import principal_basis
from morphable.models.training import Batch, Progress


@dataclass(frozen=True)
class PcaMlpConfig(SearchedConfig):
    """rank: number of PCA coefficients that the network reads and writes. width, depth: units per
    hidden layer, and number of hidden layers, of both encoder and decoder.
    """

    latent: Count = 8
    rank: Count = 128
    width: Count = 256
    depth: Count = 2


def mlp(sizes: list[int]) -> nn.Sequential:
    """Linear layers of these sizes with SiLU between them. The last layer starts at zero, so that
    at first only the skip connection acts.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
    last = layers[-2]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers[:-1])


def linear_skip(inputs: int, outputs: int) -> nn.Linear:
    """A linear map that starts as the identity on the first coordinates."""
    skip = nn.Linear(inputs, outputs, bias=False)
    nn.init.eye_(skip.weight)
    return skip


@torch.no_grad()
def start_as_components(skip: nn.Linear, deviations: Tensor) -> None:
    """Make what the skip connection of an encoder gives the first coordinates in standard
    deviations. It reads coordinates divided by `units_of(deviations)`. deviations: (K,) mm.
    """
    ratio = torch.where(deviations > 0, units_of(deviations) / deviations, 1.0)
    skip.weight.diagonal().copy_(ratio[: skip.out_features])


def dense_decoder(
    basis: LinearBasis, skip: nn.Linear, network: nn.Sequential, factor: Tensor
) -> DenseDecoder:
    """The decoder whose coefficients (B, K) mm are skip(z) * deviations + factor * network(z)."""
    return DenseDecoder(
        basis.mean.unflatten(0, (-1, 3)),
        basis.components.unflatten(1, (-1, 3)),
        basis.deviations[:, None] * skip.weight,
        with_outputs_times(network, factor),
    )


class PcaMlp(SearchedModel):
    """z = A c + a f(c), c' = B z + b g(z): c are whitened PCA coefficients, A and B linear, f and g
    MLPs.

    It starts as PCA, with f = g = 0, and minimizes the mean vertex error. The gates a and b are 1
    in training, and then chosen on the validation meshes (`models/gates.py`).
    """

    config: PcaMlpConfig

    def __init__(
        self,
        template: Template,
        config: PcaMlpConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, Parts.of(shape=config.latent), config, geometry, origin)
        hidden = [config.width] * config.depth
        rank = max(config.rank, config.latent)
        self.basis = LinearBasis(rank, template.n_vertices)
        self.encoder_skip = linear_skip(rank, config.latent)
        self.decoder_skip = linear_skip(config.latent, rank)
        self.encoder = mlp([rank, *hidden, config.latent])
        self.decoder = mlp([config.latent, *hidden, rank])
        self.encoder_gate = nn.Buffer(torch.ones(()))
        self.decoder_gate = nn.Buffer(torch.ones(()))

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]], meshes: int) -> Any:
        # The network reads PCA coefficients, and there are no more of them than that.
        return carried(config, f"{meshes} training meshes", latent=meshes - 1)

    @property
    def starts_linear(self) -> bool:
        return True

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        self.basis.set(principal_basis(shapes, len(self.basis.components)))
        start_as_components(self.encoder_skip, self.basis.deviations)

    def encoded(self, vertices: Tensor) -> Tensor:
        code, added = self._encoded(vertices)
        return code + self.encoder_gate * added

    def coefficients_of_code(self, code: Tensor) -> Tensor:
        coefficients, added = self._decoded(code)
        return coefficients + self.decoder_gate * added

    def _encoded(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, 3) mm -> codes (B, L), by the linear map and what the network adds."""
        coefficients = self.basis.whitened(vertices)
        return self.encoder_skip(coefficients), self.encoder(coefficients)

    def _decoded(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) -> coefficients (B, K) mm, by the linear map and what the network adds."""
        return self.decoder_skip(code) * self.basis.deviations, self.decoder(code) * self._unit

    @property
    def _unit(self) -> Tensor:
        """The unit of the decoder network's outputs, in mm: the mean deviation of the first
        components. In whitened units a small component would weigh as much as a large one.
        """
        return self.basis.deviations[: self.config.latent].mean()

    def dense_decoder(self) -> DenseDecoder:
        factor = self.decoder_gate * self._unit
        return dense_decoder(self.basis, self.decoder_skip, self.decoder, factor)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        difference = self.decode(self.encoded(batch.vertices)) - batch.vertices
        return {"vertex_error": difference.norm(dim=-1).mean()}

    def finish(self, validation: Batch) -> None:
        def decoder(code: Tensor) -> tuple[Tensor, Tensor]:
            coefficients, added = self._decoded(code)
            shape = self.basis.shape_with(coefficients)
            return shape, (added @ self.basis.components).unflatten(1, (-1, 3))

        gates = self.encoder_gate, self.decoder_gate
        choose_pair(*gates, validation.vertices, self._encoded, decoder)
