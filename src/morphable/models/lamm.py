"""LAMM: an autoencoder on region tokens, in which the tokens after every layer can be shown as a
shape, and handles edit regions.

Tarasiou et al., "Locally adaptive neural 3D morphable models", CVPR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Positive
from morphable.errors import InputError
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
from morphable.models.gates import BATCH, choose_gates, choose_pair
from morphable.models.geometry import RegionCounts, RegionGeometry
from morphable.models.handles import FOLLOW_RANK, Handles, LinearHandles, RegionEditor
from morphable.models.lamm_network import LammNetwork, LammNetworkConfig, States
from morphable.models.linear_start import LinearStart
from morphable.models.normalization import Normalization
from morphable.models.parts import Parts
from morphable.models.principal_basis import PrincipalBasis, principal_basis
from morphable.models.region_pca import RegionView
from morphable.models.training import Batch, Progress

AUTOENCODE, MANIPULATE = "autoencode", "manipulate"
MIN_SHARE = 0.25
"""In training, edits move at least this share of the way from one shape to another."""
NOT_TRAINED = (
    "this LAMM was trained to autoencode only: its handles were never trained, so edits would be "
    "meaningless; train it with `stages` autoencode,manipulate"
)


@dataclass(frozen=True)
class LammConfig(RegionCounts, LammNetworkConfig):
    """layers: the states that the loss compares with a shape. `progressive`: all states, from
    the shape to the mean shape and back. `encoder`: those of the encoder, and the output.
    `decoder`: those of the decoder. `output`: the output alone. `full`: all states, each with the
    whole shape. normalization: `vertex` = z-score per vertex and axis, `global` = one scale for
    all. ramp: share of the stage `manipulate` during which the largest edits grow to the whole way
    from one shape to another.
    """

    layers: Literal["progressive", "full", "output", "encoder", "decoder"] = "progressive"
    normalization: Literal["vertex", "global"] = "vertex"
    ramp: Positive = 100 / 1500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start == "linear" and not self.bottleneck:
            raise self.error(
                "start",
                "linear needs a code of the whole shape (model.bottleneck=true); without a "
                "bottleneck, pca starts each region's token at its principal components",
            )


class Aim(NamedTuple):
    """A state that the loss compares with a shape: state number `layer` of the encoder or decoder
    (`side`), which should show the shape a share `share` of the way from the mean shape.
    """

    side: Literal["encoder", "decoder"]
    layer: int
    share: float


def aims(config: LammConfig) -> list[Aim]:
    """The states that the loss compares, by the setting `layers`.

    Encoder states go from the shape to the mean shape, with share 1 - l / e for layer l of e.
    Decoder states go from the mean shape to the shape, with share l / d for layer l of d.
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
    """loss = mean over states l of |x_l - a_l x|, where x is the shape relative to the mean shape,
    and x_l the shape that the inverse tokenizer makes of state l.

    Encoder states reproduce the source, with a_l falling from 1 to 0. Decoder states reproduce the
    target, with a_l rising from 0 to 1. In the stage `autoencode`, source and target are the same.
    In the stage `manipulate`, the target is the source moved part of the way to another shape, and
    the network is given the displacements of the control vertices only.

    Parts of the code: `shape` (or `tokens`, without a bottleneck) is free. `controls` is pinned:
    the displacements in mm of all control vertices, region by region; zero means no edit.
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
        self.linear = None
        if config.start == "linear":
            self.linear = LinearStart(config.latent, template.n_vertices)
            # The network adds to PCA from the start, so its gate is never closed before training.
            self.linear.decoder_gate.fill_(1.0)
            self.linear_handles = LinearHandles(regions)

    @property
    def starts_linear(self) -> bool:
        return self.linear is not None

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        self.normalization.initialize(shapes)
        self.handles.initialize(shapes)
        if self.linear is not None:
            self.linear.initialize(shapes)
        if self.config.start == "random":
            return
        mean, std = (x.cpu().numpy() for x in self._mean_and_std())
        for region in range(len(self.regions.names)):
            members = self.regions.vertices(region)
            view = RegionView(shapes, members, mean, std)
            width = self.config.width
            basis = principal_basis(view, width if self.linear is None else max(width, FOLLOW_RANK))
            self.network.start_at_components(
                region, basis.components[:width], basis.deviations[:width]
            )
            if self.linear is not None:
                self._start_handles(region, basis)
        if self.linear is not None:
            units = torch.eye(self.parts.free_size).to(self.linear.basis.mean)
            shapes_of_units = self.linear.offsets_of(units) / self.normalization.std
            self.network.start_from_code(self.network.sort(shapes_of_units))

    def _start_handles(self, region: int, basis: PrincipalBasis) -> None:
        """Let a region follow its handles along its principal components (of normalized shapes)."""
        members = self.regions.vertices(region)
        std = self._mean_and_std()[1][torch.from_numpy(members)].flatten()
        components = torch.from_numpy(basis.components[:FOLLOW_RANK]).to(std) * std
        places = torch.from_numpy(np.searchsorted(members, self.regions.controls[region]))
        deviations = torch.from_numpy(basis.deviations[:FOLLOW_RANK]).to(std)
        self.linear_handles.set(region, components, deviations, places)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        last = self.network.encoder_states(self._normalized(vertices))[-1]
        return self.assemble(self._free_code(vertices, last), given)

    def _free_code(self, vertices: Tensor, last: Tensor) -> Tensor:
        """The free part of the codes of meshes (B, V, 3) mm, from the encoder's last state."""
        added = self.network.code_of(last)
        return added if self.linear is None else self.linear.code_of(vertices, added)

    def decode(self, code: Tensor, learned_tokens: Tensor | None = None) -> Tensor:
        """(B, L) -> (B, V, 3) mm. If `learned_tokens` (R, D) are given, they replace the trained
        ones.
        """
        added = self._network_offsets(code, learned_tokens)
        if self.linear is None:
            return self.normalization.mean + added
        return (
            self.normalization.mean + self._linear_offsets(code) + self.linear.decoder_gate * added
        )

    def _linear_offsets(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm relative to the mean shape: PCA, and what follows the handles."""
        assert self.linear is not None
        free, controls = code[:, : self.parts.free_size], code[:, self.parts["controls"]]
        follow = self.network.unsort(self.linear_handles(controls))
        return self.linear.offsets_of(free) + follow

    def _network_offsets(self, code: Tensor, learned_tokens: Tensor | None = None) -> Tensor:
        """(B, L) -> (B, V, 3) mm relative to the mean shape, by the network alone."""
        last = self.decoder_states(code, learned_tokens)[-1]
        return self.network.unsort(self.network.coordinates(last)) * self.normalization.std

    def decoder_states(self, code: Tensor, learned_tokens: Tensor | None = None) -> list[Tensor]:
        """The decoder's states (B, 1 + R, D) for codes (B, L), from its input tokens to its
        layer-normalized output.
        """
        self.check_code(code)
        free, controls = code[:, : self.parts.free_size], code[:, self.parts["controls"]]
        return self.network.decoder_states(free, self._scaled(controls), learned_tokens)

    def decode_region(self, code: Tensor, region: int) -> Tensor:
        """(B, L) -> (B, m, 3) mm: decode only the m vertices of one region, in ascending order.
        This saves the cost of the other regions' inverse tokenizers.
        """
        network = self.network
        token = self.decoder_states(code)[-1][:, 1 + region]
        x = network.inverse_tokenizer.one(token, region).unflatten(-1, (-1, 3))
        mean, std = self._mean_and_std()
        members = network.region_members(region)
        if self.linear is None:
            return x * std[members] + mean[members]
        free, controls = code[:, : self.parts.free_size], code[:, self.parts["controls"]]
        offsets = self.linear.offsets_at(free, members) + self.linear_handles.one(controls, region)
        return self.linear.decoder_gate * x * std[members] + offsets + mean[members]

    @property
    def handles_trained(self) -> bool:
        # A model that starts linear starts with region-PCA's handles.
        return bool(self.edits_trained) or self.linear is not None

    def displace(self, code: Tensor, displacement: Tensor) -> Tensor:
        """Set the part `controls` of the codes, as `RegionEditor.displace`.

        Raises InputError if the stage `manipulate` was not trained, unless the model starts linear.
        """
        if not self.handles_trained:
            raise InputError(NOT_TRAINED, "stages")
        result = code.clone()
        result[:, self.parts["controls"]] = displacement
        return result

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        shape = self._normalized(batch.vertices)
        vertices = batch.vertices
        if progress.stage != MANIPULATE:
            return self._multilayer_loss(vertices, shape, shape, self._rest(len(shape)))

        # Half of the shapes are not edited, so that the model does not forget to autoencode.
        change = self._random_change(vertices, progress)
        edited = self._normalized(vertices + change)
        moved = change[:, self.controls].flatten(1)
        self.edits_trained.fill_(True)
        return self._multilayer_loss(
            vertices=torch.cat([vertices, vertices]),
            source=torch.cat([shape, shape]),
            target=torch.cat([shape, edited]),
            displacement=torch.cat([torch.zeros_like(moved), moved]),
            edits=len(edited),
        )

    def _multilayer_loss(
        self,
        vertices: Tensor,
        source: Tensor,
        target: Tensor,
        displacement: Tensor,
        edits: int = 0,
    ) -> dict[str, Tensor]:
        """The loss of the class docstring, with one term for the encoder and one for the decoder.

        vertices: (B, V, 3) mm, the meshes that are encoded. source, target: (B, 3V) normalized, the
        same meshes and those to decode to. displacement: (B, 3C) mm. edits: the last `edits` rows
        have edited tokens at the decoder's input. These tokens should not show the mean shape, so
        that state is left out of the loss for them.
        """
        encoder = self.network.encoder_states(source)
        code = self._free_code(vertices, encoder[-1])
        decoder = self.network.decoder_states(code, self._scaled(displacement))
        states = States(encoder, decoder)
        linear = None
        if self.linear is not None:
            offsets = self._linear_offsets(torch.cat([code, displacement], 1))
            linear = self.network.sort(offsets / self.normalization.std)
        judged = torch.stack([getattr(states, side)[layer] for side, layer, _ in self.aims])

        terms: dict[str, Tensor] = {}
        count = 0
        for x, (side, layer, share) in zip(
            self.network.coordinates(judged), self.aims, strict=True
        ):
            aim = share * (source if side == "encoder" else target)
            if side == "decoder" and linear is not None:
                # PCA adds to what a state shows as much of the shape as the state should show.
                x = x + share * linear
            if side == "decoder" and layer == 0:
                x, aim = x[: len(x) - edits], aim[: len(x) - edits]
            error = nn.functional.l1_loss(x, aim, reduction="sum")
            terms[side] = terms[side] + error if side in terms else error
            count += x.numel()
        return {side: total / count for side, total in terms.items()}

    def _random_change(self, vertices: Tensor, progress: Progress) -> Tensor:
        """(B, V, 3) mm: displacements of each mesh, a random share of the way to the mesh before it
        in the batch.
        """
        draw = torch.rand(len(vertices), generator=progress.generator).to(vertices)
        share = MIN_SHARE + (1 - MIN_SHARE) * self._ramp(progress) * draw
        return (vertices.roll(1, 0) - vertices) * share[:, None, None]

    def _ramp(self, progress: Progress) -> float:
        """How far the size of edits has grown in this epoch, from 0 to 1 = all the way."""
        return min(1.0, progress.epoch / max(1e-9, self.config.ramp * progress.epochs))

    def validate(self, vertices: Tensor, stage: str) -> Tensor:
        """The vertex errors (mm) of reconstructions. In the stage `manipulate`, also those of edits
        that move all handles to their positions on the mesh before it in the batch.
        """
        errors = (self(vertices) - vertices).norm(dim=-1)
        if stage != MANIPULATE:
            return errors
        goal = vertices.roll(1, 0)
        edited = self.edit(vertices, (goal - vertices)[:, self.controls].flatten(1))
        return torch.cat([errors, (edited - goal).norm(dim=-1)])

    def finish(self, validation: Batch) -> None:
        linear = self.linear
        if linear is None:
            return
        gates = linear.encoder_gate, linear.decoder_gate
        vertices, mean = validation.vertices, self.normalization.mean

        def encoder(x: Tensor) -> tuple[Tensor, Tensor]:
            return linear.basis.code_of(x), self.network.encode(self._normalized(x))

        def decoder(code: Tensor) -> tuple[Tensor, Tensor]:
            return mean + linear.offsets_of(code), self._network_offsets(self.assemble(code))

        def score() -> float:
            blocks = vertices.split(BATCH)
            return sum(float(self.validate(x, MANIPULATE).mean()) * len(x) for x in blocks)

        if self.edits_trained:
            choose_gates(gates, score)  # edits count too
        else:
            choose_pair(*gates, vertices, encoder, decoder)

    def _normalized(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, 3V) as the network reads it."""
        return self.network.sort(self.normalization(vertices))

    def _scaled(self, displacement: Tensor) -> Tensor:
        """(B, 3C) mm -> the network's units."""
        return displacement / self._mean_and_std()[1][self.controls].flatten()

    def _rest(self, count: int) -> Tensor:
        """(count, 3C) displacements that are all zero."""
        return self.normalization.mean.new_zeros(count, 3 * len(self.controls))

    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, both (V, 3) mm even if all vertices share one deviation."""
        mean = self.normalization.mean
        return mean, self.normalization.std.expand_as(mean)
