"""Small families for the tests of training: an adversarial one, and one with two stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count
from morphable.mesh.template import Template
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    AdversarialModel,
    Given,
    Labels,
    Origin,
    Shapes,
    TrainableModel,
)
from morphable.models.families import Family
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.normalization import Normalization
from morphable.models.parts import Parts
from morphable.models.recipes import Recipe
from morphable.models.training import Batch, Progress, TrainConfig


@dataclass(frozen=True)
class ToyConfig(Configuration):
    latent: Count = 3
    width: Count = 8
    critic_steps: Count = 3


class ToyGan(AdversarialModel):
    """A generator of two linear layers on flat vertices, and a critic that tells its shapes from
    real ones by their mean scores, as a Wasserstein GAN's does.
    """

    def __init__(
        self,
        template: Template,
        config: ToyConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, Parts.of(shape=config.latent), config, geometry, origin)
        size = 3 * template.n_vertices
        self.normalization = Normalization(template.n_vertices, per_vertex=False)
        self.generator = nn.Sequential(
            nn.Linear(config.latent, config.width), nn.Tanh(), nn.Linear(config.width, size)
        )
        self.critic = nn.Sequential(
            nn.Linear(size, config.width), nn.LeakyReLU(0.2), nn.Linear(config.width, 1)
        )

    @property
    def critic_steps(self) -> int:
        return int(self.config.critic_steps)

    def critic_parameters(self) -> Iterable[nn.Parameter]:
        return self.critic.parameters()

    def generator_parameters(self) -> Iterable[nn.Parameter]:
        return self.generator.parameters()

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        self.normalization.initialize(shapes)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        raise AssertionError("training must not encode: a GAN's encode is a long search")

    def decode(self, code: Tensor) -> Tensor:
        shapes: Tensor = self.normalization.inverse(self.generator(code).unflatten(1, (-1, 3)))
        return shapes

    def critic_loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        real = self.normalization(batch.vertices).flatten(1)
        with torch.no_grad():
            fake = self._fake(len(real), progress.generator).to(real)
        scores = self.critic(torch.cat([real, fake]))
        return {
            "score": scores[len(real) :].mean() - scores[: len(real)].mean(),
            "size": 0.1 * scores.square().mean(),
        }

    def generator_loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        fake = self._fake(len(batch.vertices), progress.generator)
        return {"score": -self.critic(fake).mean()}

    def _fake(self, count: int, generator: torch.Generator) -> Tensor:
        shapes: Tensor = self.generator(self.prior.sample(count, generator))
        return shapes


class ToyStages(TrainableModel):
    """A linear autoencoder that is trained in two stages; the second wants half of each shape."""

    stages: ClassVar[tuple[str, ...]] = ("whole", "half")

    def __init__(
        self,
        template: Template,
        config: ToyConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, Parts.of(shape=config.latent), config, geometry, origin)
        self.normalization = Normalization(template.n_vertices, per_vertex=False)
        self.encoder = nn.Linear(3 * template.n_vertices, config.latent)
        self.decoder = nn.Linear(config.latent, 3 * template.n_vertices)

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        self.normalization.initialize(shapes)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        code: Tensor = self.encoder(self.normalization(vertices).flatten(1))
        return code

    def decode(self, code: Tensor) -> Tensor:
        shapes: Tensor = self.normalization.inverse(self.decoder(code).unflatten(1, (-1, 3)))
        return shapes

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        share = 0.5 if progress.stage == "half" else 1.0
        noise = torch.rand(len(batch.vertices), 1, 1, generator=progress.generator)
        return {"l1": (self(batch.vertices) - (share + 0.01 * noise) * batch.vertices).abs().mean()}


def toy(model: Any, **train: Any) -> Family:
    """A row of MODELS for a toy."""
    recipe = Recipe(ToyConfig(), TrainConfig(epochs=3, batch_size=8, learning_rate=1e-2, **train))
    return Family.of("a toy", "ours", model, recipe)


TOYS = {
    "toy-gan": toy(ToyGan, betas=(0.5, 0.9), schedule="constant"),
    "toy-stages": toy(ToyStages),
}
