"""LAMM: every layer's region tokens are shapes too, and handles edit regions (Tarasiou et al. 2024,
"Locally adaptive neural 3D morphable models").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import CountOrZero, Positive
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, Given, Origin, Shapes, TrainableModel
from morphable.models.geometry import RegionGeometry
from morphable.models.handles import Handles, RegionEditor
from morphable.models.lamm_network import LammNetwork, LammNetworkConfig
from morphable.models.normalization import Normalization
from morphable.models.parts import Parts
from morphable.models.principal_basis import principal_basis
from morphable.models.region_pca import RegionView
from morphable.models.training import Batch, Progress

AUTOENCODE, MANIPULATE = "autoencode", "manipulate"
MIN_SHARE = 0.25
"""A trained edit moves at least this share of the way from one shape to another."""
NOT_TRAINED = (
    "this LAMM was trained to autoencode only: its handles were never trained, so edits would be "
    "meaningless; train it with `stages` autoencode,manipulate"
)


@dataclass(frozen=True)
class LammConfig(LammNetworkConfig):
    """regions: number of automatic ones, 0 = the template's own (11 automatic ones if it has none).
    layers: whose states the loss judges: `progressive` all, from the shape to the mean and back;
    `encoder` or `decoder` those and the output; `output` alone; `full` all, each to be the whole
    shape. normalization: `vertex` = z-score of every coordinate, `global` = one scale. start: of
    tokenizer and inverse tokenizer, `random` or at the principal components of each region. ramp:
    share of the stage `manipulate` after which edits may move all the way.
    """

    regions: CountOrZero = 0
    layers: Literal["progressive", "full", "output", "encoder", "decoder"] = "progressive"
    normalization: Literal["vertex", "global"] = "vertex"
    start: Literal["random", "pca"] = "random"
    ramp: Positive = 100 / 1500


class Aim(NamedTuple):
    """A state that the loss judges: number `layer` of the encoder or decoder `side`, and the share
    a of the way from the mean shape that it should show.
    """

    side: Literal["encoder", "decoder"]
    layer: int
    share: float


def aims(config: LammConfig) -> list[Aim]:
    """Encoder states go from the shape to the mean, a = 1 - l / e; decoder states from the mean to
    the shape, a = l / d.
    """
    e, d = config.encoder_depth, config.decoder_depth
    encoder = [Aim("encoder", layer, 1 - layer / e) for layer in range(e + 1)]
    decoder = [Aim("decoder", layer, layer / d) for layer in range(d + 1)]
    match config.layers:
        case "progressive":
            return encoder + decoder
        case "full":
            return [aim._replace(share=1.0) for aim in encoder + decoder]
        case "encoder":
            return encoder + decoder[-1:]
        case "decoder":
            return decoder
        case "output":
            return decoder[-1:]


class Lamm(TrainableModel, RegionEditor):
    """loss = mean over states l of |x_l - a_l x|, where x is the shape relative to the mean shape.

    x_l is the shape that the region tokens of state l of the network show. Encoder states reproduce
    the source, a_l falling from 1 to 0; decoder states the target, a_l rising from 0 to 1. In the
    stage `autoencode` source and target are the same; in `manipulate` the target is the source with
    all handles moved part of the way to another shape.

    Parts: `shape` (or `tokens`) free; `controls` pinned, the displacements in mm of all control
    vertices, region by region, zero = no edit.
    """

    geometry_type = RegionGeometry
    stages = (AUTOENCODE, MANIPULATE)
    why_no_prior = (
        "without a bottleneck its code is the region tokens; "
        "train one with a bottleneck (model.bottleneck=true)"
    )

    def __init__(
        self,
        template: Template,
        config: LammConfig,
        geometry: RegionGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        regions = geometry.regions
        controls = np.concatenate(regions.controls).astype(np.int64)
        free = (
            Parts.of(shape=config.latent)
            if config.bottleneck
            else Parts.of(tokens=len(regions.names) * config.width)
        )
        super().__init__(
            replace(template, regions=regions),
            free.with_pinned(controls=3 * len(controls)),
            config,
            geometry,
            origin,
            has_prior=config.bottleneck,
        )
        self.edits_trained = nn.Buffer(torch.zeros((), dtype=torch.bool))
        self.controls = nn.Buffer(torch.from_numpy(controls), persistent=False)
        self.aims = aims(config)
        self.normalization = Normalization(template.n_vertices, config.normalization == "vertex")
        self.handles = Handles(regions, template.mesh.faces)
        self.network = LammNetwork(regions, config)

    def initialize(self, shapes: Shapes) -> None:
        self.normalization.initialize(shapes)
        self.handles.initialize(shapes)
        if self.config.start == "pca":
            mean, std = (x.cpu().numpy() for x in self._mean_and_std())
            for region in range(len(self.regions.names)):
                view = RegionView(shapes, self.regions.vertices(region), mean, std)
                basis = principal_basis(view, self.config.width)
                self.network.start_at_components(region, basis.components, basis.deviations)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return self.assemble(self.network.encode(self._normalized(vertices)), given)

    def decode(self, code: Tensor, learned_tokens: Tensor | None = None) -> Tensor:
        """(B, L) -> (B, V, 3) mm; `learned_tokens` (R, D) take the place of the trained ones."""
        last = self.decoder_states(code, learned_tokens)[-1]
        return self.normalization.inverse(self.network.unsort(self.network.coordinates(last)))

    def decoder_states(self, code: Tensor, learned_tokens: Tensor | None = None) -> list[Tensor]:
        """(B, L) -> the decoder's states (B, 1 + R, D), from its input tokens to its normed
        output.
        """
        free, controls = code[:, : self.parts.free_size], code[:, self.parts["controls"]]
        return self.network.decoder_states(free, self._scaled(controls), learned_tokens)

    def decode_region(self, code: Tensor, region: int) -> Tensor:
        """(B, L) -> (B, m, 3) mm: the vertices of one region, ascending, without the others'
        cost.
        """
        network = self.network
        token = self.decoder_states(code)[-1][:, 1 + region]
        x = network.inverse_tokenizer.one(token, region).unflatten(-1, (-1, 3))
        mean, std = self._mean_and_std()
        members = network.region_members(region)
        return x * std[members] + mean[members]

    def displace(self, code: Tensor, displacement: Tensor) -> Tensor:
        """Raises InputError if the stage `manipulate` was not trained."""
        if not self.edits_trained:
            raise InputError(NOT_TRAINED, "stages")
        result = code.clone()
        result[:, self.parts["controls"]] = displacement
        return result

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        shape = self._normalized(batch.vertices)
        if progress.stage != MANIPULATE:
            return self._multilayer_loss(shape, shape, self._rest(len(shape)))

        # One half of the batch is at rest, so that autoencoding is not forgotten; the other half is
        # edited.
        change = self._random_change(batch.vertices, progress)
        edited = self._normalized(batch.vertices + change)
        moved = change[:, self.controls].flatten(1)
        self.edits_trained.fill_(True)
        return self._multilayer_loss(
            source=torch.cat([shape, shape]),
            target=torch.cat([shape, edited]),
            displacement=self._scaled(torch.cat([torch.zeros_like(moved), moved])),
            edits=len(edited),
        )

    def _multilayer_loss(
        self, source: Tensor, target: Tensor, displacement: Tensor, edits: int = 0
    ) -> dict[str, Tensor]:
        """The formula of the class, as the terms of encoder and decoder; shapes are (B, 3V).

        The last `edits` rows have edited tokens at the decoder's input. Those do not show the mean
        shape, so they are not judged there.
        """
        states = self.network.states(source, displacement)
        judged = torch.stack([getattr(states, side)[layer] for side, layer, _ in self.aims])

        terms: dict[str, Tensor] = {}
        count = 0
        for x, (side, layer, share) in zip(
            self.network.coordinates(judged), self.aims, strict=True
        ):
            aim = share * (source if side == "encoder" else target)
            if side == "decoder" and layer == 0:
                x, aim = x[: len(x) - edits], aim[: len(x) - edits]
            error = nn.functional.l1_loss(x, aim, reduction="sum")
            terms[side] = terms[side] + error if side in terms else error
            count += x.numel()
        return {side: total / count for side, total in terms.items()}

    def _random_change(self, vertices: Tensor, progress: Progress) -> Tensor:
        """(B, V, 3) mm: from each mesh a random share of the way to the mesh before it."""
        draw = torch.rand(len(vertices), generator=progress.generator).to(vertices)
        share = MIN_SHARE + (1 - MIN_SHARE) * self._ramp(progress) * draw
        return (vertices.roll(1, 0) - vertices) * share[:, None, None]

    def _ramp(self, progress: Progress) -> float:
        """How much of the largest edits is allowed in this epoch, 0 to 1."""
        return min(1.0, progress.epoch / max(1e-9, self.config.ramp * progress.epochs))

    def validate(self, vertices: Tensor, stage: str) -> Tensor:
        """Vertex errors of the reconstruction; in the stage `manipulate` also those of edits that
        move all handles to where the mesh before has them.
        """
        errors = (self(vertices) - vertices).norm(dim=-1)
        if stage != MANIPULATE:
            return errors
        goal = vertices.roll(1, 0)
        edited = self.edit(vertices, (goal - vertices)[:, self.controls].flatten(1))
        return torch.cat([errors, (edited - goal).norm(dim=-1)])

    def _normalized(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, 3V) as the network reads it."""
        return self.network.sort(self.normalization(vertices))

    def _scaled(self, displacement: Tensor) -> Tensor:
        """(B, 3C) mm -> the network's units."""
        return displacement / self._mean_and_std()[1][self.controls].flatten()

    def _rest(self, count: int) -> Tensor:
        """(count, 3C) displacements of nothing."""
        return self.normalization.mean.new_zeros(count, 3 * len(self.controls))

    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Both (V, 3) mm, also if one deviation scales all."""
        mean = self.normalization.mean
        return mean, self.normalization.std.expand_as(mean)
