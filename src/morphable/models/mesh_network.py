"""MeshEncoder and MeshDecoder: convolutions on a mesh hierarchy, fine to coarse and back.

CoMA (Ranjan et al. 2018), SpiralNet or Neural3DMM (Bouritsas et al. 2019) and SpiralNet++ (Gong et
al. 2019) differ in their convolution and in settings. With learned maps between the levels
(`level_maps.py`) they become Deep3DMM (Chen and Kim 2021).

Letters: B batch, V vertices, n vertices of the coarsest level, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count
from morphable.errors import InputError
from morphable.mesh.topology import adjacency
from morphable.models.mesh_geometry import MeshGeometry
from morphable.ops.chebyshev import ChebyshevConv
from morphable.ops.spiral import SpiralConv


@dataclass(frozen=True)
class Filters:
    """encoder: channels after each convolution of the encoder. decoder: channels of its input, then
    those after each of its convolutions but the last.
    """

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]

    def for_steps(self, steps: int) -> Filters:
        """The channels of a network with fewer steps between levels: those nearest to the code."""
        return Filters(self.encoder[len(self.encoder) - steps :], self.decoder[: steps + 1])


FILTERS = {
    "simple": Filters((16, 16, 16, 32), (32, 32, 16, 16, 16)),
    "wider": Filters((16, 32, 64, 128), (128, 64, 32, 32, 16)),
    "spiralnet++": Filters((32, 32, 32, 64), (64, 64, 32, 32, 32)),
    "lamm": Filters((128, 128, 128, 256), (256, 256, 128, 128, 128)),
}
"""`simple`: CoMA; `wider`: SpiralNet; `spiralnet++`: SpiralNet++; `lamm`: the larger networks that
LAMM's paper compares with, found from its counts of parameters.
"""


@dataclass(frozen=True)
class MeshNetworkConfig(Configuration):
    """The defaults are those of CoMA as published.

    convolution: `chebyshev` (CoMA), `spiral` (SpiralNet: spirals from a reference point, padded
    with a dummy vertex) or `spiral++` (SpiralNet++: whole rings). filters: channels of the layers,
    a row of FILTERS. final_bias: whether the last convolution has a bias. terms: number of terms of
    a Chebyshev convolution. spiral_length: number of vertices per spiral of `spiral++`.
    """

    convolution: Literal["chebyshev", "spiral", "spiral++"] = "chebyshev"
    filters: Literal["simple", "wider", "spiralnet++", "lamm"] = "simple"
    activation: Literal["relu", "elu"] = "relu"
    final_bias: bool = False
    terms: Count = 6
    spiral_length: Count = 9

    @property
    def channels(self) -> Filters:
        return FILTERS[self.filters]


class MeshEncoder(nn.Module):
    """Maps normalized coordinates (B, V, 3) to features (B, n, C) of the coarsest level. Each level
    has a convolution, an activation, and the map to the next coarser level.

    maps: the maps down, fine to coarse. shape: (n, C) of the features.
    """

    def __init__(
        self, geometry: MeshGeometry, config: MeshNetworkConfig, maps: nn.ModuleList
    ) -> None:
        super().__init__()
        channels = (3, *config.channels.for_steps(len(maps)).encoder)
        self.activation = activation(config)
        self.convolutions = nn.ModuleList(
            _convolution(geometry, config, level, channels[level], channels[level + 1])
            for level in range(len(maps))
        )
        self.maps = maps
        self.shape = _coarse_shape(geometry, config, channels[-1])

    def forward(self, x: Tensor) -> Tensor:
        for convolution, down in zip(self.convolutions, self.maps, strict=True):
            x = down(self.activation(convolution(x)))
        # SpiralNet's dummy vertex, which is zero here. For the other networks nothing is added.
        return nn.functional.pad(x, (0, 0, 0, self.shape[0] - x.shape[1]))

    @property
    def layers(self) -> list[nn.Module]:
        """The convolutions, in order, to initialize them."""
        return list(self.convolutions)


class MeshDecoder(nn.Module):
    """Maps features (B, n, C) of the coarsest level to normalized coordinates (B, V, 3). Each level
    has the map to the next finer level, a convolution and an activation. A last convolution
    follows.

    maps: the maps up, listed from the finest level on, as the encoder's. shape: (n, C) of the
    features.
    """

    def __init__(
        self, geometry: MeshGeometry, config: MeshNetworkConfig, maps: nn.ModuleList
    ) -> None:
        super().__init__()
        channels, top = config.channels.for_steps(len(maps)).decoder, len(maps) - 1
        self.activation = activation(config)
        self.convolutions = nn.ModuleList(
            _convolution(
                geometry, config, top - step, channels[step], channels[step + 1], first=step == 0
            )
            for step in range(len(maps))
        )
        self.final = _convolution(geometry, config, 0, channels[-1], 3, bias=config.final_bias)
        self.maps = maps
        self.shape = _coarse_shape(geometry, config, channels[0])
        self.vertices = geometry.hierarchy.sizes[-1]

    def forward(self, features: Tensor) -> Tensor:
        return self.finish(self.refine(features, 0, self.steps))

    @property
    def steps(self) -> int:
        """The number of steps from the coarsest level to the finest."""
        return len(self.maps)

    def refine(self, features: Tensor, start: int, stop: int) -> Tensor:
        """Take features after `start` steps, (B, n, C), to features after `stop` steps. Those after
        0 steps are the input of the decoder.
        """
        x, dummy = features, None
        if start == 0 < stop:
            x, dummy = features[:, : self.vertices], features[:, self.vertices :]
        for step in range(start, stop):
            convolution, up = self.convolutions[step], self.maps[self.steps - 1 - step]
            takes_dummy = isinstance(convolution, DummyVertexConv)
            x = up(x)
            x = self.activation(convolution(x, dummy) if takes_dummy else convolution(x))
        return x

    def finish(self, features: Tensor) -> Tensor:
        """Map the features after all steps, (B, V, C), to normalized coordinates (B, V, 3)."""
        # Without any step, the features may still have SpiralNet's dummy vertex.
        return self.final(features if self.steps else features[:, : self.vertices])

    @property
    def layers(self) -> list[nn.Module]:
        """The convolutions, in order, to initialize them."""
        inner = [
            layer.convolution if isinstance(layer, DummyVertexConv) else layer
            for layer in self.convolutions
        ]
        return [*inner, self.final]


class DummyVertexConv(nn.Module):
    """A spiral convolution whose padding reads a dummy vertex: (B, m, C), (B, 1, C) -> (B, m, C').

    The published SpiralNet carries this vertex through all tensors. It is nonzero only here, in the
    first convolution of the decoder, because the linear layer before it gives it a value.
    """

    def __init__(
        self, in_channels: int, out_channels: int, spirals: np.ndarray, *, bias: bool = True
    ) -> None:
        super().__init__()
        count = len(spirals)
        filled = np.where(spirals < 0, count, spirals)
        # The dummy vertex has number `count`. It gets a spiral too, since the convolution wants one
        # per vertex; `forward` drops the result.
        own = np.full((1, spirals.shape[1]), count)
        with_dummy = np.concatenate([filled, own])
        self.convolution = SpiralConv(in_channels, out_channels, with_dummy, bias=bias)

    def forward(self, x: Tensor, dummy: Tensor) -> Tensor:
        return self.convolution(torch.cat([x, dummy], 1))[:, :-1]


def activation(config: MeshNetworkConfig) -> nn.Module:
    return nn.ReLU() if config.activation == "relu" else nn.ELU()


def _coarse_shape(
    geometry: MeshGeometry, config: MeshNetworkConfig, channels: int
) -> tuple[int, int]:
    """(n, C) of the features of the coarsest level. For SpiralNet, n includes the dummy vertex,
    which is the last.
    """
    return geometry.hierarchy.sizes[-1] + (config.convolution == "spiral"), channels


def _convolution(
    geometry: MeshGeometry,
    config: MeshNetworkConfig,
    level: int,
    fan_in: int,
    fan_out: int,
    *,
    bias: bool = True,
    first: bool = False,
) -> nn.Module:
    """The convolution on one level. first: whether it is the decoder's first."""
    if config.convolution == "chebyshev":
        mesh = geometry.hierarchy.levels[level]
        graph = adjacency(mesh.triangles, len(mesh.vertices))
        return ChebyshevConv(fan_in, fan_out, terms=config.terms, adjacency=graph, bias=bias)

    if not geometry.spirals:
        raise InputError(
            f"spirals: expected those of the convolution {config.convolution}, got none"
        )
    spirals = geometry.spirals[level]
    if config.convolution == "spiral" and first:
        return DummyVertexConv(fan_in, fan_out, spirals, bias=bias)
    return SpiralConv(fan_in, fan_out, spirals, bias=bias)


Scheme = Literal["normal", "xavier", "default"]


def initialize_layers(layers: Iterable[nn.Module], scheme: Scheme) -> None:
    """Initialize the weights and biases of convolutions and linear layers, in the order given.

    scheme: `normal`: standard deviation 0.1, with biases of linear layers 0.1, as in Deep3DMM's
    implementation of CoMA. `xavier`: uniform weights, zero biases. `default`: as torch initializes
    a linear layer.
    """
    for layer in layers:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))
        match scheme:
            case "normal":
                _normal(weight, bias, linear=isinstance(layer, nn.Linear))
            case "xavier":
                _xavier(weight, bias)
            case "default":
                _torch_default(weight, bias)


def _normal(weight: Tensor, bias: Tensor | None, linear: bool) -> None:
    nn.init.normal_(weight, 0.0, 0.1)
    if bias is not None and linear:
        nn.init.constant_(bias, 0.1)
    elif bias is not None:
        nn.init.normal_(bias, 0.0, 0.1)


def _xavier(weight: Tensor, bias: Tensor | None) -> None:
    fan_in, fan_out = _fans(weight)
    bound = (6 / (fan_in + fan_out)) ** 0.5
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.zeros_(bias)


def _torch_default(weight: Tensor, bias: Tensor | None) -> None:
    bound = _fans(weight)[0] ** -0.5
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound)


def _fans(weight: Tensor) -> tuple[int, int]:
    """(fan in, fan out) of a linear or spiral weight (out, in), or of a Chebyshev weight (terms,
    in, out).
    """
    if weight.ndim == 3:
        return weight.shape[0] * weight.shape[1], weight.shape[2]
    return weight.shape[1], weight.shape[0]
