"""HierarchicalAutoencoder(convolution, aggregation): CoMA, SpiralNet and SpiralNet++ as settings of
one network.

CoMA: Ranjan et al. 2018. SpiralNet (Neural3DMM): Bouritsas et al. 2019. SpiralNet++: Gong et al.
2019. Deep3DMM, with learned maps between the levels: Chen and Kim 2021. Four times convolution,
activation, coarser level; a linear bottleneck; and back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count
from morphable.mesh.template import Template
from morphable.mesh.topology import adjacency
from morphable.models.base import NO_ORIGIN, Given, Origin, Shapes, TrainableModel
from morphable.models.level_maps import Aggregation, Maps, build_maps, fold_maps
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.normalization import Normalization
from morphable.models.parts import Parts
from morphable.models.training import Batch, Progress
from morphable.ops.aggregation import AttentionMap
from morphable.ops.chebyshev import ChebyshevConv
from morphable.ops.spiral import SpiralConv

FILTERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "simple": ((16, 16, 16, 32), (32, 32, 16, 16, 16)),
    "wider": ((16, 32, 64, 128), (128, 64, 32, 32, 16)),
    "spiralnet++": ((32, 32, 32, 64), (64, 64, 32, 32, 32)),
}
"""Channels after each encoder convolution; channels entering the decoder and after each of its
convolutions.
"""


@dataclass(frozen=True)
class AutoencoderConfig(Configuration):
    """The defaults are CoMA as published.

    convolution: `chebyshev` (CoMA), `spiral` (SpiralNet: spirals from a reference point, padded
    with a dummy vertex) or `spiral++` (SpiralNet++: whole rings). bottleneck_activation: activate
    the code and what follows it, as CoMA does, which makes codes non-negative. normalization:
    `vertex` = z-score of every coordinate, `global` = one scale. loss: `l1` = mean absolute
    normalized coordinate error, `distance` = mean vertex distance. aggregation: how features change
    level (`qem` = the precomputed maps); learned: on which side it replaces them. neighbors:
    entries in a row of the attention maps, `paper` 2 down and 32 up, `code` 8 and 32. Attention
    maps of more than `refresh_above` scores select their entries anew only every `refresh_every`
    steps.
    """

    latent: Count = 8
    convolution: Literal["chebyshev", "spiral", "spiral++"] = "chebyshev"
    filters: Literal["simple", "wider", "spiralnet++"] = "simple"
    activation: Literal["relu", "elu"] = "relu"
    bottleneck_activation: bool = True
    final_bias: bool = False
    initialization: Literal["normal", "xavier", "default"] = "normal"
    normalization: Literal["vertex", "global"] = "vertex"
    loss: Literal["l1", "distance"] = "l1"
    terms: Count = 6
    spiral_length: Count = 9
    aggregation: Aggregation = "qem"
    learned: Literal["both", "encoder", "decoder"] = "both"
    neighbors: Literal["paper", "code"] = "paper"
    refresh_above: int = 1 << 24
    refresh_every: Count = 10


class HierarchicalAutoencoder(TrainableModel):
    """(B, V, 3) mm -> four levels down -> (B, L) -> four levels up -> (B, V, 3) mm."""

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
        hierarchy = geometry.hierarchy
        encoder, decoder = FILTERS[config.filters]
        self.levels = len(encoder)
        # SpiralNet counts one more vertex, the all-zero one that padded spiral entries read.
        self.dummy = int(config.convolution == "spiral")
        self.coarse_shape = (hierarchy.sizes[-1] + self.dummy, decoder[0])
        self.normalization = Normalization(template.n_vertices, config.normalization == "vertex")
        self.activation = nn.ReLU() if config.activation == "relu" else nn.ELU()
        self.bottleneck_activation = (
            self.activation if config.bottleneck_activation else nn.Identity()
        )
        maps = build_maps(
            geometry,
            config.aggregation,
            config.learned,
            config.neighbors,
            (config.refresh_above, config.refresh_every),
            encoder,
            decoder[self.levels - 1 :: -1],
        )
        self.down, self.up = maps.down, maps.up

        def convolution(
            level: int, fan_in: int, fan_out: int, bias: bool = True, dummy: bool = False
        ) -> nn.Module:
            if config.convolution == "chebyshev":
                graph = adjacency(hierarchy.levels[level].triangles, hierarchy.sizes[level])
                return ChebyshevConv(
                    fan_in, fan_out, terms=config.terms, adjacency=graph, bias=bias
                )
            spirals = geometry.spirals[level]
            return SpiralConv(
                fan_in, fan_out, _with_dummy(spirals) if dummy else spirals, bias=bias
            )

        channels = (3, *encoder)
        self.encoder = nn.ModuleList(
            convolution(i, channels[i], channels[i + 1]) for i in range(self.levels)
        )
        self.to_code = nn.Linear(self.coarse_shape[0] * encoder[-1], config.latent)
        self.from_code = nn.Linear(config.latent, self.coarse_shape[0] * decoder[0])
        self.decoder = nn.ModuleList(
            convolution(
                self.levels - 1 - i, decoder[i], decoder[i + 1], dummy=bool(self.dummy) and i == 0
            )
            for i in range(self.levels)
        )
        self.final = convolution(0, decoder[-1], 3, bias=config.final_bias)
        _initialize(self, config.initialization)

    def initialize(self, shapes: Shapes) -> None:
        self.normalization.initialize(shapes)

    def for_inference(self) -> HierarchicalAutoencoder:
        """The same model with its learned maps folded into constant sparse ones: no keys, no
        queries, CoMA's speed.
        """
        folded = fold_maps(Maps(self.down, self.up))
        if folded is None:
            return self
        geometry = replace(self.geometry, folded=folded)
        model = HierarchicalAutoencoder(self.template, self.config, geometry, self.origin)
        model.to(self.device)
        kept = model.state_dict().keys()
        model.load_state_dict(
            {name: tensor for name, tensor in self.state_dict().items() if name in kept}
        )
        return model.eval()

    def snapshot(self) -> dict[str, np.ndarray]:
        """The finest learned up map as it is now: `index` and `weights` (V, k), the `share` of the
        learned part.
        """
        finest = self.up[0]
        if not isinstance(finest, AttentionMap):
            return {}
        with torch.no_grad():
            index, weights = finest.rows()
            share = finest.attention_share()
        return {
            "index": index.cpu().numpy(),
            "weights": weights.cpu().numpy(),
            "share": share.cpu().numpy(),
        }

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        x = self.normalization(vertices)
        for convolution, down in zip(self.encoder, self.down, strict=True):
            x = down(self.activation(convolution(x)))
        x = nn.functional.pad(x, (0, 0, 0, self.dummy))
        code: Tensor = self.bottleneck_activation(self.to_code(x.flatten(1)))
        return code

    def decode(self, code: Tensor) -> Tensor:
        x = self.decode_normalized(code)
        vertices: Tensor = self.normalization.inverse(x)
        return vertices

    def decode_normalized(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) in the network's units."""
        x = self.bottleneck_activation(self.from_code(code)).unflatten(1, self.coarse_shape)
        dummy = x[:, self.coarse_shape[0] - self.dummy :]
        x = x[:, : self.coarse_shape[0] - self.dummy]
        for i, (convolution, up) in enumerate(zip(self.decoder, reversed(self.up), strict=True)):
            x = up(x)
            # The dummy vertex comes out of the linear layer with a value, and the first convolution
            # reads it.
            x = (
                convolution(torch.cat([x, dummy], 1))[:, :-1]
                if self.dummy and i == 0
                else convolution(x)
            )
            x = self.activation(x)
        out: Tensor = self.final(x)
        return out

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        target = self.normalization(batch.vertices)
        difference = self.decode_normalized(self.encode(batch.vertices)) - target
        if self.config.loss == "l1":
            return {"l1": difference.abs().mean()}
        return {"distance": (difference * self.normalization.std).norm(dim=-1).mean()}


def _with_dummy(spirals: np.ndarray) -> np.ndarray:
    """(n, S) with -1 padding -> (n + 1, S) that reads vertex n instead, which is the dummy and its
    own neighbor.
    """
    count = len(spirals)
    filled = np.where(spirals < 0, count, spirals)
    return np.concatenate([filled, np.full((1, spirals.shape[1]), count)])


def _initialize(model: HierarchicalAutoencoder, scheme: str) -> None:
    """`normal`: N(0, 0.1) and linear biases 0.1, as Deep3DMM's CoMA; `xavier`: zero biases;
    `default`: torch's own.
    """
    layers = [*model.encoder, *model.decoder, model.final, model.to_code, model.from_code]
    for layer in layers:
        weight, bias, fully = layer.weight, layer.bias, isinstance(layer, nn.Linear)
        assert isinstance(weight, Tensor)
        if scheme == "normal":
            nn.init.normal_(weight, 0.0, 0.1)
        elif scheme == "xavier":
            _xavier(weight)
        else:
            _torch_default(weight, bias)
        if bias is not None and scheme != "default":
            assert isinstance(bias, Tensor)
            if scheme == "xavier":
                nn.init.zeros_(bias)
            elif fully:
                nn.init.constant_(bias, 0.1)
            else:
                nn.init.normal_(bias, 0.0, 0.1)


def _fans(weight: Tensor) -> tuple[int, int]:
    """(fan in, fan out) of a linear or spiral weight (out, in) or a Chebyshev weight (terms, in,
    out).
    """
    if weight.ndim == 3:
        return weight.shape[0] * weight.shape[1], weight.shape[2]
    return weight.shape[1], weight.shape[0]


def _xavier(weight: Tensor) -> None:
    fan_in, fan_out = _fans(weight)
    bound = (6 / (fan_in + fan_out)) ** 0.5
    nn.init.uniform_(weight, -bound, bound)


def _torch_default(weight: Tensor, bias: object) -> None:
    bound = _fans(weight)[0] ** -0.5
    nn.init.uniform_(weight, -bound, bound)
    if isinstance(bias, Tensor):
        nn.init.uniform_(bias, -bound, bound)
