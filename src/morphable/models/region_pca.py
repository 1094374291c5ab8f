"""Region-PCA: principal components of each region on its own, the linear baseline of editing by
region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from morphable.config import Configuration, Count, CountOrZero
from morphable.mesh.regions import Regions, template_regions
from morphable.mesh.template import Template
from morphable.models.base import Shapes, blocks
from morphable.models.handles import Handles, RegionEditor
from morphable.models.parts import Parts
from morphable.models.pca import LinearModel, principal_basis

HANDLE_ERROR = 0.5
"""mm by which a handle may miss its goal when that keeps the region likely."""


@dataclass(frozen=True)
class RegionPcaConfig(Configuration):
    """latent: components of all regions together. regions: how many automatic ones, 0 = the
    template's own.
    """

    latent: Count = 8
    regions: CountOrZero = 0


def shared_out(latent: int, count: int) -> list[int]:
    """Components of each of `count` regions: the first (latent mod count) take one more.

    >>> shared_out(8, 3)
    [3, 3, 2]
    """
    return [latent // count + (region < latent % count) for region in range(count)]


class RegionPca(LinearModel, RegionEditor):
    """A part for each region, in standard deviations; a region that gets no component stays at the
    mean.

    Components are zero outside their region, so nothing else moves. The prior knows how the regions
    go together.
    """

    def __init__(
        self, template: Template, config: RegionPcaConfig, geometry: Mapping[str, np.ndarray]
    ) -> None:
        regions = Regions.from_arrays(geometry)
        sizes = zip(regions.names, shared_out(config.latent, len(regions.names)), strict=True)
        super().__init__(
            regions.on(template), Parts.of(**{name: size for name, size in sizes if size}), config
        )
        self.regions = regions
        self.handles = Handles(regions, template.mesh.faces)

    @classmethod
    def geometry(cls, template: Template, config: RegionPcaConfig) -> dict[str, np.ndarray]:
        return template_regions(template, config.regions).to_arrays()

    @classmethod
    def estimate(
        cls,
        template: Template,
        vertices: Shapes,
        labels: Mapping[str, np.ndarray],
        config: RegionPcaConfig,
    ) -> Self:
        geometry = cls.geometry(template, config)
        model = cls(template, config, geometry)
        model.saved_geometry = geometry
        start = 0
        for region, size in enumerate(shared_out(config.latent, len(model.regions.names))):
            members = np.flatnonzero(model.regions.labels == region)
            columns = torch.from_numpy((3 * members[:, None] + np.arange(3)).ravel())
            basis = principal_basis(Part(vertices, members), size)
            rows = slice(start, start + size)
            model.mean[columns] = torch.tensor(basis.mean).float()
            model.components[rows, columns] = torch.tensor(basis.components).float()
            model.deviations[rows] = torch.tensor(basis.deviations).float()
            start += size
        codes = [model.encode(torch.from_numpy(np.asarray(block))) for block in blocks(vertices)]
        model.prior.fit(torch.cat(codes))
        model.handles.initialize(vertices)
        return model

    def displaced(self, code: Tensor, displacement: Tensor) -> Tensor:
        """Each region's coefficients move as little as brings its handles to where they are put,
        give or take half a millimeter.
        """
        return code + displacement @ self._gain().T

    def _gain(self) -> Tensor:
        """(L, 3C) coefficients for a displacement of the handles: ridge regression, region by
        region.
        """
        handles = torch.from_numpy(np.concatenate(self.regions.controls)).to(self.device)
        columns = (3 * handles[:, None] + torch.arange(3, device=self.device)).ravel()
        reach = (self.components[:, columns] * self.deviations[:, None]).T.double()
        square = reach.T @ reach + HANDLE_ERROR**2 * torch.eye(
            len(self.deviations), device=self.device
        )
        return torch.linalg.solve(square, reach.T).to(self.mean)


class Part:
    """The shapes (N, V, 3) seen at some of their vertices only, normalized where told how, read
    when asked for.
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
