"""Region-PCA: separate principal components per region. It is the linear baseline for editing by
region (Tarasiou et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from morphable.config import Count
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, EstimatedModel, Given, Origin, Shapes, blocks
from morphable.models.carried import NOTHING, carried
from morphable.models.geometry import RegionCounts, RegionGeometry
from morphable.models.handles import Handles, RegionEditor, handle_gain
from morphable.models.linear_basis import LinearBasis
from morphable.models.parts import Parts
from morphable.models.principal_basis import principal_basis


@dataclass(frozen=True)
class RegionPcaConfig(RegionCounts):
    """latent: number of components of all regions together."""

    latent: Count = 8


def shared_out(latent: int, count: int) -> list[int]:
    """Number of components of each of `count` regions. If `latent` is not a multiple of `count`,
    the first regions get one more.

    >>> shared_out(8, 3)
    [3, 3, 2]
    """
    return [latent // count + (region < latent % count) for region in range(count)]


class RegionPca(EstimatedModel, RegionEditor):
    """PCA of each region by itself, with one part of the code per region. The prior is fitted to
    all parts together, so its covariance says which regions go together.

    Components are zero outside their region, so changing a part moves nothing else. A region that
    gets no component stays at the mean.
    """

    geometry_type = RegionGeometry
    parts_from_data = True

    def __init__(
        self,
        template: Template,
        config: RegionPcaConfig,
        geometry: RegionGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        regions = geometry.regions
        sizes = zip(regions.names, shared_out(config.latent, len(regions.names)), strict=True)
        super().__init__(
            replace(template, regions=regions),
            Parts.of(**{name: size for name, size in sizes if size}),
            config,
            geometry,
            origin,
        )
        self.basis = LinearBasis(self.parts.size, template.n_vertices)
        self.handles = Handles(regions, template.mesh.faces)

    @classmethod
    def estimate(
        cls,
        template: Template,
        vertices: Shapes,
        labels: Mapping[str, np.ndarray],
        config: RegionPcaConfig,
    ) -> Self:
        geometry = RegionGeometry.of(template, config)
        count = len(geometry.regions.names)
        members = [np.flatnonzero(geometry.regions.labels == region) for region in range(count)]
        bases = [
            principal_basis(RegionView(vertices, own), size)
            for own, size in zip(members, shared_out(config.latent, count), strict=True)
        ]
        # The regions share the latent size equally, so the one that varies most limits it.
        found = max(int((basis.deviations > 0).sum()) for basis in bases)
        if not found:
            raise InputError(NOTHING)
        if config.latent > count * found:
            meshes = f"{len(vertices)} training meshes with {count} regions"
            config = carried(config, meshes, latent=count * found)
        model = cls(template, config, geometry)
        start = 0
        for own, basis, size in zip(members, bases, shared_out(config.latent, count), strict=True):
            # The columns of a region's coordinates in the flat shape (3V,).
            columns = torch.from_numpy((3 * own[:, None] + np.arange(3)).ravel())
            rows = slice(start, start + size)
            model.basis.mean[columns] = torch.tensor(basis.mean).float()
            model.basis.components[rows, columns] = torch.tensor(basis.components[:size]).float()
            model.basis.deviations[rows] = torch.tensor(basis.deviations[:size]).float()
            start += size
        codes = [model.encode(torch.from_numpy(np.asarray(block))) for block in blocks(vertices)]
        model.prior.fit(torch.cat(codes))
        model.handles.initialize(vertices)
        return model

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        return self.basis.code_of(vertices)

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return self.basis.shape_of(code)

    def displace(self, code: Tensor, displacement: Tensor) -> Tensor:
        """Change the coefficients of each region by the smallest step that brings its handles to
        within about half a millimeter of their goals.
        """
        return code + displacement @ self._gain().T

    def _gain(self) -> Tensor:
        """(L, 3C) matrix from displacements of the handles in mm to changes of the code, by ridge
        regression.
        """
        handles = torch.from_numpy(np.concatenate(self.regions.controls)).to(self.device)
        columns = (3 * handles[:, None] + torch.arange(3, device=self.device)).ravel()
        reach = (self.basis.components[:, columns] * self.basis.deviations[:, None]).T
        # One solve for all regions: components are zero outside their region, so the system is
        # block diagonal.
        return handle_gain(reach).to(self.basis.mean)


class RegionView:
    """The vertices `members` of shapes (N, V, 3), normalized if `mean` and `std` (V, 3) are given.
    Meshes are read only when indexed.
    """

    def __init__(
        self,
        shapes: Shapes,
        members: np.ndarray,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
    ) -> None:
        self.shapes, self.members = shapes, members
        self.mean = np.zeros((1, 3), np.float32) if mean is None else mean[members]
        self.std = np.ones((1, 3), np.float32) if std is None else std[members]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.shapes), len(self.members), 3)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any, /) -> np.ndarray:
        return (np.asarray(self.shapes[index])[..., self.members, :] - self.mean) / self.std
