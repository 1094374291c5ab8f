"""HierarchicalAutoencoder: one model, of which CoMA, SpiralNet, SpiralNet++ and Deep3DMM are
settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Count
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
from morphable.models.gates import choose_pair
from morphable.models.level_maps import LevelMapsConfig, Maps, build_maps
from morphable.models.linear_start import LinearStart, zero_layers
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.mesh_network import (
    MeshDecoder,
    MeshEncoder,
    MeshNetworkConfig,
    Scheme,
    activation,
    initialize_layers,
)
from morphable.models.normalization import Normalization
from morphable.models.parts import Parts
from morphable.models.training import Batch, Progress
from morphable.ops.attention_map import AttentionMap


@dataclass(frozen=True)
class AutoencoderConfig(LevelMapsConfig, MeshNetworkConfig):
    """The defaults are those of CoMA as published.

    bottleneck_activation: whether to apply the activation to the code and after the layer that
    follows it. CoMA does, so its codes are non-negative. normalization: `vertex` = z-score per
    vertex and axis, `global` = one scale for all. loss: `l1` = mean absolute error of normalized
    coordinates, `distance` = mean vertex distance in mm. start: `linear` = PCA beside encoder and
    decoder (`linear_start.py`); then the code has no activation.
    """

    latent: Count = 8
    bottleneck_activation: bool = True
    initialization: Scheme = "normal"
    normalization: Literal["vertex", "global"] = "vertex"
    loss: Literal["l1", "distance"] = "l1"
    start: Literal["random", "linear"] = "random"


class HierarchicalAutoencoder(TrainableModel):
    """code = Linear(MeshEncoder(normalized shape)), normalized shape = MeshDecoder(Linear(code)).

    The encoder goes down four levels of the mesh hierarchy, or as many as a small template has; the
    decoder goes up again.

    linear: PCA beside both networks if the model starts linear; otherwise None.
    """

    geometry: MeshGeometry
    geometry_type = MeshGeometry

    def __init__(
        self,
        template: Template,
        config: AutoencoderConfig,
        geometry: MeshGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, Parts.of(shape=config.latent), config, geometry, origin)
        self.normalization = Normalization(template.n_vertices, config.normalization == "vertex")
        self.activation = activation(config) if config.bottleneck_activation else nn.Identity()

        maps = build_maps(geometry, config.channels, config)
        self.encoder = MeshEncoder(geometry, config, maps.down)
        self.to_code = nn.Linear(self.encoder.shape[0] * self.encoder.shape[1], config.latent)
        coarse = config.channels.decoder[0]
        self.from_code = nn.Linear(config.latent, self.encoder.shape[0] * coarse)
        self.decoder = MeshDecoder(geometry, config, maps.up)

        layers = [*self.encoder.layers, *self.decoder.layers, self.to_code, self.from_code]
        initialize_layers(layers, config.initialization)

        self.linear = None
        if config.start == "linear":
            self.linear = LinearStart(config.latent, template.n_vertices)
            zero_layers([self.to_code])

    @property
    def starts_linear(self) -> bool:
        return self.linear is not None

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        self.normalization.initialize(shapes)
        if self.linear is not None:
            self.linear.initialize(shapes)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        added = self._network_code(vertices)
        # Without the activation: a ReLU would not let through the half of PCA's code that is
        # negative, nor any gradient of a network that starts at zero.
        return (
            self.activation(added) if self.linear is None else self.linear.code_of(vertices, added)
        )

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return self.normalization.inverse(self.decode_normalized(code))

    def decode_normalized(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) normalized coordinates."""
        decoded = self._network_shape(code)
        if self.linear is None:
            return decoded
        return self.linear.mixed(self.linear.offsets_of(code) / self.normalization.std, decoded)

    def _network_code(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, L) by the network alone."""
        features = self.encoder(self.normalization(vertices))
        code: Tensor = self.to_code(features.flatten(1))
        return code

    def _network_shape(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) normalized coordinates by the network alone."""
        features = self.activation(self.from_code(code)).unflatten(1, self.decoder.shape)
        return self.decoder(features)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        if self.linear is not None:
            self.linear.train_decoder()
        target = self.normalization(batch.vertices)
        difference = self.decode_normalized(self.encode(batch.vertices)) - target
        if self.config.loss == "l1":
            return {"l1": difference.abs().mean()}
        return {"distance": (difference * self.normalization.std).norm(dim=-1).mean()}

    def finish(self, validation: Batch) -> None:
        linear = self.linear
        if linear is None:
            return
        mean, std = self.normalization.mean, self.normalization.std

        def encoder(x: Tensor) -> tuple[Tensor, Tensor]:
            return linear.basis.code_of(x), self._network_code(x)

        def decoder(code: Tensor) -> tuple[Tensor, Tensor]:
            offsets = linear.offsets_of(code)
            return mean + offsets, self._network_shape(code) * std - offsets

        choose_pair(linear.encoder_gate, linear.decoder_gate, validation.vertices, encoder, decoder)

    def for_inference(self) -> HierarchicalAutoencoder:
        """Return the same model with constant sparse maps in place of the learned ones, which makes
        it as fast as CoMA. A model without such maps is returned as it is.
        """
        return with_folded_maps(self, Maps(self.encoder.maps, self.decoder.maps))

    def snapshot(self) -> dict[str, np.ndarray]:
        """The current weights of the learned map up to the finest level: `index` and `weights`
        (V, k), and the `share` of the result that is learned. Empty if that map is not learned.
        """
        return map_snapshot(next(iter(self.decoder.maps), None))


Folding = TypeVar("Folding", bound=TrainableModel)


def with_folded_maps(model: Folding, maps: Maps) -> Folding:
    """Return the same model with constant maps in place of its learned ones; a model without such
    maps as it is.
    """
    folded = maps.folded()
    if folded is None:
        return model
    geometry = replace(model.geometry, folded=folded)  # type: ignore[type-var]
    made: Callable[..., Folding] = type(model)
    result = made(model.template, model.config, geometry, model.origin)
    # The keys and queries of the learned maps have no place in the new model.
    trained, kept = model.state_dict(), result.state_dict().keys()
    result.load_state_dict({name: trained[name] for name in kept})
    return result.to(model.device).eval()


@torch.no_grad()
def map_snapshot(level_map: nn.Module | None) -> dict[str, np.ndarray]:
    """The current weights of a learned map: `index` and `weights` (V, k), and the `share` of the
    result that is learned. Empty if the map is not learned.
    """
    if not isinstance(level_map, AttentionMap):
        return {}
    index, weights = level_map.rows()
    share = level_map.attention_share()
    return {
        "index": index.cpu().numpy(),
        "weights": weights.cpu().numpy(),
        "share": share.cpu().numpy(),
    }
