"""Point cloud transformer: sampled neighborhoods, their embedding and offset attention. The result
does not depend on the order of the points.

Guo et al., "PCT: Point cloud transformer", 2021; used as encoder by Sun, Pears and Gu, WACV 2022.
Letters: B batch, P points, S samples, K neighbors, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.ops.gather import wants_plain
from morphable.ops.point_sampling import Sampling, Stage, point_order, sample_points, take

MIN_POINTS = 64
FLOATS_PER_PASS = 1 << 20
"""In evaluation, neighborhoods are embedded for a few clouds at a time, so that they stay in the
processor's cache.
"""

Affine = tuple[Tensor, Tensor]
"""Weight (C_out, C_in) and bias (C_out,) of an affine map."""


class PointLayer(nn.Module):
    """A linear layer without bias, batch normalization over all points of all clouds, and an
    activation, by default ReLU.
    """

    def __init__(self, fan_in: int, fan_out: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(fan_in, fan_out, bias=False)
        self.norm = nn.BatchNorm1d(fan_out)
        self.activation = nn.ReLU(inplace=True) if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            weight, bias = self.folded()
            return self.activation(nn.functional.linear(x, weight, bias))
        return self.finish(self.linear(x))

    def finish(self, x: Tensor) -> Tensor:
        """Normalize and activate the output of the linear layer, in training."""
        # The activation works in place; on a view, autograd would copy every gradient twice.
        flat: Tensor = self.activation(self.norm(x.flatten(0, -2)))
        return flat.view_as(x)

    def folded(self) -> Affine:
        """The linear layer and the normalization by running statistics, as one affine map."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return self.linear.weight * scale[:, None], norm.bias - norm.running_mean * scale


class NeighborEmbedding(nn.Module):
    """For each sample, [neighbor - center, center] of 2C channels goes through two layers, and the
    maximum over neighbors is taken.

    The linear map of the first layer is applied once per point, before neighborhoods are gathered:
    W [n - c, c] = W_1 n + (W_2 - W_1) c.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (
            PointLayer(2 * channels, 2 * channels),
            PointLayer(2 * channels, 2 * channels),
        )

    def forward(self, x: Tensor, stage: Stage) -> Tensor:
        """(B, P, C) -> (B, S, 2C)"""
        if not self.training:
            layers = self.first.folded(), self.second.folded()
            if wants_plain(x):  # a loop over clouds would fix their number in an exported program
                return self._known(x, stage, *layers)
            clouds = max(1, FLOATS_PER_PASS // (stage.neighbors[0].numel() * len(layers[0][1])))
            starts = range(0, len(x), clouds)
            return torch.cat(
                [self._known(x[i : i + clouds], stage.rows(i, clouds), *layers) for i in starts]
            )
        around, at = self._mapped(x, stage, self.first.linear.weight)
        return self.second(self.first.finish(around + at)).amax(2)

    def _known(self, x: Tensor, stage: Stage, first: Affine, second: Affine) -> Tensor:
        """The embedding with folded layers. The activation after the last product is increasing, so
        it is applied to the maxima only.
        """
        around, at = self._mapped(x, stage, first[0])
        near = nn.functional.linear(self.first.activation(around + (at + first[1])), second[0])
        return self.second.activation(near.amax(2) + second[1])

    def _mapped(self, x: Tensor, stage: Stage, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's linear map of [n - c, c] as two summands, of the neighbors
        (B, S, K, 2C) and of the centers (B, S, 1, 2C).
        """
        near, center = weight.chunk(2, dim=1)
        around = take(x @ near.T, stage.neighbors)
        return around, (take(x, stage.centers) @ (center - near).T)[:, :, None]


class OffsetAttention(nn.Module):
    """x + ReLU(BN(L(x - A v))). The queries equal the keys, and A is a softmax over keys, divided
    by its column sums.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key = nn.Linear(channels, channels // 4, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, C) -> (B, S, C)"""
        key = self.key(x)
        weights = torch.softmax(key @ key.transpose(1, 2), dim=-1)
        weights = weights / (1e-9 + weights.sum(1, keepdim=True))
        offset = self.out(x - weights.transpose(1, 2) @ self.value(x))
        return x + torch.relu(self.norm(offset.flatten(0, 1)).view_as(offset))


def check_clouds(points: Tensor, min_points: int) -> None:
    """Raises InputError unless clouds are (B, P, 3) with at least `min_points` points."""
    if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] < min_points:
        raise InputError(
            f"points: expected (B, P, 3) with P >= {min_points}, got {tuple(points.shape)}"
        )


class PointTransformer(nn.Module):
    """(B, P, 3) points to (B, 1024) features of the cloud, independent of the order of the points.

    sizes, neighbors: as in `sample_points`. min_points: number of points that a cloud needs.
    """

    features = 1024

    def __init__(
        self,
        sizes: tuple[int, int] = (512, 256),
        neighbors: int = 32,
        min_points: int = MIN_POINTS,
    ) -> None:
        super().__init__()
        self.sizes, self.neighbors, self.min_points = sizes, neighbors, min_points
        self.lift = nn.Sequential(PointLayer(3, 64), PointLayer(64, 64))
        self.embed = nn.ModuleList([NeighborEmbedding(64), NeighborEmbedding(128)])
        self.mix = nn.Sequential(PointLayer(256, 256), PointLayer(256, 256))
        self.attention = nn.ModuleList(OffsetAttention(256) for _ in range(4))
        self.fuse = PointLayer(1280, self.features, nn.LeakyReLU(0.2, inplace=True))

    def forward(self, points: Tensor, sampling: Sampling | None = None) -> Tensor:
        """Compute the features (B, 1024) of clouds (B, P, 3).

        sampling: a precomputed sampling, for registered clouds; computed for each cloud if None.

        Raises InputError unless the clouds are (P, 3) with at least `min_points` points.
        """
        check_clouds(points, self.min_points)
        if sampling is None:
            points = take(points, point_order(points))
            sampling = sample_points(points, self.sizes, self.neighbors)
        points, sampling = sampling.gather(points)
        x = self.lift(points)
        for embed, stage in zip(self.embed, (sampling.first, sampling.second), strict=True):
            x = embed(x, stage)
        mixed = [self.mix(x)]
        for layer in self.attention:
            mixed.append(layer(mixed[-1]))
        return self.fuse(torch.cat([*mixed[1:], x], -1)).amax(1)
