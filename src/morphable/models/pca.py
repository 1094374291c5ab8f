"""PCA: the linear morphable model (Blanz and Vetter 1999), exact, with codes in standard
deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from morphable.config import Configuration, Count
from morphable.mesh.io.linear_model import LinearModel
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, EstimatedModel, Given, Origin, Shapes
from morphable.models.carried import NOTHING, carried
from morphable.models.geometry import NO_GEOMETRY, NoGeometry
from morphable.models.linear_basis import LinearBasis
from morphable.models.parts import Parts
from morphable.models.principal_basis import PrincipalBasis, principal_basis


@dataclass(frozen=True)
class PcaConfig(Configuration):
    """latent: number of components; the model has fewer if the meshes vary in fewer directions."""

    latent: Count = 8


class Pca(EstimatedModel):
    """x = mean + sum_k z_k sigma_k u_k, where u_k are the principal components of the whole shape
    with the largest standard deviations sigma_k. The prior of z is N(0, I).
    """

    def __init__(
        self,
        template: Template,
        config: PcaConfig,
        geometry: NoGeometry = NO_GEOMETRY,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, Parts.of(shape=config.latent), config, geometry, origin)
        self.basis = LinearBasis(config.latent, template.n_vertices)

    @classmethod
    def estimate(
        cls,
        template: Template,
        vertices: Shapes,
        labels: Mapping[str, np.ndarray],
        config: PcaConfig,
    ) -> Self:
        basis = principal_basis(vertices, config.latent).existing(NOTHING)
        meshes = f"{len(vertices)} training meshes"
        return cls.of_basis(template, basis, carried(config, meshes, latent=len(basis.deviations)))

    @classmethod
    def of_basis(cls, template: Template, basis: PrincipalBasis, config: PcaConfig) -> Self:
        model = cls(template, config)
        model.basis.set(basis)
        # The codes have covariance I by construction. Setting it is exact, while fitting it to the
        # codes would add rounding errors.
        model.prior.factor.copy_(torch.eye(config.latent))
        return model

    @classmethod
    def of_linear_model(
        cls,
        found: LinearModel,
        components: int | None = None,
        name: str | None = None,
        licence: str = "unknown",
        source: str = "",
    ) -> Self:
        """The model of a linear model's file, with the first `components` that vary; None: all. Its
        noise variance is left out.

        name: of the class; None: the file's. licence, source: for the model's card. Raises
        InputError if no component varies.
        """
        basis = PrincipalBasis(
            found.mean.reshape(-1),
            found.components.reshape(len(found.components), -1),
            np.sqrt(found.variances),
        ).existing("no component of this linear model varies")
        rank = min(components or len(basis.deviations), len(basis.deviations))
        kept = PrincipalBasis(basis.mean, basis.components[:rank], basis.deviations[:rank])
        template = Template(
            Mesh(found.mean.astype(np.float32), found.reference.faces), name or found.name
        )
        model = cls.of_basis(template, kept, PcaConfig(rank))
        about = {"source": f"the linear model {source}".strip(), "licence": licence}
        return model.with_origin(Origin("pca", about)).eval()

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return self.basis.code_of(vertices)

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return self.basis.shape_of(code)

    def truncate(self, latent: int) -> Pca:
        """Return a model with only the first `latent` components."""
        model = Pca(self.template, PcaConfig(latent), origin=self.origin).to(self.device)
        model.basis.mean.copy_(self.basis.mean)
        model.basis.components.copy_(self.basis.components[:latent])
        model.basis.deviations.copy_(self.basis.deviations[:latent])
        model.prior.factor.copy_(self.prior.factor[:latent, :latent])
        return model.eval()
