"""two-space: identity and expression apart, on PCA coefficients. It is the linear two-space model
plus what networks add to it, and each network has a gate.

The devices that keep the two parts of the code apart, and where they come from:

- The neutral mesh alone trains the identity code; the whole mesh is decoded from the detached code
  (Sun, Pears and Gu, WACV 2022).
- Transported pairs, meshes of one person with the expression of another, are inputs, and targets of
  the decoder with exchanged codes (transport: Sumner and Popovic, SIGGRAPH 2004).
- The decoder adds expression to the neutral mesh, and adds exactly nothing for the code zero.
- What identity codes cannot say of a person is no part of the decoder's target. Otherwise the
  expression code would be spent on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Count, CountOrZero, Positive, PositiveOrZero
from morphable.mesh.template import Template
from morphable.mesh.transport import Method, Transport
from morphable.models.apart import Apart, relative_score
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    Given,
    Labels,
    Origin,
    Shapes,
    TrainableModel,
    blocks,
)
from morphable.models.carried import carried
from morphable.models.gates import choose_gates
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.linear_two_space import people_and_offsets
from morphable.models.parts import IdentityExpression
from morphable.models.pca_mlp import mlp
from morphable.models.posterior import Posterior, mutual_information
from morphable.models.principal_basis import principal_basis
from morphable.models.training import Batch, Progress
from morphable.models.transported_pairs import Pairs, better_method

CORRECTED = 8
"""The outputs of the decoders' networks are in units of the mean deviation of so many components."""
GATES = (
    "identity_encoder_gate",
    "expression_encoder_gate",
    "identity_decoder_gate",
    "expression_decoder_gate",
)
"""Buffers that multiply what each network adds to the linear model."""
OTHERS = 100
"""So many training meshes stand by for judging swaps with a single validation person."""
VERTEX_SHARE = 6
"""Each training step measures distances at one in so many vertices, drawn at random."""


@dataclass(frozen=True)
class TwoSpaceNetworkConfig(IdentityExpression):
    """rank: number of principal components whose coefficients the networks read and write. width,
    depth: units per hidden layer, and number of hidden layers, of each network.

    pairs: how transported pairs are made, by deformation `gradients` or by added `offsets`; `auto`
    takes the one that explains the meshes of left-out people better. pair_count: their number.
    swap_weight: of the error of decoding with exchanged codes. identity_kl, expression_kl: weights
    of the KL divergences, in mm per nat. information_weight: of the mutual information between
    meshes and identity codes, as in `ib-vae`. initial_deviation: of the posteriors before training.
    """

    rank: Count = 128
    width: Count = 256
    depth: Count = 2
    pairs: Literal["auto", "gradients", "offsets", "none"] = "auto"
    pair_count: CountOrZero = 6000
    swap_weight: PositiveOrZero = 1.0
    identity_kl: PositiveOrZero = 1e-3
    expression_kl: PositiveOrZero = 3e-3
    information_weight: PositiveOrZero = 0.0
    initial_deviation: Positive = 0.14


class Correction(nn.Module):
    """A linear map plus an MLP, both zero at the start."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        nn.init.zeros_(self.linear.weight)
        self.network = mlp([inputs, *hidden, outputs])

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.linear(inputs) + self.network(inputs)
        return found


class TwoSpace(TrainableModel):
    """c = neutral(identity) + expression @ E + f(identity, expression) - f(identity, 0), where c are
    coefficients of the mesh in mm and neutral(identity) = center + identity @ S + g(identity).
    """

    config: TwoSpaceNetworkConfig
    needs_neutral = True
    axis_aligned_code = True
    labels_used = ("neutral",)
    identity_encoder_gate: Tensor
    expression_encoder_gate: Tensor
    identity_decoder_gate: Tensor
    expression_decoder_gate: Tensor

    def __init__(
        self,
        template: Template,
        config: TwoSpaceNetworkConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, config.parts(), config, geometry, origin)
        size, width = self.parts.size, 3 * template.n_vertices
        rank = config.rank + size + 1
        self.mean = nn.Buffer(torch.zeros(width))
        self.components = nn.Buffer(torch.zeros(rank, width))
        self.scales = nn.Buffer(torch.ones(rank))
        self.correction_unit = nn.Buffer(torch.ones(()))
        self.center = nn.Buffer(torch.zeros(rank))
        self.directions = nn.Buffer(torch.zeros(size, rank))
        self.inverse = nn.Buffer(torch.zeros(rank, size))

        hidden = [config.width] * config.depth
        self.identity_encoder = Correction(rank, config.identity, hidden)
        self.expression_encoder = Correction(rank, config.expression, hidden)
        self.log_variance = Correction(rank, size, hidden[:1])
        self.identity_decoder = Correction(config.identity, rank, hidden)
        self.expression_decoder = Correction(size, rank, hidden)
        for gate in GATES:
            self.register_buffer(gate, torch.ones(()))

        # Only training needs these.
        self.pairs = nn.Buffer(torch.zeros(0, 4, rank), persistent=False)
        self.others = nn.Buffer(torch.zeros(2, 0, template.n_vertices, 3), persistent=False)
        self.method: Method = "offsets"

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]], meshes: int) -> Any:
        people = len(classes.get("subject", ())) or meshes
        sizes = {"identity": max(1, people - 1), "expression": max(1, meshes - people)}
        return carried(config, f"{people} subjects with {meshes} meshes", **sizes)

    # Training: what it starts from

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        config = self.config
        neutral = labels.get("neutral", np.full(len(shapes), -1))
        people, offsets = people_and_offsets(shapes, neutral, "two-space")
        identity = principal_basis(shapes[people], config.identity)
        expression = principal_basis(offsets, config.expression)
        scaled = [space.components * space.deviations[:, None] for space in (identity, expression)]
        directions = np.concatenate(scaled)

        # The components span the linear model exactly, and the meshes as well as `rank` can.
        meshes = principal_basis(shapes, config.rank)
        spanned = orthonormal(np.concatenate([directions, [identity.mean - meshes.mean]]))
        rest = meshes.components - meshes.components @ spanned.T @ spanned
        spanned = np.concatenate([spanned, orthonormal(rest)])
        coefficients = np.concatenate(
            [
                (b.reshape(len(b), -1) - meshes.mean).astype(np.float32)
                @ spanned.T.astype(np.float32)
                for b in blocks(shapes)
            ]
        ).astype(np.float64)
        values, axes = np.linalg.eigh(np.cov(coefficients.T))
        axes, values = axes[:, ::-1], np.maximum(values[::-1], 0)
        components = axes.T @ spanned
        largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
        components *= np.where(largest < 0, -1.0, 1.0)

        deviations = np.sqrt(values)
        self._fill(self.mean, meshes.mean)
        self._fill(self.components, components)
        self._fill(self.scales, np.maximum(deviations, 1e-3 * deviations[0]))
        self.correction_unit.fill_(float(deviations[:CORRECTED].mean()))
        self._fill(self.center, components @ (identity.mean - meshes.mean))
        self._fill(self.directions, directions @ components.T)
        self._fill(self.inverse, components @ np.linalg.pinv(directions))
        self._prepare_pairs(shapes, neutral)

    @staticmethod
    def _fill(buffer: Tensor, values: np.ndarray) -> None:
        """Copy values into the start of a buffer. If fewer dimensions exist, the rest stays."""
        buffer[tuple(slice(n) for n in values.shape)] = torch.tensor(values).to(buffer)

    def _prepare_pairs(self, shapes: Shapes, neutral: np.ndarray) -> None:
        """Make what training needs besides the meshes: the coefficients (P, 4, R) mm of transported
        pairs, each the person's mesh, the mesh whose expression is carried over, the transported
        mesh and the person's neutral mesh; and some meshes with their neutral meshes.
        """
        config = self.config
        random = np.random.default_rng(int(torch.randint(2**31, (1,))))
        transport = self._transport()
        judged = config.pairs in ("auto", "none")
        self.method = better_method(shapes, neutral, transport, random) if judged else config.pairs
        known = np.flatnonzero(neutral >= 0)
        some = np.sort(random.permutation(known)[:OTHERS])
        beside = np.stack([shapes[some], shapes[neutral[some]]])
        self.others = torch.from_numpy(beside).to(self.mean)

        drawn = Pairs.draw(neutral, 0 if config.pairs == "none" else config.pair_count, random)
        if len(drawn):
            own = self._coefficients_of(blocks(shapes))
            made = self._coefficients_of(drawn.meshes(shapes, transport, self.method))
            four = own[drawn.person], own[drawn.source], made, own[drawn.person_neutral]
            self.pairs = torch.stack(four, 1)

    def _transport(self) -> Transport:
        return Transport.of(self.template.mesh.triangles, self.template.n_vertices)

    def _coefficients_of(self, meshes: Iterable[np.ndarray]) -> Tensor:
        """(N, R) mm of meshes in blocks."""
        return torch.cat(
            [self.coefficients(torch.from_numpy(block).to(self.mean)) for block in meshes]
        )

    # The code

    def coefficients(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, R) mm along the components."""
        return (vertices.flatten(1) - self.mean) @ self.components.T

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return self.code_of(self.coefficients(vertices))

    def code_of(self, coefficients: Tensor) -> Tensor:
        """(B, R) mm -> (B, L)"""
        read = coefficients / self.scales
        added = (
            self.identity_encoder_gate * self.identity_encoder(read),
            self.expression_encoder_gate * self.expression_encoder(read),
        )
        return (coefficients - self.center) @ self.inverse + torch.cat(added, 1)

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return (self.mean + self._moved(code) @ self.components).unflatten(1, (-1, 3))

    def _moved(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, R) mm, the coefficients of the whole mesh."""
        identity, expression = self._split(code)
        return self.person(identity) + self.offset(identity, expression)

    def person(self, identity: Tensor) -> Tensor:
        """(B, L_identity) -> (B, R) mm, the coefficients of the neutral mesh."""
        added = self.identity_decoder_gate * self.correction_unit * self.identity_decoder(identity)
        return self.center + identity @ self.directions[: self.config.identity] + added

    def offset(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(B, L_identity), (B, L_expression) -> (B, R) mm, what the expression adds."""
        code = torch.cat([identity, expression], 1)
        neutral = torch.cat([identity, torch.zeros_like(expression)], 1)
        added = self.expression_decoder(code) - self.expression_decoder(neutral)
        linear = expression @ self.directions[self.config.identity :]
        return linear + self.expression_decoder_gate * self.correction_unit * added

    # The objective

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        assert batch.neutral is not None
        config, generator = self.config, progress.generator
        meshes, people = self.coefficients(batch.vertices), self.coefficients(batch.neutral)
        pairs = self.pairs
        if len(pairs):
            drawn = torch.randint(len(pairs), (len(meshes),), generator=generator)
            pairs = pairs[drawn.to(pairs.device)]
            meshes = torch.cat([meshes, pairs[:, 2]])
            people = torch.cat([people, pairs[:, 3]])
        count = self.template.n_vertices
        some = torch.randperm(count, generator=generator)[: -(-count // VERTEX_SHARE)]
        seen = self.components.unflatten(1, (-1, 3))[:, some.to(self.components.device)].flatten(1)

        def error(difference: Tensor) -> Tensor:
            return (difference @ seen).unflatten(1, (-1, 3)).norm(dim=-1).mean()

        posterior = self.posterior(meshes)
        identity, expression = self._split(posterior.draw(generator))
        terms = {
            "neutral": error(self.person(identity) - people),
            "offset": error(self.offset(identity.detach(), expression) - (meshes - people)),
        }
        if len(pairs) and config.swap_weight:
            of_person = self._split(self.posterior(pairs[:, 0]).draw(generator))[0].detach()
            of_other = self._split(self.posterior(pairs[:, 1]).draw(generator))[1]
            swapped = self.offset(of_person, of_other) - (pairs[:, 2] - pairs[:, 3])
            terms["swap"] = config.swap_weight * error(swapped)
        mean, log_variance = posterior
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        kl = [part.sum(1).mean() for part in self._split(divergence)]
        terms["kl"] = config.identity_kl * kl[0] + config.expression_kl * kl[1]
        if config.information_weight:
            of_identity = posterior.part(self.parts["identity"])
            information = mutual_information(identity, of_identity)
            terms["information"] = config.information_weight * information
        return terms

    def finish(self, validation: Batch) -> None:
        """Choose the gates by `relative_score` on the validation meshes."""
        transport = self._transport()
        judge = Apart(
            validation,
            Batch(self.others[0], self.others[1]),
            lambda *meshes: transport.apply(*meshes, self.method),
        )
        meshes, sources = self.coefficients(judge.meshes), self.coefficients(judge.sources)
        mean = self.mean.unflatten(0, (-1, 3))[judge.seen]
        seen = self.components.unflatten(1, (-1, 3))[:, judge.seen].flatten(1)

        def decode(code: Tensor) -> Tensor:
            return mean + (self._moved(code) @ seen).unflatten(1, (-1, 3))

        def measures() -> dict[str, float]:
            codes = self.code_of(meshes), self.code_of(sources)
            return judge.measures(self.parts, *codes, decode)

        gates = [self.get_buffer(gate) for gate in GATES]
        for gate in gates:
            gate.zero_()
        linear = measures()
        choose_gates(gates, lambda: relative_score(measures(), linear))

    def for_inference(self) -> Self:
        self.pairs, self.others = self.pairs[:0], self.others[:, :0]
        return self

    def _split(self, code: Tensor) -> tuple[Tensor, ...]:
        return code.split([self.config.identity, self.config.expression], 1)

    def posterior(self, coefficients: Tensor) -> Posterior:
        """The distribution of the codes of coefficients (B, R) mm, for training."""
        start = 2 * math.log(self.config.initial_deviation)
        return Posterior(
            self.code_of(coefficients), start + self.log_variance(coefficients / self.scales)
        )


def orthonormal(rows: np.ndarray) -> np.ndarray:
    """(k, D) an orthonormal basis of the span of rows (n, D), k <= n."""
    _, values, axes = np.linalg.svd(rows, full_matrices=False)
    return axes[values > 1e-7 * max(values.max(initial=0.0), 1e-30)]
