"""PCA: the linear morphable model (Blanz and Vetter 1999), exact, with codes in standard
deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, EstimatedModel, Given, Origin, Shapes
from morphable.models.geometry import NO_GEOMETRY, Geometry, NoGeometry
from morphable.models.parts import Parts
from morphable.models.principal_basis import principal_basis


@dataclass(frozen=True)
class PcaConfig(Configuration):
    """latent: components that are kept."""

    latent: Count = 8


class LinearModel(EstimatedModel):
    """x = mean + sum_k z_k sigma_k u_k, and z_k = <u_k, x - mean> / sigma_k: a projection, in
    standard deviations.

    Buffers: mean (3V,) mm, components u (L, 3V) orthonormal, deviations sigma (L,) mm.
    """

    def __init__(
        self, template: Template, parts: Parts, config: Any, geometry: Geometry, origin: Origin
    ) -> None:
        super().__init__(template, parts, config, geometry, origin)
        width = 3 * template.n_vertices
        self.mean = nn.Buffer(torch.zeros(width))
        self.components = nn.Buffer(torch.zeros(parts.size, width))
        self.deviations = nn.Buffer(torch.ones(parts.size))

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        projection = (vertices.flatten(1) - self.mean) @ self.components.T
        # With fewer meshes than components the last ones do not exist: their coordinate is zero.
        return torch.where(self.deviations > 0, projection / self.deviations.clamp(min=1e-30), 0.0)

    def decode(self, code: Tensor) -> Tensor:
        return (self.mean + (code * self.deviations) @ self.components).unflatten(1, (-1, 3))


class Pca(LinearModel):
    """Components of the whole shape, those of largest variance; the prior is N(0, I)."""

    def __init__(
        self,
        template: Template,
        config: PcaConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, Parts.of(shape=config.latent), config, geometry, origin)

    @classmethod
    def estimate(
        cls,
        template: Template,
        vertices: Shapes,
        labels: Mapping[str, np.ndarray],
        config: PcaConfig,
    ) -> Self:
        model = cls(template, config)
        basis = principal_basis(vertices, config.latent)
        model.mean.copy_(torch.tensor(basis.mean))
        model.components.copy_(torch.tensor(basis.components))
        model.deviations.copy_(torch.tensor(basis.deviations))
        # An exact N(0, I) over the components that exist, rather than the moments of the codes.
        model.prior.factor.copy_(torch.diag((model.deviations > 0).float()))
        return model

    def truncate(self, latent: int) -> Pca:
        """The model of the first `latent` components alone."""
        model = Pca(self.template, PcaConfig(latent), origin=self.origin).to(self.device)
        model.mean.copy_(self.mean)
        model.components.copy_(self.components[:latent])
        model.deviations.copy_(self.deviations[:latent])
        model.prior.factor.copy_(self.prior.factor[:latent, :latent])
        return model.eval()
