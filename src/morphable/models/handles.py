"""Handles: regions of a shape are edited by moving their control vertices.

- A template's `Regions` list the control vertices of each region.
- A `RegionEditor` is a model that answers how the whole shape follows when control vertices move;
  `RegionEditor.edit` takes the displacements of all of them, region by region, (B, 3C) mm. For a
  LAMM they are a pinned part of the code, `controls`.
- `Handles` knows how the control vertices of one region move between people: it samples
  displacements, completes partly known ones, and takes those that swap a region in.
- `edit/region.py` uses all three to edit one region of one shape and to blend the result.

The distribution is that of Tarasiou et al. 2024 (LAMM, region sampling): for random pairs of
training meshes the target's region is mapped by the affine transform that brings its border onto
the source's; what remains at the control vertices is kept as one Gaussian per region.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from morphable.mesh.regions import Regions, border_vertices
from morphable.models.base import MorphableModel, Shapes
from morphable.models.geometry import RegionGeometry
from morphable.models.parts import Parts
from morphable.models.prior import CodePrior

PAIRS = 1500
"""Random pairs of training meshes that the Gaussians are fitted to."""
RIDGE = 0.02
"""Pull of the affine map towards the identity. A border that lies in a plane, as the ring of a
finger, does not determine the map along its normal.
"""
MAX_STRETCH = 1.25
"""Pairs whose border has to be stretched by more than this are left out. The published code leaves
out all above 1, which keeps only pairs that shrink along every axis.
"""
BLOCK = 100


def aligned_displacement(
    source: np.ndarray, target: np.ndarray, border: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where `points` of `target` lie relative to `source` after the affine map that brings border
    onto border.

    source, target: (N, V, 3) mm. Returns displacements (N, P, 3) mm and the map's diagonal (N, 3).
    """
    x, y = (np.asarray(s[:, border], np.float64) for s in (target, source))
    x_mean, y_mean = x.mean(1, keepdims=True), y.mean(1, keepdims=True)
    x, y = x - x_mean, y - y_mean
    gram = x.transpose(0, 2, 1) @ x
    ridge = RIDGE * (np.trace(gram, axis1=1, axis2=2) / 3 + 1e-12)[:, None, None] * np.eye(3)
    matrix = np.linalg.solve(gram + ridge, x.transpose(0, 2, 1) @ y + ridge)
    moved = (target[:, points] - x_mean) @ matrix + y_mean - source[:, points]
    return moved, np.diagonal(matrix, axis1=1, axis2=2)


class RegionEditor(MorphableModel):
    """A model whose regions can be edited by displacing their control vertices."""

    geometry: RegionGeometry
    handles: Handles

    @property
    def regions(self) -> Regions:
        return self.geometry.regions

    @abstractmethod
    def displace(self, code: Tensor, displacement: Tensor) -> Tensor:
        """(B, L) codes and displacements of all control vertices (B, 3C) mm -> (B, L) codes of the
        shapes with the control vertices moved.
        """

    def edit(self, vertices: Tensor, displacement: Tensor) -> Tensor:
        """(B, V, 3) mm and displacements of all control vertices (B, 3C) mm -> (B, V, 3) mm, the
        reconstruction with the control vertices moved.
        """
        return self.decode(self.displace(self.encode(vertices), displacement))

    def displacement(self, region: int, moved: Tensor) -> Tensor:
        """(n, C_r, 3) mm of one region's control vertices -> (n, 3C) mm of all, the others at
        rest.
        """
        counts = [len(controls) for controls in self.regions.controls]
        whole = moved.new_zeros(len(moved), sum(counts), 3)
        start = sum(counts[:region])
        whole[:, start : start + counts[region]] = moved
        return whole.flatten(1)


class Handles(nn.Module):
    """Per region a Gaussian over the displacements (3 C_r,) mm of its control vertices."""

    def __init__(self, regions: Regions, faces: np.ndarray) -> None:
        super().__init__()
        self.regions = regions
        self.borders = []
        for region, _ in enumerate(regions.names):
            border = border_vertices(faces, regions.labels, region)
            self.borders.append(border if len(border) else np.flatnonzero(regions.labels == region))
        self.priors = nn.ModuleList(
            CodePrior(Parts.of(**{str(vertex): 3 for vertex in controls}))
            for controls in regions.controls
        )

    def initialize(self, shapes: Shapes, seed: int = 0) -> None:
        """Fit the Gaussians to random pairs of training meshes (N, V, 3) mm."""
        random = np.random.default_rng(seed)
        rows = [random.permutation(len(shapes)) for _ in range(max(1, -(-PAIRS // len(shapes))))]
        first = np.concatenate(rows)[:PAIRS]
        second = np.concatenate([np.roll(order, 1) for order in rows])[:PAIRS]
        collected: list[list[np.ndarray]] = [[] for _ in self.priors]
        for start in range(0, len(first), BLOCK):
            source, target = (shapes[order[start : start + BLOCK]] for order in (first, second))
            for region, controls in enumerate(self.regions.controls):
                if len(controls):
                    moved, stretch = aligned_displacement(
                        source, target, self.borders[region], controls
                    )
                    near = (np.abs(stretch) <= MAX_STRETCH).all(1)
                    collected[region].append(
                        (moved[near] if near.any() else moved).reshape(-1, 3 * len(controls))
                    )
        for prior, found in zip(self.priors, collected, strict=True):
            if found:
                assert isinstance(prior, CodePrior)
                prior.fit(torch.from_numpy(np.concatenate(found)))

    def sample(self, region: int, n: int, generator: torch.Generator, scale: float = 1.0) -> Tensor:
        """(n, C_r, 3) mm displacements of the region's control vertices."""
        return self._prior(region).sample(n, generator, scale).unflatten(1, (-1, 3))

    def complete(self, region: int, moves: Mapping[int, np.ndarray]) -> Tensor:
        """(C_r, 3) mm: the control vertices in `moves` are displaced as given, the others by their
        conditional mean.
        """
        prior = self._prior(region)
        # An edit is relative to the shape at hand, so the mean is zero: no known move, no movement.
        centered = CodePrior(prior.parts)
        centered.factor.copy_(prior.factor.cpu())
        known = {
            str(vertex): torch.as_tensor(move, dtype=torch.float32)
            for vertex, move in moves.items()
        }
        return centered.given(known).mean.reshape(-1, 3)

    def swap(self, region: int, source: np.ndarray, target: np.ndarray) -> Tensor:
        """(C_r, 3) mm displacements that give `source` (V, 3) the region of `target` (V, 3),
        aligned at its border.
        """
        controls = self.regions.controls[region]
        moved, _ = aligned_displacement(source[None], target[None], self.borders[region], controls)
        return torch.from_numpy(moved[0]).float()

    def _prior(self, region: int) -> CodePrior:
        prior = self.priors[region]
        assert isinstance(prior, CodePrior)
        return prior
