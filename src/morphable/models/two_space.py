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
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Count, CountOrZero, Positive, PositiveOrZero
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.mesh.transport import Method, Transport
from morphable.models.apart import Apart, centered, relative_score
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    Given,
    Labels,
    Origin,
    Shapes,
    blocks,
)
from morphable.models.basis_points import MAX_POINTS, BasisPoints
from morphable.models.carried import carried_by_people
from morphable.models.coefficient_start import (
    CoefficientStart,
    Unexplained,
    alignment,
    effects,
    moving_axes,
    ridge,
)
from morphable.models.condition import CONDITION, Condition
from morphable.models.conditional import ConditionalModel
from morphable.models.correction import Correction
from morphable.models.dense import DenseDecoder, side_by_side
from morphable.models.gates import choose_gates
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.linear_two_space import people_and_offsets
from morphable.models.parts import IdentityExpression
from morphable.models.point_encoder import scan_like
from morphable.models.posterior import Posterior, mutual_information
from morphable.models.principal_basis import principal_basis
from morphable.models.training import Batch, Progress, some_vertices
from morphable.models.transported_pairs import Pairs, better_method
from morphable.rows import evenly_spread

CORRECTED = 8
"""The outputs of the decoders' networks are in units of the mean deviation of so many components."""
GATES = (
    "identity_encoder_gate",
    "identity_decoder_gate",
    "expression_gate",
)
"""Buffers that multiply what networks add to the linear model. The encoder and the decoder of
expressions have one, because they help only together.
"""
MIN_PEOPLE = 8
"""Fewest validation people by whom the gates of the identity are opened, as many as a confidence
interval needs. People who were trained on are enough in any number.
"""
OTHERS = 50
"""So many training meshes stand by for judging swaps with a single validation person."""
SEARCH_VERTICES = 500
"""The error of a condition is measured at so many vertices, evenly spread."""
LOG_VARIANCE = (-12.0, 4.0)
"""Bounds of the posteriors' log variance. Below, the information of a code would grow without end.
"""
SCANS = 64
"""At most so many meshes of a training step are read as simulated scans too."""
SCAN_WIDTH = 512
"""Units of the two hidden layers of the network that reads scans."""
ALIGNED = 1000
"""The axes of the codes are aligned by at most so many training meshes, evenly spread."""


@dataclass(frozen=True)
class TwoSpaceNetworkConfig(IdentityExpression):
    """rank: number of principal components whose coefficients the networks read and write. width,
    depth: units per hidden layer, and number of hidden layers, of each network.

    pairs: how transported pairs are made, by deformation `gradients` or by added `offsets`; `auto`
    takes the one that explains the meshes of left-out people better. pair_count: their number.
    swap_weight: of the error of decoding with exchanged codes. identity_kl, expression_kl: weights
    of the KL divergences, in mm per nat. information_weight: of the mutual information between
    meshes and identity codes, as in `ib-vae`. initial_deviation: of the posteriors before training.

    conditional: whether the code has a condition too, a named expression at a level, as in `cvae`. Both
    spaces of the expression then add to what the condition does. expressions: the names, in the
    order of their numbers, read from the training data.

    scans: whether a network of points in any order learns the coefficients of the meshes from
    simulated scans of them. The encoders read these as those of a mesh.
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
    conditional: bool = False
    expressions: tuple[str, ...] = ()
    scans: bool = False


def noise_left(progress: Progress) -> float:
    """The share of the posteriors' noise, and of the terms that limit what codes say, at this step.
    It falls linearly to zero.
    """
    return 1 - progress.step / (progress.epochs * progress.steps_per_epoch)


class TwoSpace(ConditionalModel):
    """c = neutral(identity) + expression @ E + f(identity, expression) - f(identity, 0), where c are
    coefficients of the mesh in mm and neutral(identity) = center + identity @ S + g(identity).

    With a condition, `expression` stands for the expression code followed by the condition there.
    The linear model then has directions of conditions, too.
    """

    config: TwoSpaceNetworkConfig
    needs_neutral = True
    identity_encoder_gate: Tensor
    identity_decoder_gate: Tensor
    expression_gate: Tensor
    pairs: Tensor
    pair_conditions: Tensor
    others: Tensor
    known: Tensor
    known_conditions: Tensor

    def __init__(
        self,
        template: Template,
        config: TwoSpaceNetworkConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        condition = Condition(config.expressions) if config.conditional else None
        given = 0 if condition is None else len(condition.names)
        free = config.parts()
        parts = free.with_pinned(**{CONDITION: given}) if given else free
        super().__init__(template, parts, config, geometry, origin)
        self.condition = condition
        size, width = free.size, 3 * template.n_vertices
        rank = config.rank + parts.size + 1
        self.mean = nn.Buffer(torch.zeros(width))
        self.components = nn.Buffer(torch.zeros(rank, width))
        self.scales = nn.Buffer(torch.ones(rank))
        self.correction_unit = nn.Buffer(torch.ones(()))
        self.center = nn.Buffer(torch.zeros(rank))
        self.directions = nn.Buffer(torch.zeros(parts.size, rank))
        self.inverse = nn.Buffer(torch.zeros(rank, size))

        hidden = [config.width] * config.depth
        self.identity_encoder = Correction(rank + given, config.identity, hidden)
        self.expression_encoder = Correction(rank + given, config.expression, hidden)
        self.log_variance = Correction(rank + given, size, hidden[:1])
        self.identity_decoder = Correction(config.identity, rank, hidden)
        self.expression_decoder = Correction(parts.size, rank, hidden)
        for gate in GATES:
            self.register_buffer(gate, torch.ones(()))
        if config.scans:
            self.cloud = BasisPoints(template.n_vertices, rank, [SCAN_WIDTH] * 2)

        # Only training needs these.
        nothing = torch.zeros(2, 0, template.n_vertices, 3)
        for name, values in (
            ("pairs", torch.zeros(0, 4, rank)),
            ("pair_conditions", torch.zeros(0, 2, given)),
            ("others", nothing),
            ("known", torch.zeros(0, rank)),
            ("known_conditions", torch.zeros(0, given)),
        ):
            self.register_buffer(name, values, persistent=False)
        self.method: Method = "offsets"

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]], meshes: int) -> Any:
        if config.conditional:
            config = replace(config, expressions=tuple(classes.get("expression", ())))
        return carried_by_people(config, classes, meshes)

    @property
    def labels_used(self) -> tuple[str, ...]:
        return ("neutral", "expression", "level") if self.condition else ("neutral",)

    # Training: what it starts from

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        config = self.config
        neutral = labels.get("neutral", np.full(len(shapes), -1))
        conditions = self._conditions_of(labels, len(shapes))
        people, offsets = people_and_offsets(shapes, neutral, "two-space")
        known = conditions.numpy(force=True)
        explained = effects(offsets, known)
        identity = principal_basis(shapes[people], config.identity)
        expression = principal_basis(Unexplained(offsets, known, explained), config.expression)
        start = CoefficientStart.of(shapes, identity, expression, config.rank, explained)

        # If the meshes carry fewer dimensions, the last components stay zero.
        existing = slice(len(start.components))
        self.mean.copy_(torch.tensor(start.mean))
        self.components[existing] = torch.tensor(start.components).to(self.mean)
        least = 1e-3 * start.deviations[0]
        self.scales[existing] = torch.tensor(start.deviations.clip(least)).to(self.mean)
        self.correction_unit.fill_(float(start.deviations[:CORRECTED].mean()))
        self.center[existing] = torch.tensor(start.center).to(self.mean)
        self.directions[:, existing] = torch.tensor(start.directions).to(self.mean)
        self.inverse[existing] = torch.tensor(start.inverse).to(self.mean)
        coefficients = self._coefficients_of(blocks(shapes))
        conditions = conditions.to(coefficients)
        some = torch.from_numpy(evenly_spread(len(shapes), ALIGNED)).to(coefficients.device)
        self.known, self.known_conditions = coefficients[some], conditions[some]
        if config.scans:
            self._start_reading_scans()
        rows = torch.from_numpy(neutral).to(coefficients.device)
        self._start_at_regression(coefficients, rows, conditions)
        self._prepare_pairs(shapes, neutral, coefficients, conditions)

    def _conditions_of(self, labels: Mapping[str, Any], count: int) -> Tensor:
        """(N, n) conditions of N = `count` meshes by their labels; n = 0 without conditions."""
        if self.condition is None:
            return torch.zeros(count, 0, device=self.device)
        return self.condition.of({k: torch.as_tensor(v) for k, v in labels.items()}, count)

    @torch.no_grad()
    def _start_at_regression(
        self, coefficients: Tensor, neutral: Tensor, conditions: Tensor
    ) -> None:
        """Start the encoders at a linear regression of the codes of neutral meshes and of offsets,
        and the decoder of expressions at the principal components of offsets about their mean.

        The MLPs are still zero, and with closed gates the model is the linear one. Its encoder is
        that of least error, which takes large movements for another person; and its expressions are
        components about zero, the first of which is often little more than their mean.

        coefficients: (N, R) mm. neutral: (N,) the row of each mesh's neutral mesh, -1 = none.
        conditions: (N, n).
        """
        known = torch.nonzero(neutral >= 0)[:, 0]
        conditions = conditions[known].double()
        identity, expression, conditioned = self.directions.double().tensor_split(
            [self.config.identity, self.parts.free_size]
        )
        neutrals = coefficients[neutral[known]].double()
        meshes = coefficients[known].double() - conditions @ conditioned
        moves = moving_axes((meshes - neutrals)[neutral[known] != known], len(expression))
        spaces = ((neutrals - self.center, identity), (meshes - neutrals, moves))
        wanted = torch.cat([what @ torch.linalg.pinv(space) for what, space in spaces], 1)
        linear = (meshes - self.center) @ self.inverse.double()
        weight, bias = ridge(torch.cat([meshes / self.scales, conditions], 1), wanted - linear)
        for encoder, part in (
            (self.identity_encoder, self.parts["identity"]),
            (self.expression_encoder, self.parts["expression"]),
        ):
            encoder.linear.weight.copy_(weight[:, part].T)
            encoder.linear.bias.copy_(bias[part])
        added = (moves - expression) / self.correction_unit
        where = self.parts["expression"]
        self.expression_decoder.linear.weight[:, where] = added.T.to(self.mean)

    def _start_reading_scans(self) -> None:
        existing = self.components.square().sum(1) > 0
        self.cloud.initialize(self.mean.unflatten(0, (-1, 3)), self.scales * existing)
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
        parts = self.known.split(SCANS)
        scans = [self._simulated(part, generator) for part in parts]
        self.cloud.start_at_regression(
            torch.cat([self.cloud.vectors(scan) for scan in scans]), self.known
        )

    def _simulated(self, coefficients: Tensor, generator: torch.Generator) -> Tensor:
        """(B, R) mm -> (B, P, 3) mm, scans of the meshes."""
        points, kept = scan_like(self._shape_of(coefficients), generator)
        return points[:, kept[:MAX_POINTS]]

    def _prepare_pairs(
        self, shapes: Shapes, neutral: np.ndarray, coefficients: Tensor, conditions: Tensor
    ) -> None:
        """Make what training needs besides the meshes: the coefficients (P, 4, R) mm of transported
        pairs, each the person's mesh, the mesh whose expression is carried over, the transported
        mesh and the person's neutral mesh; the conditions (P, 2, n) of the first two; and some
        meshes with their neutral meshes.

        coefficients: (N, R) mm of the meshes. conditions: (N, n).
        """
        config = self.config
        random = np.random.default_rng(int(torch.randint(2**31, (1,))))
        transport = self._transport()
        if config.pairs == "gradients" or config.pairs == "offsets":
            self.method = config.pairs
        else:
            self.method = better_method(shapes, neutral, transport, random)
        known = np.flatnonzero(neutral >= 0)
        some = np.sort(random.permutation(known)[:OTHERS])
        beside = np.stack([shapes[some], shapes[neutral[some]]])
        self.others = torch.from_numpy(beside).to(self.mean)

        drawn = Pairs.draw(neutral, 0 if config.pairs == "none" else config.pair_count, random)
        if not len(drawn):
            return
        first, second, *neutrals = (
            torch.from_numpy(rows).to(coefficients.device)
            for rows in (drawn.person, drawn.source, drawn.person_neutral, drawn.source_neutral)
        )
        own, source, of_own, of_source = (coefficients[rows] for rows in (first, second, *neutrals))
        if self.method == "offsets":
            made = of_own + source - of_source  # coefficients are linear
        else:
            made = self._coefficients_of(drawn.meshes(shapes, transport))
        self.pairs = torch.stack([own, source, made, of_own], 1)
        self.pair_conditions = torch.stack([conditions[first], conditions[second]], 1)

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
        """(B, V, 3) mm -> (B, L). If no condition is given, it is the one of least error at some
        vertices.
        """
        self.check_vertices(vertices)
        return self._code_of_mesh(self.coefficients(vertices), given)

    def _code_of_mesh(self, coefficients: Tensor, given: Given | None) -> Tensor:
        """(B, R) mm -> (B, L)"""
        known = self._with_condition_of_least_error(coefficients, given)
        return self._whole_code(coefficients, known)

    def _with_condition_of_least_error(self, coefficients: Tensor, given: Given | None) -> Given:
        if self.condition is None:
            return given or {}
        count = self.template.n_vertices
        some = torch.from_numpy(evenly_spread(count, SEARCH_VERTICES)).to(coefficients.device)
        seen = self.components.unflatten(1, (-1, 3))[:, some].flatten(1)

        def error_of(code: Tensor) -> Tensor:
            rest = (self._moved(code) - coefficients) @ seen
            return rest.unflatten(1, (-1, 3)).norm(dim=-1).mean(1)

        code_of = partial(self._whole_code, coefficients)
        return self.with_condition(coefficients, given, code_of, error_of)

    def _whole_code(self, coefficients: Tensor, given: Given) -> Tensor:
        """(B, R) mm -> (B, L) with the pinned values in `given`."""
        return self.assemble(self.code_of(coefficients, self._pinned(coefficients, given)), given)

    def _pinned(self, like: Tensor, given: Given | None) -> Tensor:
        """(B, n) the values of pinned parts; those that are not given are zero."""
        # Not `len`, which would fix the size of the batch in an exported program.
        free = like.new_zeros(like.shape[0], self.parts.free_size)
        return self.assemble(free, given)[:, self.parts.free_size :]

    @property
    def encodes_points(self) -> bool:
        return self.config.scans

    def encode_points(self, points: Tensor, given: Given | None = None) -> Tensor:
        if not self.encodes_points:
            raise InputError(
                f"{self.name}: encodes registered meshes only; train one with model.scans=true to "
                "encode points in any order"
            )
        return self._code_of_mesh(self.cloud(points), given)

    def code_of(self, coefficients: Tensor, conditions: Tensor) -> Tensor:
        """(B, R) mm and (B, n) conditions -> (B, L_free)"""
        rest = coefficients - conditions @ self.directions[self.parts.free_size :]
        read = self._read(rest, conditions)
        identity = self.identity_encoder_gate * self.identity_encoder(read)
        expression = self.expression_gate * self.expression_encoder(read)
        linear = (rest - self.center) @ self.inverse
        return linear + torch.cat([identity, expression], 1)

    def _read(self, coefficients: Tensor, conditions: Tensor) -> Tensor:
        """What the encoders' networks read."""
        return torch.cat([coefficients / self.scales, conditions], 1)

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return self._shape_of(self._moved(code))

    def _shape_of(self, coefficients: Tensor) -> Tensor:
        """(B, R) mm -> (B, V, 3) mm"""
        return (self.mean + coefficients @ self.components).unflatten(1, (-1, 3))

    def _moved(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, R) mm, the coefficients of the whole mesh."""
        identity, expression = self._split(code)
        return self.person(identity) + self.offset(identity, expression)

    @torch.no_grad()
    def dense_decoder(self) -> DenseDecoder:
        size, whole = self.config.identity, self.parts.size
        of_person, of_offset = self.identity_decoder, self.expression_decoder
        person = self.identity_decoder_gate * self.correction_unit
        offset = self.expression_gate * self.correction_unit
        skip = self.directions.T.clone()
        skip[:, :size] += person * of_person.linear.weight
        skip[:, size:] += offset * of_offset.linear.weight[:, size:]
        # The last one computes f(identity, 0), which is subtracted.
        layers = side_by_side(
            [
                (of_person.network, person, size),
                (of_offset.network, offset, whole),
                (of_offset.network, -offset, size),
            ]
        )
        mean = self.mean + (self.center + person * of_person.linear.bias) @ self.components
        return DenseDecoder(
            mean.unflatten(0, (-1, 3)), self.components.unflatten(1, (-1, 3)), skip, layers
        )

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
        return linear + self.expression_gate * self.correction_unit * added

    # The objective

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        assert batch.neutral is not None
        config, generator = self.config, progress.generator
        meshes, people = self.coefficients(batch.vertices), self.coefficients(batch.neutral)
        conditions = self._conditions_of(batch.labels, len(meshes)).to(meshes)
        of_pairs, pairs = self.pair_conditions, self.pairs
        if len(pairs):
            drawn = torch.randint(len(pairs), (len(meshes),), generator=generator)
            drawn = drawn.to(pairs.device)
            of_pairs, pairs = of_pairs[drawn], pairs[drawn]
            meshes = torch.cat([meshes, pairs[:, 2]])
            people = torch.cat([people, pairs[:, 3]])
            conditions = torch.cat([conditions, of_pairs[:, 1]])
        some = some_vertices(self.template.n_vertices, generator, self.components.device)
        seen = self.components.unflatten(1, (-1, 3))[:, some].flatten(1)

        def error(difference: Tensor) -> Tensor:
            return (difference @ seen).unflatten(1, (-1, 3)).norm(dim=-1).mean()

        left = noise_left(progress)

        def drawn_code(posterior: Posterior, conditions: Tensor) -> tuple[Tensor, Tensor]:
            return self._split(torch.cat([posterior.draw(generator, left), conditions], 1))

        posterior = self.posterior(meshes, conditions)
        identity, expression = drawn_code(posterior, conditions)
        terms = {
            "neutral": error(self.person(identity) - people),
            "offset": error(self.offset(identity.detach(), expression) - (meshes - people)),
        }
        if len(pairs) and config.swap_weight:
            (of_person, _), (_, of_other) = (
                drawn_code(self.posterior(pairs[:, n], of_pairs[:, n]), of_pairs[:, n])
                for n in (0, 1)
            )
            swapped = self.offset(of_person.detach(), of_other) - (pairs[:, 2] - pairs[:, 3])
            terms["swap"] = config.swap_weight * error(swapped)
        mean, log_variance = posterior
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        kl = [part.sum(1).mean() for part in self._split(divergence)]
        terms["kl"] = left * (config.identity_kl * kl[0] + config.expression_kl * kl[1])
        if config.information_weight:
            of_identity = posterior.part(self.parts["identity"])
            information = mutual_information(of_identity.draw(generator), of_identity)
            terms["information"] = left * config.information_weight * information
        if config.scans:
            # Meshes of the batch and transported ones. Their codes are not trained by it.
            wanted = meshes[torch.from_numpy(evenly_spread(len(meshes), SCANS)).to(meshes.device)]
            terms["scan"] = error(self.cloud(self._simulated(wanted, generator)) - wanted)
        return terms

    @torch.no_grad()
    def align(self) -> None:
        """Describe the trained codes along the axes of the linear model, so that codes, and shapes
        of the same code, can be blended: half-open gates mean something. With open gates, meshes do
        not change.
        """
        for gate in GATES:
            self.get_buffer(gate).fill_(1)
        size, free = self.config.identity, self.parts.free_size
        nothing = self.known_conditions
        codes = torch.cat([self.code_of(self.known, nothing), nothing], 1)
        identity, expression = self._split(codes)
        still = expression.clone()
        still[:, : self.config.expression] = 0
        moved = self.offset(identity, expression) - self.offset(identity, still)
        change_of_person = alignment(
            centered(identity), centered(self.person(identity)), self.directions[:size]
        )
        change_of_expression = alignment(
            expression[:, : self.config.expression], moved, self.directions[size:free]
        )
        given = nothing.shape[1]
        center = nn.functional.pad(self.center / self.scales, (0, given))
        for encoder, change, part in (
            (self.identity_encoder, change_of_person, self.parts["identity"]),
            (self.expression_encoder, change_of_expression, self.parts["expression"]),
        ):
            linear = self.inverse[:, part] * self.scales[:, None]
            added = nn.functional.pad(linear @ change - linear, (0, 0, 0, given))
            encoder.change_outputs(change, added, center)
        both = torch.block_diag(change_of_person, change_of_expression)
        skip = self.directions / self.correction_unit
        self.identity_decoder.change_inputs(change_of_person, skip[:size])
        skip[:size] = 0  # the identity only shapes what an expression does
        same = torch.eye(given).to(both)
        self.expression_decoder.change_inputs(torch.block_diag(both, same), skip)

    def finish(self, validation: Batch) -> None:
        """Choose the gates by `relative_score` on the validation meshes. Those of the identity stay
        closed if the validation people are others than the training people and too few to say
        anything of further ones.
        """
        transport = self._transport()
        judge = Apart(
            validation,
            Batch(self.others[0], self.others[1]),
            partial(transport.apply, method=self.method),
        )
        meshes, sources = self.coefficients(judge.meshes), self.coefficients(judge.sources)
        mean = self.mean.unflatten(0, (-1, 3))[judge.seen]
        seen = self.components.unflatten(1, (-1, 3))[:, judge.seen].flatten(1)

        def decode(code: Tensor) -> Tensor:
            return mean + (self._moved(code) @ seen).unflatten(1, (-1, 3))

        self.align()
        # Labels of validation meshes number the names anew, so their conditions are searched.
        known = [self._with_condition_of_least_error(x, None) for x in (meshes, sources)]

        def measures() -> dict[str, float]:
            codes = [self._whole_code(x, k) for x, k in zip((meshes, sources), known, strict=True)]
            return judge.measures(self.parts, codes[0], codes[1], decode)

        gates = {gate: self.get_buffer(gate) for gate in GATES}
        for gate in gates.values():
            gate.zero_()
        if not judge.people or 0 < judge.strangers < MIN_PEOPLE:
            gates = {name: gate for name, gate in gates.items() if "identity" not in name}
        linear = measures()
        choose_gates(list(gates.values()), lambda: relative_score(measures(), linear))

    def for_inference(self) -> Self:
        for name in ("pairs", "pair_conditions", "known", "known_conditions"):
            setattr(self, name, self.get_buffer(name)[:0])
        self.others = self.others[:, :0]
        return self

    def _split(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """The identity, and all that follows it."""
        size = self.config.identity
        return code[:, :size], code[:, size:]

    def posterior(self, coefficients: Tensor, conditions: Tensor) -> Posterior:
        """The distribution of the codes of coefficients (B, R) mm with conditions (B, n), for
        training.
        """
        start = 2 * math.log(self.config.initial_deviation)
        spread = self.log_variance(self._read(coefficients, conditions))
        log_variance = (start + spread).clamp(*LOG_VARIANCE)
        return Posterior(self.code_of(coefficients, conditions), log_variance)
