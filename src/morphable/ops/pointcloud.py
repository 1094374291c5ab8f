"""Point cloud transformer: farthest-point sampling, neighbour embedding and offset attention, in any point order.

Guo et al., "PCT: Point cloud transformer", 2021; the encoder of Sun, Pears and Gu, WACV 2022. Letters: B batch,
P points, S samples, K neighbours, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from morphable.errors import InputError

FEWEST_POINTS = 64
DISTANCES_PER_PASS = 1 << 17
"""On a CPU neighbours are searched for a few centres at a time, so that their distances stay in the cache."""
FLOATS_PER_PASS = 1 << 20
"""Outside training neighbourhoods are embedded for a few clouds at a time, so that they stay in the cache."""

Affine = tuple[Tensor, Tensor]
"""Weight (C_out, C_in) and bias (C_out,) of an affine map."""


class Stage(NamedTuple):
    """Which points are samples, (B, S) int64, and each sample's nearest points, (B, S, K), itself first."""

    centres: Tensor
    neighbours: Tensor

    def rows(self, start: int, count: int) -> Stage:
        """Of `count` clouds from `start`; all where one serves every cloud."""
        return self if len(self.centres) == 1 else Stage(*(index[start : start + count] for index in self))


class Sampling(NamedTuple):
    """What the network reads of a cloud: two stages, the second among the first's samples.

    used: (U,) the points that matter, to which the first stage then counts; all where None. With B = 1 the indices
    serve every cloud of a batch.
    """

    first: Stage
    second: Stage
    used: Tensor | None = None

    def of(self, points: Tensor) -> Sampling:
        """The same where cloud point i is number points[i] (P,) of a larger cloud."""
        return Sampling(Stage(points[self.first.centres], points[self.first.neighbours]), self.second)

    def unpacked(self) -> Sampling:
        """The same counted among all points instead of the used ones."""
        return self if self.used is None else self.of(self.used)

    def beside(self, other: Sampling, count: int) -> Sampling:
        """This sampling's clouds followed by `count` clouds that share `other`."""
        pairs = zip(self.first + self.second, other.first + other.second, strict=True)
        centres, neighbours, *second = (torch.cat([a, b.expand(count, *b.shape[1:])]) for a, b in pairs)
        return Sampling(Stage(centres, neighbours), Stage(*second))

    def read(self, points: Tensor) -> tuple[Tensor, Sampling]:
        """What the network needs of clouds (B, P, 3), and the sampling counted among that.

        Neighbourhoods that have fewer points than a cloud, repeated ones counted, are read alone, one after the other.
        """
        if self.used is not None:
            return points.index_select(1, self.used), self
        near = self.first.neighbours
        if near[0].numel() >= points.shape[1]:
            return points, self
        place = torch.arange(near[0].numel(), device=near.device).view(1, *near.shape[1:])
        return _take(points, near).flatten(1, 2), Sampling(Stage(place[..., 0], place), self.second)

    def to_arrays(self) -> dict[str, Tensor]:
        named = {f"{name}/{key}": getattr(getattr(self, name), key) for name, key in _STAGE_FIELDS}
        return named | ({} if self.used is None else {"used": self.used})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Self:
        stages = {name: Stage(arrays[f"{name}/centres"], arrays[f"{name}/neighbours"]) for name in ("first", "second")}
        return cls(**stages, used=arrays.get("used"))


_STAGE_FIELDS = [(name, key) for name in ("first", "second") for key in ("centres", "neighbours")]


def point_order(points: Tensor) -> Tensor:
    """(B, P) indices that sort each cloud (B, P, 3) by x, then y, then z: one order whatever order they came in.

    Every tie and every rounding further on then falls the same way, so what follows is exactly order independent.
    """
    x, y, z = _ordered_bits(points).unbind(-1)
    xy = (x << 32) + y
    order = xy.argsort(dim=1)
    # Only points that agree in both ask for a second sort.
    if (xy.gather(1, order).diff(dim=1) > 0).all():
        return order
    by_z = z.argsort(dim=1, stable=True)
    return by_z.gather(1, xy.gather(1, by_z).argsort(dim=1, stable=True))


def _ordered_bits(values: Tensor) -> Tensor:
    """int64 numbers of 32 bits in the order of float32 values, equal for equal ones (0 and -0)."""
    bits = (values.float() + 0.0).contiguous().view(torch.int32).long()
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


def farthest_points(points: Tensor, count: int) -> Tensor:
    """(B, count) indices: the point farthest from the centroid, then always the one farthest from all taken so far.

    points: (B, P, 3) with P >= count. Of equally far points the first is taken.
    """
    axes = _axes(points)
    rows = torch.arange(len(points), device=points.device)
    chosen = torch.empty(len(points), count, dtype=torch.int64, device=points.device)
    chosen[:, 0] = (points - points.mean(1, keepdim=True)).square().sum(-1).argmax(1)
    nearest = torch.full_like(axes[0], torch.inf)
    for number in range(1, count):
        last = chosen[:, number - 1]
        distance = _squared_distance(axes, [axis[rows, last, None] for axis in axes])
        torch.minimum(nearest, distance, out=nearest)
        # Not argmax, which takes three times as long; both take the first of equals.
        chosen[:, number] = nearest.max(1).indices
    return chosen


def nearest_points(points: Tensor, centres: Tensor, count: int) -> Tensor:
    """(B, S, count) indices of the points (B, P, 3) nearest to each centre (B, S, 3), nearest first."""
    groups = math.isqrt(points.shape[1] // count)
    padded = nn.functional.pad(points, (0, 0, 0, -points.shape[1] % max(1, groups)), value=torch.inf)
    some = max(1, DISTANCES_PER_PASS // padded.shape[1]) if points.device.type == "cpu" else max(1, centres.shape[1])
    found = []
    for cloud, own in zip(padded, centres, strict=True):
        axes = _axes(cloud)
        for few in own.split(some):
            found.append(_smallest(_squared_distance(axes, _axes(few[:, None])), count, groups))
    return torch.cat(found).view(*centres.shape[:2], count)


def _axes(points: Tensor) -> list[Tensor]:
    return [points[..., axis].contiguous() for axis in range(3)]


def _squared_distance(axes: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Of points given by their coordinates on three axes.

    By differences: |a|^2 + |b|^2 - 2ab loses the small distances of a shape far from the origin.
    """
    distance = (axes[0] - others[0]).square_()
    for axis, other in zip(axes[1:], others[1:], strict=True):
        offset = axis - other
        distance.addcmul_(offset, offset)
    return distance


def _smallest(values: Tensor, count: int, groups: int) -> Tensor:
    """(..., count) indices of the smallest of each row (..., P), ascending; P is a multiple of `groups`.

    The row is cut into `groups` lines: its smallest values lie in the `count` columns with the smallest values on top,
    so that not the whole row has to be searched. With one line or none it is.
    """
    if groups < 3:
        return values.topk(count, dim=-1, largest=False).indices
    lines = values.unflatten(-1, (groups, -1))
    columns = lines.amin(-2).topk(count, dim=-1, largest=False, sorted=False).indices
    starts = torch.arange(0, values.shape[-1], lines.shape[-1], device=values.device)
    among = (columns[..., None, :] + starts[:, None]).flatten(-2)
    return among.gather(-1, values.gather(-1, among).topk(count, dim=-1, largest=False).indices)


@torch.no_grad()
def sample_points(points: Tensor, sizes: tuple[int, int], neighbours: int) -> Sampling:
    """Two stages of farthest points with their neighbours, in a cloud of any size: min(size, P), min(neighbours, P)."""
    stages = []
    for size in sizes:
        centres = farthest_points(points, min(size, points.shape[1]))
        sampled = _take(points, centres)
        stages.append(Stage(centres, nearest_points(points, sampled, min(neighbours, points.shape[1]))))
        points = sampled
    return Sampling(stages[0], stages[1])


def shared_sampling(points: Tensor, sizes: tuple[int, int], neighbours: int) -> Sampling:
    """The sampling of one cloud (P, 3), to be shared by all clouds registered to it; points never read drop out."""
    order = point_order(points[None])
    first, second, _ = sample_points(points[order], sizes, neighbours)
    read = order[0, torch.cat([first.centres.ravel(), first.neighbours.ravel()])]
    used, position = read.unique(return_inverse=True)
    centres, near = position.split([first.centres.numel(), first.neighbours.numel()])
    return Sampling(Stage(centres.view_as(first.centres), near.view_as(first.neighbours)), second, used)


def _take(rows: Tensor, index: Tensor) -> Tensor:
    """rows (B, P, C) at index (B or 1, ...) -> (B, ..., C)."""
    batch, points, width = rows.shape
    if len(index) == 1:
        return rows.index_select(1, index.ravel()).view(batch, *index.shape[1:], width)
    start = torch.arange(batch, device=index.device).mul(points).view(-1, *[1] * (index.ndim - 1))
    return rows.reshape(-1, width).index_select(0, (index + start).ravel()).view(*index.shape, width)


class PointLayer(nn.Module):
    """Linear without bias, batch normalisation over all points of all clouds, and ReLU (or another activation)."""

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
        """What follows the linear map in training."""
        # The activation works in place: on a view autograd would copy every gradient twice.
        flat: Tensor = self.activation(self.norm(x.flatten(0, -2)))
        return flat.view_as(x)

    def folded(self) -> Affine:
        """Linear map and normalisation by its running statistics as one."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return self.linear.weight * scale[:, None], norm.bias - norm.running_mean * scale


class NeighbourEmbedding(nn.Module):
    """For each sample: [neighbour - centre, centre] of 2C channels through two layers, and the largest over neighbours.

    The first layer is linear in features that all neighbourhoods share, so it maps each point once, before points are
    gathered: W [n - c, c] = W_1 n + (W_2 - W_1) c.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = PointLayer(2 * channels, 2 * channels), PointLayer(2 * channels, 2 * channels)

    def forward(self, x: Tensor, stage: Stage) -> Tensor:
        """(B, P, C) -> (B, S, 2C)"""
        if not self.training:
            layers = self.first.folded(), self.second.folded()
            clouds = max(1, FLOATS_PER_PASS // (stage.neighbours[0].numel() * len(layers[0][1])))
            starts = range(0, len(x), clouds)
            return torch.cat([self._known(x[i : i + clouds], stage.rows(i, clouds), *layers) for i in starts])
        around, at = self._mapped(x, stage, self.first.linear.weight)
        out: Tensor = self.second(self.first.finish(around + at)).amax(2)
        return out

    def _known(self, x: Tensor, stage: Stage, first: Affine, second: Affine) -> Tensor:
        """With known statistics. What follows the last product keeps the order of numbers: the largest alone get it."""
        around, at = self._mapped(x, stage, first[0])
        near = nn.functional.linear(self.first.activation(around + (at + first[1])), second[0])
        out: Tensor = self.second.activation(near.amax(2) + second[1])
        return out

    def _mapped(self, x: Tensor, stage: Stage, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's map of [n - c, c]: what neighbours (B, S, K, 2C) and centres (B, S, 1, 2C) give to it."""
        near, centre = weight.chunk(2, dim=1)
        around = _take(x @ near.T, stage.neighbours)
        return around, (_take(x, stage.centres) @ (centre - near).T)[:, :, None]


class OffsetAttention(nn.Module):
    """x + ReLU(BN(L(x - A v))): queries are the keys, and A is a softmax over keys, then divided by column sums."""

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


class PointTransformer(nn.Module):
    """(B, P, 3) points to (B, 1024) features of the cloud; no point's place in the list matters.

    `sizes` and `neighbours` are those of `sample_points`.
    """

    features = 1024

    def __init__(self, sizes: tuple[int, int] = (512, 256), neighbours: int = 32) -> None:
        super().__init__()
        self.sizes, self.neighbours = sizes, neighbours
        self.lift = nn.Sequential(PointLayer(3, 64), PointLayer(64, 64))
        self.embed = nn.ModuleList([NeighbourEmbedding(64), NeighbourEmbedding(128)])
        self.mix = nn.Sequential(PointLayer(256, 256), PointLayer(256, 256))
        self.attention = nn.ModuleList(OffsetAttention(256) for _ in range(4))
        self.fuse = PointLayer(1280, self.features, nn.LeakyReLU(0.2, inplace=True))

    def forward(self, points: Tensor, sampling: Sampling | None = None) -> Tensor:
        """sampling: known in advance for registered clouds; else it is computed for each cloud.

        Raises InputError where a cloud is not (P, 3) with at least 64 points.
        """
        if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] < FEWEST_POINTS:
            raise InputError(f"points: expected (B, P, 3) with P >= {FEWEST_POINTS}, got {tuple(points.shape)}")
        if sampling is None:
            points = _take(points, point_order(points))
            sampling = sample_points(points, self.sizes, self.neighbours)
        points, sampling = sampling.read(points)
        x = self.lift(points)
        for embed, stage in zip(self.embed, (sampling.first, sampling.second), strict=True):
            x = embed(x, stage)
        mixed = [self.mix(x)]
        for layer in self.attention:
            mixed.append(layer(mixed[-1]))
        out: Tensor = self.fuse(torch.cat([*mixed[1:], x], -1)).amax(1)
        return out
