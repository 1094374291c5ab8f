"""Information-bottlenecked VAE: one point-cloud encoder, two decoders, and little room for
expression in identity.

Sun, Pears and Gu, "Information bottlenecked variational autoencoder for disentangled 3D facial
expression modelling", WACV 2022. The identity decoder makes the neutral face from the identity code
alone; the full decoder makes the input from both codes, but its gradient does not reach the
identity code; and the mutual information between the input and the identity code is held down. The
conditional form is given the expression's name and level.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Count, Positive, Share
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, Given, Origin, Shapes, TrainableModel
from morphable.models.geometry import Arrays, Geometry
from morphable.models.normalization import Normalization
from morphable.models.parts import IdentityExpression
from morphable.models.posterior import Posterior, mutual_information
from morphable.models.principal_basis import principal_basis
from morphable.models.training import Batch, Progress
from morphable.ops.point_sampling import Sampling, sample_points, shared_sampling
from morphable.ops.pointcloud import MIN_POINTS, PointTransformer

HEAD = (256, 64)
FINAL_REGULARIZATION = 1 / 7
"""Share of the KL and information weights that is left in the last epoch: (350 - 300) / 350, as
published.
"""
SCAN_NOISE_MM = 1.0
START_MESHES = 1000
"""Evenly spread training meshes whose components the decoders may start at."""


@dataclass(frozen=True, eq=False)
class PointGeometry(Geometry):
    """The template's own sampling, which serves all clouds that are registered to it."""

    sampling: Sampling

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        points = torch.from_numpy(template.mesh.vertices.astype(np.float64))
        sizes = (config.samples[0], config.samples[1])
        return cls(shared_sampling(points, sizes, config.neighbors))

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {
            name: index.numpy().astype(np.int32)
            for name, index in self.sampling.to_arrays().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        indices = {name: torch.from_numpy(index.astype(np.int64)) for name, index in arrays.items()}
        return cls(Sampling.from_arrays(indices))


@dataclass(frozen=True)
class IbVaeConfig(IdentityExpression):
    """The defaults are the paper's for COMA. Its "no bottleneck" is identity_weight = 1 and
    information_weight = 0.

    hidden: units of each decoder. samples, neighbors: of the two stages of the point cloud
    transformer. Objective, errors in mm^2 per coordinate: reconstruction_weight (full +
    identity_weight neutral) + regularization_weight (kl_weight KL + information_weight
    information). kl_mean: average the KL over the dimensions of each code instead of summing.
    information_above: only meshes whose level is above this count in the information. scan_share:
    share of each batch that is encoded from a random subset of points with 1 mm of noise, so that
    scans without topology can be encoded. initial_deviation: of a fresh encoder's posteriors; at 1
    the first codes are noise. start: of both decoders, `random` or linear along principal
    components, a pair of hidden units for each. identity_gradient: share of the identity's gradient
    that reaches the shared encoder. At 1 it makes the encoder blind to expression long before the
    full decoder can ask for it; all else is the same.
    """

    hidden: Count = 256
    samples: tuple[int, ...] = (512, 256)
    neighbors: Count = 32
    reconstruction_weight: float = 6.6e-2
    regularization_weight: float = 3e-3
    identity_weight: float = 10.0
    information_weight: float = 50.0
    kl_weight: float = 1.0
    kl_mean: bool = False
    information_above: float | None = None
    scan_share: Share = 0.0
    initial_deviation: Positive = 1.0
    start: Literal["random", "pca"] = "random"
    identity_gradient: Share = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start == "pca" and self.hidden < 2:
            raise self.error(
                "hidden", f"expected at least 2 for model.start=pca, got {self.hidden}"
            )
        if len(self.samples) != 2 or min(self.samples) < 1:
            raise self.error("samples", f"expected two counts of at least 1, got {self.samples}")


class IbVae(TrainableModel):
    """(B, V, 3) mm, or points in any order -> identity and expression codes -> neutral and full
    shape in mm.
    """

    geometry_type = PointGeometry
    labels_used: ClassVar[tuple[str, ...]] = ("level",)
    needs_neutral = True
    axis_aligned_code = True

    def __init__(
        self,
        template: Template,
        config: IbVaeConfig,
        geometry: PointGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        free = config.parts()
        pinned = self.pinned_sizes(config)
        super().__init__(template, free.with_pinned(**pinned), config, geometry, origin)
        given, outputs = sum(pinned.values()), 3 * template.n_vertices
        self.normalization = Normalization(template.n_vertices, per_vertex=False)
        self.center = nn.Buffer(torch.zeros(3))
        self.radius = nn.Buffer(torch.ones(()))
        indices = geometry.sampling.to_arrays()
        for name, index in indices.items():
            self.register_buffer(_buffer(name), index, persistent=False)
        self.sampled = list(indices)
        sizes = (config.samples[0], config.samples[1])
        self.trunk = PointTransformer(sizes, config.neighbors)
        widths = (self.trunk.features, *HEAD)
        layers = [
            (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(widths)
        ]
        self.head = nn.Sequential(*(piece for layer in layers for piece in layer))
        self.to_code = nn.Linear(HEAD[-1] + given, 2 * free.size)
        with torch.no_grad():
            for log_variance in (
                slice(config.identity, 2 * config.identity),
                slice(-config.expression, None),
            ):
                self.to_code.bias[log_variance] += 2 * math.log(config.initial_deviation)
        self.identity_decoder = _decoder(config.identity, config.hidden, outputs)
        self.full_decoder = _decoder(self.parts.size, config.hidden, outputs)

    @classmethod
    def pinned_sizes(cls, config: Any) -> dict[str, int]:
        return {}

    def initialize(self, shapes: Shapes) -> None:
        self.normalization.initialize(shapes)
        mean = self.normalization.mean
        self.center.copy_(mean.mean(0))
        self.radius.copy_((mean - self.center).norm(dim=-1).max())
        if self.config.start == "pca":
            self._start_at_components(shapes)

    @torch.no_grad()
    def _start_at_components(self, shapes: Shapes) -> None:
        """Hidden units in pairs with opposite inputs, that move the shape by a component to its two
        sides.

        So the decoders start linear, each number of a code along a mixture of components. With one
        unit a component, rectified and thus one-sided, some runs never found an expression.
        """
        few = shapes[:: -(-len(shapes) // START_MESHES)]
        pairs = self.config.hidden // 2
        basis = principal_basis(few, pairs)
        moves = torch.from_numpy(basis.components * basis.deviations[:, None]).to(
            self.normalization.std
        )
        for decoder in (self.identity_decoder, self.full_decoder):
            first, last = decoder[0], decoder[-1]
            assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
            first.weight[pairs : 2 * pairs] = -first.weight[:pairs]
            first.bias.zero_()
            last.weight.zero_()
            last.weight[:, : 2 * pairs] = torch.cat([moves, -moves]).T / self.normalization.std
            last.bias.zero_()

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return self.code_of(self.features(vertices, registered=True), given)

    def encode_points(self, points: Tensor, given: Given | None = None) -> Tensor:
        """As every model's, for clouds of at least 64 points. Raises InputError for fewer."""
        return self.code_of(self.features(points, registered=False), given)

    def code_of(self, features: Tensor, given: Given | None) -> Tensor:
        """(B, 64) features of the head -> (B, L), the posterior mean beside what is given."""
        empty = self.assemble(features.new_zeros(len(features), self.parts.free_size), given)
        return self.assemble(self.posterior(features, self.conditions(empty)).mean, given)

    def features(self, points: Tensor, registered: bool) -> Tensor:
        """(B, P, 3) mm -> (B, 64), by the template's own sampling where the points are registered
        to it.
        """
        out: Tensor = self.head(
            self.trunk(self._local(points), self._sampling() if registered else None)
        )
        return out

    def posterior(self, features: Tensor, conditions: Tensor) -> Posterior:
        """(B, 64) features, (B, L_pinned) pinned values -> the distribution of the free parts."""
        sizes = [2 * self.config.identity, 2 * self.config.expression]
        share = self.config.identity_gradient
        still = features.detach()
        heard = still + share * (features - still)
        rows = zip(
            self.to_code.weight.split(sizes),
            self.to_code.bias.split(sizes),
            (heard, features),
            strict=True,
        )
        moments = [
            nn.functional.linear(torch.cat([x, conditions], -1), weight, bias).chunk(2, -1)
            for weight, bias, x in rows
        ]
        return Posterior(*(torch.cat(parts, -1) for parts in zip(*moments, strict=True)))

    def conditions(self, code: Tensor) -> Tensor:
        """The pinned numbers of a code (B, L)."""
        return code[:, self.parts.free_size :]

    def decode(self, code: Tensor) -> Tensor:
        return self._shape(self.full_decoder(code))

    def neutral(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm by the identity decoder."""
        return self._shape(self.identity_decoder(code[:, self.parts["identity"]]))

    def _shape(self, offsets: Tensor) -> Tensor:
        shape: Tensor = self.normalization.inverse(offsets.unflatten(1, (-1, 3)))
        return shape

    def given_by(self, batch: Batch) -> Given:
        """The pinned values that a batch's labels give."""
        return {}

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        assert batch.neutral is not None
        config = self.config
        features = self._training_features(batch.vertices, progress)
        given = self.given_by(batch)
        conditions = self.conditions(
            self.assemble(features.new_zeros(len(features), self.parts.free_size), given)
        )
        posterior = self.posterior(features, conditions)
        code = self.assemble(posterior.draw(progress.generator), given)
        neutral = self.neutral(code)
        full = self.decode(self.without_identity_gradient(code))
        identity = posterior.part(self.parts["identity"])
        drawn, counted = code[:, self.parts["identity"]], self._counted(batch)
        weight = config.regularization_weight * regularization_left(progress)
        return {
            "reconstruction": config.reconstruction_weight
            * (full - batch.vertices).square().mean(),
            "identity": config.reconstruction_weight
            * config.identity_weight
            * (neutral - batch.neutral).square().mean(),
            "kl": weight * config.kl_weight * self._kl(posterior),
            "information": weight
            * config.information_weight
            * mutual_information(drawn, identity, counted),
        }

    def without_identity_gradient(self, code: Tensor) -> Tensor:
        """The code as the full decoder sees it in training: what it wants of the identity code goes
        unheard.
        """
        where = self.parts["identity"]
        return torch.cat(
            [code[:, : where.start], code[:, where].detach(), code[:, where.stop :]], -1
        )

    def _training_features(self, vertices: Tensor, progress: Progress) -> Tensor:
        """Features of a batch of which some meshes, the first `scan_share` of them, are seen as a
        scan would see them.

        Scans are mixed with meshes in every batch, never a batch of their own, so that one set of
        batch statistics serves both. A single mesh has no statistics after the pooling over its
        points.
        """
        self.head.train(self.training and len(vertices) > 1)
        scans = round(self.config.scan_share * len(vertices))
        if not scans:
            return self.features(vertices, registered=True)
        points, kept = scan_like(vertices[:scans], progress.generator)
        local = self._local(torch.cat([points, vertices[scans:]]))
        own = sample_points(local[:scans, kept], self.trunk.sizes, self.trunk.neighbors).of(kept)
        sampling = own.beside(self._sampling().unpacked(), len(vertices) - scans)
        out: Tensor = self.head(self.trunk(local, sampling))
        return out

    def _local(self, points: Tensor) -> Tensor:
        return (points - self.center) / self.radius

    def _sampling(self) -> Sampling:
        """The template's own."""
        return Sampling.from_arrays({name: self.get_buffer(_buffer(name)) for name in self.sampled})

    def _counted(self, batch: Batch) -> Tensor | None:
        if self.config.information_above is None or "level" not in batch.labels:
            return None
        return (batch.labels["level"] > self.config.information_above).to(batch.vertices)

    def _kl(self, posterior: Posterior) -> Tensor:
        """Mean over the batch of the divergence from N(0, I), summed over the code."""
        mean, log_variance = posterior
        each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        if self.config.kl_mean:
            each = each / torch.cat(
                [each.new_full((n,), n) for n in (self.config.identity, self.config.expression)]
            )
        return each.sum(-1).mean()


def regularization_left(progress: Progress) -> float:
    """Share of the KL and information weights in this epoch: falls in a line to a seventh in the
    last.
    """
    return 1 - (1 - FINAL_REGULARIZATION) * (progress.epoch + 1) / progress.epochs


def scan_like(vertices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vertices (B, V, 3) mm with noise, and which of them (K,) a scan would have: a random quarter
    or more.
    """
    count, where = vertices.shape[1], generator.device
    size = int(
        torch.randint(
            max(min(MIN_POINTS, count), count // 4),
            count + 1,
            (),
            generator=generator,
            device=where,
        )
    )
    kept = torch.randperm(count, generator=generator, device=where)[:size].to(vertices.device)
    noise = torch.randn(vertices.shape, generator=generator, device=where).to(vertices)
    return vertices + SCAN_NOISE_MM * noise, kept


def _decoder(fan_in: int, hidden: int, fan_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(fan_in, hidden), nn.ReLU(), nn.Linear(hidden, fan_out))


def _buffer(name: str) -> str:
    return "sampling_" + name.replace("/", "_")
