"""06: a model family of your own, in one file.

A family is a configuration, a model class, and one row `Family` that holds its recipes. This one
moves a few anchor points, and smooth bumps carry the surface along. Every command takes it:

    morphable train bumps --data data/hands --out runs/bumps \
        --family-from examples/06_family_of_your_own.py:bumps

Run as a script, it trains the same family from Python. Needs data/hands of 01_dataset.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn

import morphable
from morphable import Batch, Family, Parts, Progress, Recipe, Template, TrainableModel, TrainConfig
from morphable.models.base import NO_LABELS, Given, Labels, Origin, Shapes
from morphable.models.geometry import Geometry
from morphable.models.normalization import moments


@dataclass(frozen=True)
class BumpsConfig:
    """anchors: K, how many points move. width: of a bump, in mm."""

    latent: int = 8
    anchors: int = 60
    width: float = 15.0


@dataclass(frozen=True)
class BumpsGeometry(Geometry):
    """What is computed once and saved with the model: the bumps' weights (V, K)."""

    weights: np.ndarray

    @classmethod
    def of(cls, template: Template, config: BumpsConfig) -> BumpsGeometry:
        vertices = np.asarray(template.mesh.vertices)
        anchors = vertices[np.linspace(0, len(vertices) - 1, config.anchors).astype(int)]
        weights = np.exp(-((cdist(vertices, anchors) / config.width) ** 2))
        return cls((weights / weights.sum(1, keepdims=True)).astype(np.float32))

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], template: Template) -> BumpsGeometry:
        return cls(arrays["weights"])


class Bumps(TrainableModel):
    """x = mean + W d(z): bumps W (V, K) spread the displacements d (K, 3) of the anchors."""

    geometry_type = BumpsGeometry

    def __init__(
        self, template: Template, config: BumpsConfig, geometry: BumpsGeometry, origin: Origin
    ) -> None:
        super().__init__(template, Parts.of(shape=config.latent), config, geometry, origin)
        self.mean = nn.Buffer(torch.zeros(template.n_vertices, 3))  # mm
        self.bumps = nn.Buffer(torch.from_numpy(geometry.weights), persistent=False)
        self.encoder = nn.Linear(3 * template.n_vertices, config.latent)
        layers = nn.Linear(config.latent, 64), nn.ELU(), nn.Linear(64, 3 * config.anchors)
        self.decoder = nn.Sequential(*layers)

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        self.mean.copy_(torch.tensor(moments(shapes)[0]))

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return self.encoder((vertices - self.mean).flatten(1) / 100)

    def decode(self, code: Tensor) -> Tensor:
        return self.mean + self.bumps @ self.decoder(code).unflatten(1, (-1, 3)) * 10

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {"vertex_error": (self(batch.vertices) - batch.vertices).norm(dim=-1).mean()}


recipe = Recipe(BumpsConfig(), TrainConfig(epochs=20, batch_size=16, learning_rate=3e-3))
bumps = Family.of("smooth bumps around a few anchors", "an example", Bumps, recipe)

if __name__ == "__main__":
    morphable.add_family("bumps", bumps)
    data = morphable.load_dataset("data/hands").split("subject")
    if not Path("runs/bumps").exists():
        morphable.train_model("bumps", data=data, folder="runs/bumps")
    measures = morphable.evaluate_model(morphable.load("runs/bumps"), data=data).measures
    for name, found in (("bumps", measures["model"]), *measures["baselines"].items()):
        print(f"{name}: {found['vertex_error_mm']['mean']:.2f} mm")
