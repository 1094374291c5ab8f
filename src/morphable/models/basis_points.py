"""Read point clouds in any order by basis points (Prokudin, Lassner and Romero, ICCV 2019): fixed
points in space, and where the cloud is nearest to each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from morphable.models.coefficient_start import ridge
from morphable.models.correction import Correction
from morphable.ops.point_sampling import farthest_points, point_order, take
from morphable.ops.pointcloud import MIN_POINTS, check_clouds
from morphable.rows import evenly_spread

BASIS = 256
"""The basis points are so many vertices of the mean mesh, each as far as can be from the others."""
MAX_POINTS = 2000
"""At most so many points of a cloud are read. More say little, and would be denser than the clouds
of training.
"""
NOISE = 0.03
"""The variance of the noise that the regression expects in its inputs of variance one. There are
more inputs than meshes to learn from.
"""


class BasisPoints(nn.Module):
    """Maps clouds (B, P, 3) mm to K numbers each, by a linear regression and an MLP that starts at
    zero. They read the vectors from basis points to the nearest points of the cloud, so the order
    of the points does not matter.

    units: (K,) of the outputs.
    """

    def __init__(self, n_vertices: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        count = min(BASIS, n_vertices)
        # A template with fewer than 64 vertices has no larger clouds.
        self.min_points = min(MIN_POINTS, n_vertices)
        self.places = nn.Buffer(torch.zeros(count, 3))
        self.middle = nn.Buffer(torch.zeros(3 * count))
        self.scale = nn.Buffer(torch.ones(()))
        self.units = nn.Buffer(torch.ones(outputs))
        self.map = Correction(3 * count, outputs, hidden)

    def forward(self, points: Tensor) -> Tensor:
        """(B, P, 3) mm -> (B, K). Raises InputError if a cloud has fewer than 64 points, or than a
        smaller template has.
        """
        check_clouds(points, self.min_points)
        if points.shape[1] > MAX_POINTS:
            kept = torch.from_numpy(evenly_spread(points.shape[1], MAX_POINTS)).to(points.device)
            points = take(points, point_order(points)[:, kept])
        found: Tensor = self.units * self.map(self._read(self.vectors(points)))
        return found

    def vectors(self, points: Tensor) -> Tensor:
        """(B, P, 3) -> (B, 3M) mm from each basis point to the nearest point of the cloud."""
        places = self.places.expand(len(points), -1, -1)
        nearest = torch.cdist(places, points).argmin(-1)
        return (take(points, nearest) - places).flatten(1)

    def _read(self, vectors: Tensor) -> Tensor:
        return (vectors - self.middle) / self.scale

    @torch.no_grad()
    def initialize(self, mean: Tensor, units: Tensor) -> None:
        """Choose the basis points among the vertices of the mean mesh (V, 3) mm."""
        self.places.copy_(mean[farthest_points(mean[None], len(self.places))[0]])
        self.units.copy_(units)

    @torch.no_grad()
    def start_at_regression(self, vectors: Tensor, wanted: Tensor) -> None:
        """Set the linear map to a regression. vectors: (N, 3M) mm of N clouds. wanted: (N, K)."""
        self.middle.copy_(vectors.mean(0))
        self.scale.copy_((vectors - self.middle).square().mean().sqrt().clamp(min=1e-6))
        read = self._read(vectors).double()
        units = self.units.clamp(min=1e-30)  # an output whose unit is zero is always zero
        weight, bias = ridge(read, wanted.double() / units, NOISE)
        self.map.linear.weight.copy_(weight.T)
        self.map.linear.bias.copy_(bias)
