"""Handles: how control vertices of a region move between people once the region's border is aligned
(LAMM, sampling).

For random pairs of training meshes the target's region is mapped by an affine transform that brings
its border onto the source's; what remains at the control vertices is kept as one Gaussian for each
region.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from morphable.mesh.regions import Regions, border_vertices
from morphable.models.base import MorphableModel, Shapes
from morphable.models.parts import Parts
from morphable.models.prior import CodePrior

PAIRS = 1500
RIDGE = 0.02
"""Pull of the affine map towards the identity: a border in one plane, the ring of a finger, leaves
its normal open.
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
    """A model whose regions can be edited through the displacements of their control vertices."""

    regions: Regions
    handles: Handles

    @abstractmethod
    def displaced(self, code: Tensor, displacement: Tensor) -> Tensor:
        """(B, L) codes with handles displaced by (B, 3C) mm, region by region -> (B, L)."""

    def edited(self, vertices: Tensor, displacement: Tensor) -> Tensor:
        """(B, V, 3) mm with handles displaced by (B, 3C) mm -> (B, V, 3) mm, reconstructed."""
        return self.decode(self.displaced(self.encode(vertices), displacement))

    def displacement(self, region: int, moved: Tensor) -> Tensor:
        """(n, C_r, 3) mm of one region's handles -> (n, 3C) mm of all, the others at rest."""
        counts = [len(controls) for controls in self.regions.controls]
        whole = moved.new_zeros(len(moved), sum(counts), 3)
        start = sum(counts[:region])
        whole[:, start : start + counts[region]] = moved
        return whole.flatten(1)


class Handles(nn.Module):
    """A Gaussian over the displacements (3 n_c,) mm of each region's control vertices."""

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
        """(n, C, 3) mm displacements of the region's controls."""
        return self._prior(region).sample(n, generator, scale).unflatten(1, (-1, 3))

    def completed(self, region: int, moves: Mapping[int, np.ndarray]) -> Tensor:
        """(C, 3) mm: control vertices in `moves` go where they are told, the others where they most
        likely follow.
        """
        prior = self._prior(region)
        still = CodePrior(
            prior.parts
        )  # an edit is a difference: where nothing is known, nothing moves
        still.factor.copy_(prior.factor.cpu())
        known = {
            str(vertex): torch.as_tensor(move, dtype=torch.float32)
            for vertex, move in moves.items()
        }
        return still.given(known).mean.reshape(-1, 3)

    def swapped(self, region: int, source: np.ndarray, target: np.ndarray) -> Tensor:
        """(C, 3) mm displacements that give `source` (V, 3) the region of `target` (V, 3), aligned
        at its border.
        """
        controls = self.regions.controls[region]
        moved, _ = aligned_displacement(source[None], target[None], self.borders[region], controls)
        return torch.from_numpy(moved[0]).float()

    def _prior(self, region: int) -> CodePrior:
        prior = self.priors[region]
        assert isinstance(prior, CodePrior)
        return prior
