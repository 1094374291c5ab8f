"""Handles: the control vertices of a region, by which a user edits the region of a shape.

- A template's `Regions` list the control vertices of each region.
- A `RegionEditor` is a model that can compute how the whole shape follows when control vertices
  move. `RegionEditor.edit` takes the displacements of all of them, region by region, (B, 3C) mm.
  In a LAMM they are a pinned part of the code, `controls`.
- `Handles` models how the control vertices of one region differ between subjects. It samples
  displacements, completes a displacement of which only some vertices are given, and computes the
  displacement that swaps the region of another shape in.
- `edit/region.py` uses all three to edit one region of one shape and to blend the result.

The distribution is that of Tarasiou et al. 2024 (LAMM, region sampling). For random pairs of
training meshes, an affine transform brings the border of the target's region onto the source's
border. The displacements of the control vertices that remain are fitted by one Gaussian per region.
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
"""Number of random pairs of training meshes that the Gaussians are fitted to."""
RIDGE = 0.02
"""Weight that pulls the affine map towards the identity. It is needed because a border in a plane,
such as the ring around a finger, does not determine the map along its normal.
"""
MAX_STRETCH = 1.25
"""Pairs whose border must be stretched by more than this are left out. The published code leaves
out all pairs above 1, so it keeps only pairs that shrink along every axis.
"""
OWN_SHARE = 0.5
"""Deviation of a handle by itself, relative to the region's handles (root mean square)."""
BLOCK = 100
"""Pairs that are read at a time."""


def aligned_displacement(
    source: np.ndarray, target: np.ndarray, border: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements of `points` from `source` to `target`, after an affine map has brought the
    border of `target` onto that of `source`.

    source, target: (N, V, 3) mm. border, points: vertices. Returns displacements (N, P, 3) mm and
    the diagonal of each map, the stretch along the axes (N, 3).
    """
    x, y = (np.asarray(s[:, border], np.float64) for s in (target, source))
    x_mean, y_mean = x.mean(1, keepdims=True), y.mean(1, keepdims=True)
    x, y = x - x_mean, y - y_mean
    # Ridge regression towards the identity: minimizes |x M - y|^2 + ridge |M - I|^2.
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

    @property
    def handles_trained(self) -> bool:
        """Whether the model has learned to follow its handles."""
        return True

    @abstractmethod
    def displace(self, code: Tensor, displacement: Tensor) -> Tensor:
        """Move control vertices in code space: returns the codes (B, L) of the shapes whose control
        vertices are displaced.

        code: (B, L). displacement: (B, 3C) mm of all control vertices, region by region.
        """

    def edit(self, vertices: Tensor, displacement: Tensor) -> Tensor:
        """(B, V, 3) mm reconstructions of shapes (B, V, 3) mm, with their control vertices
        displaced by (B, 3C) mm.
        """
        return self.decode(self.displace(self.encode(vertices), displacement))

    def displacement(self, region: int, moved: Tensor) -> Tensor:
        """(n, 3C) mm displacements of all control vertices, from those of one region (n, C_r, 3)
        mm; the others are zero.
        """
        counts = [len(controls) for controls in self.regions.controls]
        whole = moved.new_zeros(len(moved), sum(counts), 3)
        start = sum(counts[:region])
        whole[:, start : start + counts[region]] = moved
        return whole.flatten(1)


HANDLE_ERROR = 0.5
"""Standard deviation, in mm, by which a handle may miss its goal. It weighs reaching the goal
against keeping the region likely.
"""


def handle_gain(reach: Tensor, error: float = HANDLE_ERROR) -> Tensor:
    """(K, n) change of K coefficients in standard deviations per mm that n coordinates of handles
    should move, by ridge regression: the most likely step that brings the handles to within about
    `error` mm of their goals.

    reach: (n, K) mm by which a standard deviation of each coefficient moves the handles.
    """
    reach = reach.double()
    # The ridge is the posterior precision of a N(0, I) prior with this noise.
    square = reach.T @ reach + error**2 * torch.eye(reach.shape[1]).to(reach)
    return torch.linalg.solve(square, reach.T)


FOLLOW_RANK, FOLLOW_ERROR = 64, 0.1
"""Number of components along which a region follows its handles, and how far (mm) these may miss.
With so many components, a smaller error than region-PCA's brings all vertices closer, too.
"""


class LinearHandles(nn.Module):
    """How the vertices of each region follow its handles along the region's principal components,
    as in region-PCA; other regions do not move.

    Buffer: follow (3V, n), sorted by region: mm per mm by which each coordinate of the region's
    handles moves. n: the largest number of these coordinates of a region.
    """

    def __init__(self, regions: Regions) -> None:
        super().__init__()
        self.counts = [3 * len(controls) for controls in regions.controls]
        self.runs = (3 * np.bincount(regions.labels)).tolist()
        self.follow = nn.Buffer(torch.zeros(sum(self.runs), max(self.counts)))

    def set(self, region: int, components: Tensor, deviations: Tensor, controls: Tensor) -> None:
        """components: (K, 3m) of the m vertices of the region. deviations: (K,) mm. controls: (C,)
        the positions of the handles among these vertices.
        """
        axes = (components * deviations[:, None]).double()
        reach = axes.unflatten(1, (-1, 3))[:, controls].flatten(1).T
        rows = self.follow.split(self.runs)[region]
        rows[:, : self.counts[region]] = (axes.T @ handle_gain(reach, FOLLOW_ERROR)).to(rows)

    def forward(self, displacement: Tensor) -> Tensor:
        """(B, 3C) mm, region by region -> (B, 3V) mm, sorted by region."""
        regions = range(len(self.runs))
        return torch.cat([self.one(displacement, r).flatten(1) for r in regions], 1)

    def one(self, displacement: Tensor, region: int) -> Tensor:
        """(B, 3C) mm of all handles -> (B, m, 3) mm: the m vertices of one region only."""
        moves = displacement.split(self.counts, 1)[region]
        rows = self.follow.split(self.runs)[region][:, : self.counts[region]]
        return (moves @ rows.T).unflatten(1, (-1, 3))


class Handles(nn.Module):
    """One Gaussian per region over the displacements (3 C_r,) mm of its control vertices."""

    def __init__(self, regions: Regions, faces: np.ndarray) -> None:
        super().__init__()
        self.regions = regions
        self.borders = []
        for region, _ in enumerate(regions.names):
            border = border_vertices(faces, regions.labels, region)
            # A region without a border, such as a separate eyeball, is aligned by all its vertices.
            self.borders.append(border if len(border) else np.flatnonzero(regions.labels == region))
        self.priors = nn.ModuleList(
            CodePrior(Parts.of(**{str(vertex): 3 for vertex in controls}))
            for controls in regions.controls
        )

    def initialize(self, shapes: Shapes, seed: int = 0) -> None:
        """Fit the Gaussians to random pairs of training meshes (N, V, 3) mm."""
        random = np.random.default_rng(seed)
        # Every pass over the meshes pairs each mesh with the one before it in a random order.
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
        for prior, displacements in zip(self.priors, collected, strict=True):
            if displacements:
                assert isinstance(prior, CodePrior)
                prior.fit(torch.from_numpy(np.concatenate(displacements)))

    def sample(self, region: int, n: int, generator: torch.Generator, scale: float = 1.0) -> Tensor:
        """(n, C_r, 3) mm random displacements of the region's control vertices."""
        return self._prior(region).sample(n, generator, scale).unflatten(1, (-1, 3))

    def complete(self, region: int, moves: Mapping[int, np.ndarray]) -> Tensor:
        """(C_r, 3) mm displacements of a region's control vertices. Those in `moves` are as given;
        the others follow: their conditional mean, if what moves a handle is partly its own.

        moves: (3,) mm by vertex number.
        """
        controls = self.regions.controls[region].tolist()
        factor = self._prior(region).factor.double().cpu()
        covariance = factor @ factor.T
        known = torch.tensor([3 * controls.index(v) + axis for v in moves for axis in range(3)])
        known = known.long()
        given = torch.tensor(np.array([*moves.values()], np.float64).ravel())

        # An edit is relative to the current shape, so the mean is zero: if no vertex is moved, none
        # follows. Without the noise of a handle of its own, 3 mm at the base of a finger, which
        # hardly ever moves, would swing its tip by centimeters.
        own = OWN_SHARE**2 * covariance.diagonal().mean() * torch.eye(len(known)).double()
        inverse = torch.linalg.pinv(covariance[known][:, known] + own, hermitian=True)
        result = covariance[:, known] @ inverse @ given
        result[known] = given
        return result.float().reshape(-1, 3)

    def swap(self, region: int, source: np.ndarray, target: np.ndarray) -> Tensor:
        """(C_r, 3) mm displacements that replace a region of `source` (V, 3) mm by that of `target`
        (V, 3) mm, after aligning the borders.
        """
        controls = self.regions.controls[region]
        moved, _ = aligned_displacement(source[None], target[None], self.borders[region], controls)
        return torch.from_numpy(moved[0]).float()

    def _prior(self, region: int) -> CodePrior:
        prior = self.priors[region]
        assert isinstance(prior, CodePrior)
        return prior
