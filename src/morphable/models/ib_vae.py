"""Information-bottlenecked VAE: one point cloud encoder and two decoders, with little room for
expression in the identity code.

Sun, Pears and Gu, "Information bottlenecked variational autoencoder for disentangled 3D facial
expression modelling", WACV 2022.

- The identity decoder predicts the neutral face from the identity code alone.
- The full decoder predicts the input from both codes, but its gradient does not reach the identity
  code.
- A term of the loss keeps the mutual information between the input and the identity code small.
- In the conditional form (`cvae`), the name and level of the expression are an input. They enter
  the encoder before its last layer, and the full decoder together with both codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count, Positive, PositiveOrZero, Share
from morphable.errors import InputError
from morphable.mesh.distance import point_to_surface
from morphable.mesh.template import Template
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    Given,
    Labels,
    Origin,
    Shapes,
)
from morphable.models.component_encoder import ComponentEncoder, ComponentEncoderConfig
from morphable.models.condition import CONDITION, Condition
from morphable.models.conditional import ConditionalModel
from morphable.models.dense import DenseDecoder
from morphable.models.normalization import Normalization
from morphable.models.parts import IdentityExpression
from morphable.models.point_encoder import PointEncoder, PointEncoderConfig, PointGeometry
from morphable.models.posterior import Posterior, mutual_information
from morphable.models.training import Batch, Progress
from morphable.models.two_space_start import TwoSpaces, start_at_components
from morphable.ops.point_sampling import point_order
from morphable.rows import evenly_spread

SEARCH_POINTS = 500
"""Points of a cloud whose distances decide which condition is the closest."""
FINAL_REGULARIZATION = 1 / 7
"""Share of the KL and information weights in the last epoch: (350 - 300) / 350, as published."""


@dataclass(frozen=True)
class BottleneckObjective(Configuration):
    """loss = reconstruction_weight (full + identity_weight neutral)
    + regularization_weight (kl_weight KL + information_weight information),
    where `full` and `neutral` are squared errors in mm^2 per coordinate.

    The paper's "no bottleneck" is identity_weight = 1 and information_weight = 0. kl_mean: if True,
    average the KL over the dimensions of each code instead of summing it. information_above: if
    given, only meshes with a level above this count in the information. identity_gradient: share of
    the identity loss's gradient that reaches the shared encoder. At 1, the encoder learns to ignore
    expression long before the full decoder is trained well enough to need it.
    """

    reconstruction_weight: PositiveOrZero = 6.6e-2
    regularization_weight: PositiveOrZero = 3e-3
    identity_weight: PositiveOrZero = 10.0
    information_weight: PositiveOrZero = 50.0
    kl_weight: PositiveOrZero = 1.0
    kl_mean: bool = False
    information_above: float | None = None
    identity_gradient: Share = 1.0


@dataclass(frozen=True)
class IbVaeConfig(
    BottleneckObjective, ComponentEncoderConfig, PointEncoderConfig, IdentityExpression
):
    """The defaults are those of the paper for COMA.

    hidden: number of hidden units of each decoder. initial_deviation: standard deviation of the
    posteriors before training; at 1, the first codes are mostly noise. start: initial weights of
    both decoders, `random`, or linear along the principal components (`pca`). An encoder of
    components then starts linear too, and the whole model as `linear-two-space`, if at least two
    people have neutral meshes. expressions: class
    names of the conditional form, in the order of their numbers, read from the training data. None
    in the form without conditions.
    """

    hidden: Count = 256
    initial_deviation: Positive = 1.0
    start: Literal["random", "pca"] = "random"
    expressions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start == "pca" and self.hidden < 2:
            raise self.error(
                "hidden", f"expected at least 2 for model.start=pca, got {self.hidden}"
            )


class IbVae(ConditionalModel):
    """points -> posterior over (identity, expression); neutral shape = identity_decoder(identity),
    full shape = full_decoder(identity, expression[, condition]), in mm.

    loss = w_r (|full - x|^2 + w_i |neutral - x_neutral|^2) + w_b (KL + w_m MI(x, identity)), where
    MI is the mutual information, and the identity code is detached before the full decoder.

    condition: the encoding of conditions in the conditional form; None in the other form.
    """

    config: IbVaeConfig
    geometry_type = PointGeometry
    needs_neutral = True
    axis_aligned_code = True

    def __init__(
        self,
        template: Template,
        config: IbVaeConfig,
        geometry: PointGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        condition = None if config.expressions is None else Condition(config.expressions)
        given = 0 if condition is None else len(condition.names)
        free = config.parts()
        parts = free.with_pinned(**{CONDITION: given}) if given else free
        super().__init__(template, parts, config, geometry, origin)

        self.condition = condition
        self.normalization = Normalization(template.n_vertices, per_vertex=False)
        if config.encoder == "components":
            self.encoder: ComponentEncoder | PointEncoder = ComponentEncoder(
                config, template.n_vertices
            )
        else:
            self.encoder = PointEncoder(geometry, config, template.n_vertices)
        self.to_posterior = nn.Linear(self.encoder.features + given, 2 * free.size)
        # `to_posterior` gives the mean and log variance of identity, then those of expression.
        # Shift the biases of both log variances, so that the first posteriors have the initial
        # deviation.
        with torch.no_grad():
            for log_variance in (
                slice(config.identity, 2 * config.identity),
                slice(-config.expression, None),
            ):
                self.to_posterior.bias[log_variance] += 2 * math.log(config.initial_deviation)
        self._starts_linear = False
        outputs = 3 * template.n_vertices
        self.identity_decoder = _decoder(config.identity, config.hidden, outputs)
        self.full_decoder = _decoder(parts.size, config.hidden, outputs)

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]], meshes: int) -> Any:
        if config.expressions is None:
            return config
        return replace(config, expressions=tuple(classes.get("expression", ())))

    @property
    def encodes_points(self) -> bool:
        """True if the encoder has learned from points without the template's sampling."""
        return isinstance(self.encoder, PointEncoder) and self.config.learns_points

    @property
    def labels_used(self) -> tuple[str, ...]:
        # A start as two linear spaces finds neutral meshes among the shapes.
        return (
            "expression",
            "level",
            *(["neutral"] if self.config.encoder == "components" else []),
        )

    @property
    def starts_linear(self) -> bool:
        return self._starts_linear

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        self.normalization.initialize(shapes)
        if isinstance(self.encoder, ComponentEncoder):
            self.encoder.initialize(shapes)
        else:
            self.encoder.initialize(self.normalization.mean)
        if self.config.start != "pca":
            return
        decoders = (self.identity_decoder, self.full_decoder)
        spaces = None
        if isinstance(self.encoder, ComponentEncoder):
            spaces = TwoSpaces.of(shapes, labels, self.config.identity, self.config.expression)
            if spaces is not None:
                log_variance = 2 * math.log(self.config.initial_deviation)
                spaces.start_posterior(self.to_posterior, self.encoder.basis, log_variance)
                spaces.start(decoders, self.normalization)
                self._starts_linear = True
        if spaces is None:
            start_at_components(decoders, shapes, self.normalization)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """(B, V, 3) mm -> (B, L). The conditional form chooses, if no condition is given, the
        expression and level with the smallest error for each mesh.
        """
        self.check_vertices(vertices)
        features = self.encoder.of_meshes(vertices)

        def error_of(code: Tensor) -> Tensor:
            return (self.decode(code) - vertices).norm(dim=-1).mean(-1)

        known = self.with_condition(features, given, partial(self.code_of, features), error_of)
        return self.code_of(features, known)

    def encode_points(self, points: Tensor, given: Given | None = None) -> Tensor:
        """(B, P, 3) mm -> (B, L) for clouds of at least 64 points. The conditional form chooses, if
        no condition is given, the expression and level whose surface is closest to the points.

        Raises InputError if there are fewer points, or if training has only shown the encoder
        meshes with the template's sampling.
        """
        if not isinstance(self.encoder, PointEncoder):
            raise InputError(
                f"{self.name}: encodes registered meshes only, through their principal components "
                "(model.encoder=components); train one with model.encoder=points to encode "
                "points in any order"
            )
        if not self.encodes_points:
            raise InputError(
                f"{self.name}: has learned from registered meshes only (model.sampling=template, "
                "model.scan_share=0); train one with model.sampling=cloud or model.scan_share=0.25 "
                "to encode points in any order"
            )
        if points.ndim != 3 or points.shape[2] != 3:
            raise InputError(f"points: expected (B, P, 3), got {tuple(points.shape)}")
        features = self.encoder(points)
        code_of, error_of = partial(self.code_of, features), partial(self._distance_of, points)
        return self.code_of(features, self.with_condition(features, given, code_of, error_of))

    def _distance_of(self, points: Tensor, code: Tensor) -> Tensor:
        """(B,) mm mean distance of clouds (B, P, 3) to the surfaces of the shapes of codes (B, L)."""
        # A part of the cloud says which condition is closest. It must not depend on the order.
        rows = torch.from_numpy(evenly_spread(points.shape[1], SEARCH_POINTS)).to(points.device)
        order = point_order(points)[:, rows]
        triangles = self.template.mesh.triangles
        shapes = self.decode(code)
        means = [
            point_to_surface(
                cloud[some].numpy(force=True), shape.numpy(force=True), triangles
            ).mean()
            for cloud, some, shape in zip(points, order, shapes, strict=True)
        ]
        return torch.tensor(means).to(shapes)

    def code_of(self, features: Tensor, given: Given | None) -> Tensor:
        """(B, C) features -> (B, L) codes: the posterior's mean, and the pinned values in `given`."""
        conditions = self._conditions(features, given)
        return self.assemble(self.posterior(features, conditions).mean, given)

    def posterior(self, features: Tensor, conditions: Tensor) -> Posterior:
        """The distribution of the free parts, from features (B, C) and pinned values (B,
        L_pinned).
        """
        config = self.config
        share = config.identity_gradient
        detached = features.detach()
        # The values are those of `features`, but only a share of the gradient passes through.
        for_identity = detached + share * (features - detached)

        sizes = [2 * config.identity, 2 * config.expression]
        layers = zip(
            self.to_posterior.weight.split(sizes), self.to_posterior.bias.split(sizes), strict=True
        )
        # The last layer is applied in two pieces, because each reads its own copy of the features.
        moments = [
            nn.functional.linear(torch.cat([x, conditions], -1), weight, bias).chunk(2, -1)
            for x, (weight, bias) in zip((for_identity, features), layers, strict=True)
        ]
        means, log_variances = zip(*moments, strict=True)
        return Posterior(torch.cat(means, -1), torch.cat(log_variances, -1))

    def _conditions(self, features: Tensor, given: Given | None) -> Tensor:
        """(B, L_pinned) pinned values; those that are not given are zero."""
        # Not `len`, which would fix the size of the batch in an exported program.
        free = features.new_zeros(features.shape[0], self.parts.free_size)
        return self.assemble(free, given)[:, self.parts.free_size :]

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return self._shape(self.full_decoder(code))

    def dense_decoder(self) -> DenseDecoder:
        *hidden, last = self.full_decoder
        assert isinstance(last, nn.Linear)
        std = self.normalization.std
        return DenseDecoder(
            self._shape(last.bias),
            last.weight.T.unflatten(1, (-1, 3)) * std,
            None,
            nn.Sequential(*hidden),
        )

    def neutral(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm: the neutral shape that the identity decoder predicts."""
        self.check_code(code)
        return self._shape(self.identity_decoder(code[:, self.parts["identity"]]))

    def _shape(self, offsets: Tensor) -> Tensor:
        return self.normalization.inverse(offsets.unflatten(-1, (-1, 3)))

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        assert batch.neutral is not None
        config = self.config
        given = self.given_by_labels(batch.labels, len(batch.vertices))

        features = self.encoder.in_training(batch.vertices, progress.generator)
        posterior = self.posterior(features, self._conditions(features, given))
        code = self.assemble(posterior.draw(progress.generator), given)
        neutral = self.neutral(code)
        full = self.decode(self.without_identity_gradient(code))

        identity = posterior.part(self.parts["identity"])
        drawn = code[:, self.parts["identity"]]
        information = mutual_information(drawn, identity, self._counted(batch))

        reconstruction = config.reconstruction_weight
        weight = config.regularization_weight * regularization_left(progress)
        return {
            "reconstruction": reconstruction * (full - batch.vertices).square().mean(),
            "identity": reconstruction
            * config.identity_weight
            * (neutral - batch.neutral).square().mean(),
            "kl": weight * config.kl_weight * self._kl(posterior),
            "information": weight * config.information_weight * information,
        }

    def without_identity_gradient(self, code: Tensor) -> Tensor:
        """The code with its identity part detached, so the full decoder's loss does not train
        it.
        """
        where = self.parts["identity"]
        return torch.cat(
            [code[:, : where.start], code[:, where].detach(), code[:, where.stop :]], -1
        )

    def _counted(self, batch: Batch) -> Tensor | None:
        """(B,) 1 for meshes that count in the information, 0 for the others; None if all count."""
        if self.config.information_above is None or "level" not in batch.labels:
            return None
        return (batch.labels["level"] > self.config.information_above).to(batch.vertices)

    def _kl(self, posterior: Posterior) -> Tensor:
        """The KL divergence from N(0, I), summed over the code and averaged over the batch."""
        mean, log_variance = posterior
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        if self.config.kl_mean:
            sizes = (self.config.identity, self.config.expression)
            divergence = divergence / torch.cat([divergence.new_full((n,), n) for n in sizes])
        return divergence.sum(-1).mean()


def regularization_left(progress: Progress) -> float:
    """Share of the KL and information weights in this epoch. It falls linearly, to a seventh in the
    last epoch.
    """
    return 1 - (1 - FINAL_REGULARIZATION) * (progress.epoch + 1) / progress.epochs


def _decoder(fan_in: int, hidden: int, fan_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(fan_in, hidden), nn.ReLU(), nn.Linear(hidden, fan_out))
