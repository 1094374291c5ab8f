"""LAMM: a token for each region, mixed by a transformer or an MLP-mixer, and handles to edit it
(Tarasiou et al. 2024).

Every layer's tokens are turned back into vertices by the same layer: the encoder's states walk from
the shape to the mean, the decoder's from the mean to the shape. Displacements of control vertices
change the decoder's input tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count, CountOrZero, Positive
from morphable.errors import InputError
from morphable.mesh.regions import Regions, template_regions
from morphable.mesh.template import Template
from morphable.models.base import Given, Shapes, TrainableModel
from morphable.models.handles import Handles, RegionEditor
from morphable.models.normalization import Normalization
from morphable.models.parts import Parts
from morphable.models.pca import principal_basis
from morphable.models.prior import NoPrior
from morphable.models.region_pca import Part
from morphable.models.training import Batch, Progress
from morphable.ops.tokens import (
    Backbone,
    ControlNets,
    InverseTokenizer,
    MixerLayer,
    Tokenizer,
    TransformerLayer,
    low_rank,
)

AUTOENCODE, MANIPULATE = "autoencode", "manipulate"
MIN_SHARE = 0.25
"""A trained edit goes at least this share of the way from one shape to another."""
NO_SAMPLES = (
    "this LAMM has no bottleneck: its code is the region tokens, which have no prior to sample from; "
    "train one with a bottleneck (model.bottleneck=true)"
)

NOT_TRAINED = (
    "this LAMM was trained to autoencode only, its handles move nothing sensible; "
    "train it with --stages autoencode,manipulate"
)


@dataclass(frozen=True)
class LammConfig(Configuration):
    """The defaults are the transformer as published.

    regions: how many automatic ones, 0 = the template's own (11 where it has none). expansion: of
    the transformer's feed-forward, or the mixer's over tokens; channel_expansion: the mixer's over
    channels. bottleneck: code of `latent` numbers, else the region tokens themselves. layers: which
    states the loss looks at: `progressive` all, from the shape to the mean and back; `encoder`,
    `decoder` those and the output; `output` alone; `full` all, each to be the whole shape.
    normalization: `vertex` = z-score of every coordinate, `global` = one scale. start: of tokenizer
    and inverse tokenizer, at `random` or at the principal components of each region. ramp: share of
    the stage `manipulate` after which edits go all the way. rank: of the inverse tokenizer once it
    is factored, 0 = not.
    """

    latent: Count = 256
    backbone: Literal["transformer", "mixer"] = "transformer"
    width: Count = 512
    heads: Count = 8
    encoder_depth: Count = 5
    decoder_depth: Count = 3
    expansion: Positive = 4.0
    channel_expansion: Positive = 0.5
    bottleneck: bool = True
    regions: CountOrZero = 0
    layers: Literal["progressive", "full", "output", "encoder", "decoder"] = "progressive"
    normalization: Literal["vertex", "global"] = "vertex"
    start: Literal["random", "pca"] = "random"
    ramp: Positive = 100 / 1500
    rank: CountOrZero = 0


class Lamm(TrainableModel, RegionEditor):
    """(B, V, 3) mm -> region tokens -> encoder -> (B, L) -> decoder -> region tokens -> (B, V, 3)
    mm.

    Parts: `shape` (or `tokens`) free; `controls` pinned: displacements of all control vertices in
    mm, region by region, zero = no edit.
    """

    stages: ClassVar[tuple[str, ...]] = (AUTOENCODE, MANIPULATE)

    def __init__(
        self, template: Template, config: LammConfig, geometry: Mapping[str, np.ndarray]
    ) -> None:
        regions = Regions.from_arrays(geometry)
        sizes = np.bincount(regions.labels).tolist()
        controls = [len(vertices) for vertices in regions.controls]
        free = (
            Parts.of(shape=config.latent)
            if config.bottleneck
            else Parts.of(tokens=len(sizes) * config.width)
        )
        super().__init__(regions.on(template), free.with_pinned(controls=3 * sum(controls)), config)
        self.regions = regions
        self.register_buffer("edits_trained", torch.zeros((), dtype=torch.bool))
        self.edits_trained: Tensor
        if not config.bottleneck:
            self.prior = NoPrior(self.parts, NO_SAMPLES)
        order = np.argsort(regions.labels, kind="stable")
        for name, index in (
            ("order", order),
            ("place", np.argsort(order)),
            ("controls", np.concatenate(regions.controls)),
        ):
            self.register_buffer(name, torch.from_numpy(index.astype(np.int64)), persistent=False)
        self.order: Tensor
        self.place: Tensor
        self.controls: Tensor
        self.normalization = Normalization(template.n_vertices, config.normalization == "vertex")
        self.handles = Handles(regions, template.mesh.faces)
        width, count = config.width, len(sizes)
        self.tokenizer = Tokenizer(sizes, width)
        self.id_token = nn.Parameter(torch.randn(width))
        self.region_embedding = nn.Parameter(torch.randn(count, width))
        self.encoder = _backbone(config, config.encoder_depth, count + 1)
        if config.bottleneck:
            self.to_code = nn.Linear(width, config.latent)
            self.from_code = nn.Linear(config.latent, width)
        # Without a bottleneck the decoder still has its first token, which then says nothing of the
        # shape.
        self.learned_tokens = nn.Parameter(torch.randn(count if config.bottleneck else 1, width))
        self.decoder = _backbone(config, config.decoder_depth, count + 1)
        self.inverse_tokenizer = InverseTokenizer(sizes, width, config.rank)
        self.control_nets = ControlNets(controls, width)

    @classmethod
    def geometry(cls, template: Template, config: LammConfig) -> dict[str, np.ndarray]:
        return template_regions(template, config.regions).to_arrays()

    def initialize(self, shapes: Shapes) -> None:
        self.normalization.initialize(shapes)
        self.handles.initialize(shapes)
        if self.config.start == "pca":
            self._start_at_components(shapes)

    @torch.no_grad()
    def _start_at_components(self, shapes: Shapes) -> None:
        """Tokens begin as coefficients of the region's components, and turn back into them by their
        deviations.
        """
        normal = self.normalization
        mean, std = (x.expand_as(normal.mean).cpu().numpy() for x in (normal.mean, normal.std))
        for region in range(len(self.regions.names)):
            members = np.flatnonzero(self.regions.labels == region)
            basis = principal_basis(Part(shapes, members, mean, std), self.config.width)
            rows = slice(3 * self._rows(region).start, 3 * self._rows(region).stop)
            axes = torch.from_numpy(basis.components).to(self.tokenizer.weight)
            deviations = torch.from_numpy(basis.deviations).to(axes)
            self.tokenizer.weight[rows] = axes.T / deviations[0].clamp(min=1e-12)
            self.inverse_tokenizer.weight[rows] = axes.T * deviations
            self.inverse_tokenizer.bias[rows] = 0

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return self.assemble(self._code(self._encoder_states(self._sorted(vertices))[-1]), given)

    def decode(self, code: Tensor) -> Tensor:
        last = self.decoder_states(code)[-1]
        return self.normalization.inverse(
            self._vertices(last).unflatten(-1, (-1, 3))[:, self.place]
        )

    def decode_region(self, code: Tensor, region: int) -> Tensor:
        """(B, L) -> (B, m, 3) mm: the vertices of one region alone, in ascending order, without the
        others' cost.
        """
        last = self.decoder_states(code)[-1]
        members = self.order[self._rows(region)]
        x = self.inverse_tokenizer.one(last[:, 1 + region], region).unflatten(-1, (-1, 3))
        normal = self.normalization
        return x * normal.std.expand_as(normal.mean)[members] + normal.mean[members]

    def displaced(self, code: Tensor, displacement: Tensor) -> Tensor:
        """The codes with displaced handles. Raises InputError unless the stage `manipulate` was
        trained.
        """
        if not self.edits_trained:
            raise InputError(NOT_TRAINED)
        result = code.clone()
        result[:, self.parts["controls"]] = displacement
        return result

    def validate(self, vertices: Tensor, stage: str) -> Tensor:
        """Vertex errors of the reconstruction; from `manipulate` on also of whole edits, to the
        next mesh.
        """
        errors = (self(vertices) - vertices).norm(dim=-1)
        if stage != MANIPULATE:
            return errors
        goal = vertices.roll(1, 0)
        edited = self.edited(vertices, (goal - vertices)[:, self.controls].flatten(1))
        return torch.cat([errors, (edited - goal).norm(dim=-1)])

    def decoder_states(self, code: Tensor) -> list[Tensor]:
        """(B, L) -> the decoder's states (B, 1 + R, D), from its input tokens to its normed output."""
        free, displacement = code[:, : self.parts.free_size], code[:, self.parts["controls"]]
        return self._decoder_states(free, displacement)

    def _decoder_states(self, free: Tensor, displacement: Tensor) -> list[Tensor]:
        if self.config.bottleneck:
            first = self.from_code(free)[:, None]
            tokens = self.learned_tokens.expand(len(free), -1, -1)
        else:
            first = self.learned_tokens.expand(len(free), 1, -1)
            tokens = free.unflatten(1, (-1, self.config.width))
        scale = self.normalization.std.expand_as(self.normalization.mean)[self.controls].flatten()
        tokens = tokens + self.control_nets(displacement / scale)
        states: list[Tensor] = self.decoder(torch.cat([first, tokens], 1))
        return states

    def _encoder_states(self, x: Tensor) -> list[Tensor]:
        """(B, 3V) normalized, sorted by region -> the encoder's states (B, 1 + R, D)."""
        tokens = self.tokenizer(x) + self.region_embedding
        states: list[Tensor] = self.encoder(
            torch.cat([self.id_token.expand(len(x), 1, -1), tokens], 1)
        )
        return states

    def _code(self, last: Tensor) -> Tensor:
        """(B, 1 + R, D) the encoder's output -> the free code."""
        code: Tensor = (
            self.to_code(last[:, 0]) if self.config.bottleneck else last[:, 1:].flatten(1)
        )
        return code

    def _vertices(self, states: Tensor) -> Tensor:
        """(..., 1 + R, D) states -> (..., 3V) normalized coordinates, sorted by region."""
        x: Tensor = self.inverse_tokenizer(states[..., 1:, :])
        return x

    def _sorted(self, vertices: Tensor) -> Tensor:
        x: Tensor = self.normalization(vertices)[:, self.order].flatten(1)
        return x

    def _rows(self, region: int) -> slice:
        start = int((self.regions.labels < region).sum())
        return slice(start, start + int((self.regions.labels == region).sum()))

    def outputs(self, vertices: Tensor, displacement: Tensor | None = None) -> Tensor:
        """(B, V, 3) mm -> (S, B, V, 3) mm: what every state of encoder and decoder shows, the
        prediction last.
        """
        states = self._states(self._sorted(vertices), displacement)
        x = self._vertices(torch.stack(states)).unflatten(-1, (-1, 3))[:, :, self.place]
        return self.normalization.inverse(x)

    def _states(self, x: Tensor, displacement: Tensor | None) -> list[Tensor]:
        encoder = self._encoder_states(x)
        if displacement is None:
            displacement = x.new_zeros(len(x), 3 * len(self.controls))
        return encoder + self._decoder_states(self._code(encoder[-1]), displacement)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        source = batch.vertices
        shape = self._sorted(source)
        if progress.stage != MANIPULATE:
            return self._loss(shape, shape, None, edited=0)
        self.edits_trained.fill_(True)
        way = source.roll(1, 0) - source
        share = MIN_SHARE + (1 - MIN_SHARE) * self._reach(progress) * torch.rand(
            len(source), generator=progress.generator
        ).to(source)
        way = way * share[:, None, None]
        displacement = torch.cat([torch.zeros_like(way), way])[:, self.controls].flatten(1)
        return self._loss(
            shape.repeat(2, 1),
            torch.cat([shape, self._sorted(source + way)]),
            displacement,
            edited=len(source),
        )

    def _reach(self, progress: Progress) -> float:
        return min(1.0, progress.epoch / max(1e-9, self.config.ramp * progress.epochs))

    def _loss(
        self, source: Tensor, target: Tensor, displacement: Tensor | None, edited: int
    ) -> dict[str, Tensor]:
        """Mean absolute error of the states' shapes, as shares of the encoder and the decoder.

        source, target: (B, 3V) normalized, sorted. The last `edited` rows have edited decoder
        tokens as their input, which is no longer the mean shape: that state's shape is not judged
        there.
        """
        states, aims = self._states(source, displacement), self._aims()
        x = self._vertices(torch.stack([states[index] for index, _ in aims]))
        first = self.config.encoder_depth + 1
        sums: dict[str, Tensor] = {}
        judged = 0
        for row, (index, share) in zip(x, aims, strict=True):
            aim = share * (source if index < first else target)
            if index == first and edited:
                row, aim = row[:-edited], aim[:-edited]
            name = "encoder" if index < first else "decoder"
            sums[name] = sums.get(name, row.new_zeros(())) + nn.functional.l1_loss(
                row, aim, reduction="sum"
            )
            judged += row.numel()
        return {name: total / judged for name, total in sums.items()}

    def _aims(self) -> list[tuple[int, float]]:
        """The states that the loss looks at, and which share of the way from the mean to the shape
        each is to show.
        """
        kind, (e, d) = self.config.layers, (self.config.encoder_depth, self.config.decoder_depth)
        shares = [1 - i / e for i in range(e + 1)] + [i / d for i in range(d + 1)]
        if kind == "full":
            shares = [1.0] * len(shares)
        chosen = {
            "output": [],
            "encoder": range(e + 1),
            "decoder": range(e + 1, e + d + 1),
        }.get(kind, range(e + d + 1))
        return [(index, shares[index]) for index in [*chosen, e + d + 1]]

    @torch.no_grad()
    def factored(self, rank: int, shapes: Tensor) -> Lamm:
        """The same model with its inverse tokenizer of rank `rank`, best for the tokens of `shapes`
        (N, V, 3) mm.

        Raises InputError unless 1 <= rank < width, or where it is factored already.
        """
        if self.config.rank or not 1 <= rank < self.config.width:
            raise InputError(
                f"rank: expected 1..{self.config.width - 1} of a model that is not factored, got {rank}"
            )
        config = replace(self.config, rank=rank)
        model = Lamm(
            self.template, config, self.saved_geometry or self.geometry(self.template, self.config)
        ).to(self.device)
        kept = self.state_dict()
        inner, weight, bias = low_rank(self.inverse_tokenizer, self._last_tokens(shapes), rank)
        kept |= {
            f"inverse_tokenizer.{k}": v
            for k, v in (("inner", inner), ("weight", weight), ("bias", bias))
        }
        model.load_state_dict(kept)
        model.family, model.provenance = self.family, self.provenance | {"rank": rank}
        model.saved_geometry = self.saved_geometry
        return model.eval()

    def _last_tokens(self, shapes: Tensor) -> Tensor:
        """(N, R, D) what the inverse tokenizer reads when it decodes these shapes."""
        return torch.cat(
            [self.decoder_states(self.encode(part))[-1][:, 1:] for part in shapes.split(16)]
        )


def _backbone(config: LammConfig, depth: int, tokens: int) -> Backbone:
    if config.backbone == "mixer":
        expansions = config.expansion, config.channel_expansion
        return Backbone(
            [MixerLayer(tokens, config.width, *expansions) for _ in range(depth)], config.width
        )
    layers = [TransformerLayer(config.width, config.heads, config.expansion) for _ in range(depth)]
    return Backbone(layers, config.width)
