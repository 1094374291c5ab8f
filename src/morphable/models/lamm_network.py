"""The network of LAMM: one token per region, mixed by a transformer or an MLP-mixer (Tarasiou et
al. 2024).

Letters: B batch, V vertices, C control vertices, R regions, D width of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count, CountOrZero, Factor
from morphable.mesh.regions import Regions
from morphable.models.linear_start import zero_layers
from morphable.ops.tokens import (
    Backbone,
    ControlNets,
    InverseTokenizer,
    MixerLayer,
    Tokenizer,
    TransformerLayer,
)


@dataclass(frozen=True)
class LammNetworkConfig(Configuration):
    """The defaults are those of the transformer as published.

    width: dimensions of a token. expansion: hidden units per input, of the transformer's
    feed-forward layers or of the mixer's layers over tokens. channel_expansion: the same for the
    mixer's layers over channels. bottleneck: if True, the code has `latent` dimensions; if False,
    it is the region tokens. rank: rank of the inverse tokenizer if it is factored, otherwise 0.
    start: initial weights of tokenizer and inverse tokenizer, `random` or the principal components
    of each region (`pca`). `linear`: those of each region, and PCA of the whole shape in encoder
    and decoder, to which the networks add (`linear_start.py`).
    """

    latent: Count = 256
    backbone: Literal["transformer", "mixer"] = "transformer"
    width: Count = 512
    heads: Count = 8
    encoder_depth: Count = 5
    decoder_depth: Count = 3
    expansion: Factor = 4.0
    channel_expansion: Factor = 0.5
    bottleneck: bool = True
    rank: CountOrZero = 0
    start: Literal["random", "pca", "linear"] = "random"


class States(NamedTuple):
    """The states of encoder and decoder. The first state of each is the tokens (B, 1 + R, D) that
    enter its backbone; the others are the tokens after each layer. The last is layer-normalized.
    """

    encoder: list[Tensor]
    decoder: list[Tensor]


class LammNetwork(nn.Module):
    """Region tokens -> encoder -> code -> decoder -> region tokens.

    Input and output are x (B, 3V): normalized coordinates, sorted by region, so that each region is
    one run of columns. The code enters the decoder as a token of its own, before one learned token
    per region. The displacements of a region's control vertices are added to its learned token.

    One inverse tokenizer turns every state, of encoder and decoder, into coordinates.

    If the model starts linear, the network only adds to PCA, and must soon find what PCA lacks:

    - The code is read from all tokens, and enters the decoder as a token of its own and in the
      token of each region, which starts as the region's coefficients of PCA's shape. Otherwise many
      steps pass before attention carries the code to the regions.
    - A linear layer that is zero at the start, `to_added`, turns the decoder's states into tokens
      of what the network adds. (The gain of the norm before it could be zero instead, but then an
      output grows by no more than one learning rate per step.)
    """

    def __init__(self, regions: Regions, config: LammNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = config.start == "linear"
        order = torch.from_numpy(np.argsort(regions.labels, kind="stable"))
        self.order = nn.Buffer(order, persistent=False)
        self.place = nn.Buffer(order.argsort(), persistent=False)
        sizes = np.bincount(regions.labels).tolist()
        count, width = len(sizes), config.width

        self.tokenizer = Tokenizer(sizes, width)
        self.id_token = nn.Parameter(torch.randn(width))
        self.region_embedding = nn.Parameter(torch.randn(count, width))
        self.encoder = _backbone(config, config.encoder_depth, count + 1)
        if config.bottleneck:
            tokens = count + 1 if self.linear else 1
            self.to_code = nn.Linear(tokens * width, config.latent)
            self.from_code = nn.Linear(config.latent, tokens * width)
        # Without a bottleneck the region tokens are the code. Then the decoder's first token is the
        # only learned one, and carries no information about the shape.
        self.learned_tokens = nn.Parameter(torch.randn(count if config.bottleneck else 1, width))
        self.decoder = _backbone(config, config.decoder_depth, count + 1)
        self.inverse_tokenizer = InverseTokenizer(sizes, width, config.rank)
        # As published; a small network gets small ones.
        hidden = min(64, 4 * width), min(256, 4 * width)
        self.control_nets = ControlNets([len(c) for c in regions.controls], width, hidden)
        self.to_added = nn.Linear(width, width) if self.linear else nn.Identity()
        if self.linear:
            zero_layers([self.to_code, self.to_added])
            with torch.no_grad():
                self.control_nets.third.zero_()

    def sort(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) -> (B, 3V), region by region."""
        return vertices[:, self.order].flatten(1)

    def unsort(self, x: Tensor) -> Tensor:
        """(..., 3V) region by region -> (..., V, 3)."""
        return x.unflatten(-1, (-1, 3))[..., self.place, :]

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3V) -> (B, L) code."""
        return self.code_of(self.encoder_states(x)[-1])

    def encoder_states(self, x: Tensor) -> list[Tensor]:
        """(B, 3V) -> the encoder's states (B, 1 + R, D)."""
        tokens = self.tokenizer(x) + self.region_embedding
        return self.encoder(torch.cat([self.id_token.expand(x.shape[0], 1, -1), tokens], 1))

    def code_of(self, last: Tensor) -> Tensor:
        """(B, L) code from the encoder's last state (B, 1 + R, D)."""
        if not self.config.bottleneck:
            return last[:, 1:].flatten(1)
        return self.to_code(last.flatten(1) if self.linear else last[:, 0])

    def decoder_states(
        self, code: Tensor, displacement: Tensor, learned_tokens: Tensor | None = None
    ) -> list[Tensor]:
        """The decoder's states (B, 1 + R, D) for codes (B, L) and displacements (B, 3C).

        learned_tokens: tokens to use in place of the trained ones.
        """
        learned = self.learned_tokens if learned_tokens is None else learned_tokens
        if self.config.bottleneck:
            from_code = self.from_code(code).unflatten(1, (-1, self.config.width))
            first, tokens = from_code[:, :1], learned.expand(code.shape[0], -1, -1)
            if self.linear:
                tokens = tokens + from_code[:, 1:]
        else:
            first = learned.expand(code.shape[0], 1, -1)
            tokens = code.unflatten(1, (-1, self.config.width))
        tokens = tokens + self.control_nets(displacement)
        states = self.decoder(torch.cat([first, tokens], 1))
        return [self.to_added(state) for state in states]

    def coordinates(self, states: Tensor) -> Tensor:
        """Turn the region tokens of states (..., 1 + R, D) into coordinates (..., 3V)."""
        return self.inverse_tokenizer(states[..., 1:, :])

    def region_members(self, region: int) -> Tensor:
        """(m,) vertices of a region, ascending."""
        run = self.run(region)
        return self.order[run.start // 3 : run.stop // 3]

    def run(self, region: int) -> slice:
        """The columns of a region in x (B, 3V)."""
        runs = self.tokenizer.runs
        start = sum(runs[:region])
        return slice(start, start + runs[region])

    @torch.no_grad()
    def start_at_components(
        self, region: int, components: np.ndarray, deviations: np.ndarray
    ) -> None:
        """Set the weights of a region so that its token starts as its coefficients along
        `components` (D, 3m), and the inverse tokenizer inverts this.

        All coefficients have the unit of the first component's standard deviation, so tokens keep
        the relative size of the components. deviations: (D,) standard deviations.
        """
        axes = torch.from_numpy(components).to(self.tokenizer.weight)
        scale = torch.from_numpy(deviations).to(axes)
        run, rank = self.run(region), self.config.rank or self.config.width
        self.tokenizer.weight[run] = axes.T / scale[0].clamp(min=1e-12)
        self.inverse_tokenizer.weight[run] = (axes.T * scale)[:, :rank]
        self.inverse_tokenizer.bias[run] = 0
        if self.inverse_tokenizer.inner is not None:
            self.inverse_tokenizer.inner[region] = torch.eye(self.config.width, rank)

    @torch.no_grad()
    def start_from_code(self, shapes: Tensor) -> None:
        """Set the weights by which the code enters the regions' tokens: each starts as the token of
        the shape that PCA makes of the code.

        shapes: (L, 3V) what one standard deviation of each component adds to a shape.
        """
        tokens = self.tokenizer(shapes) - self.tokenizer.bias
        width = self.config.width
        self.from_code.weight[width:] = tokens.flatten(1).T
        self.from_code.bias[width:] = 0


def _backbone(config: LammNetworkConfig, depth: int, tokens: int) -> Backbone:
    def layer() -> nn.Module:
        if config.backbone == "mixer":
            return MixerLayer(tokens, config.width, config.expansion, config.channel_expansion)
        return TransformerLayer(config.width, config.heads, config.expansion)

    return Backbone([layer() for _ in range(depth)], config.width)
