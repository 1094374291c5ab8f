"""Farthest-point sampling and nearest neighbors of point clouds, independent of the order of their
points.

Letters: B batch, P points, S samples, K neighbors, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from morphable.ops.gather import wants_plain

DISTANCES_PER_PASS = 1 << 17
"""On a CPU, neighbors are searched for a few centers at a time, so that the distances stay in the
processor's cache.
"""


class Stage(NamedTuple):
    """One stage of sampling.

    centers: (B, S) int64 the sampled points. neighbors: (B, S, K) int64 the nearest points of each
    sample, itself first.
    """

    centers: Tensor
    neighbors: Tensor

    def rows(self, start: int, count: int) -> Stage:
        """Return the stage of `count` clouds from `start`; all of it if the clouds share one."""
        return (
            self
            if len(self.centers) == 1
            else Stage(*(index[start : start + count] for index in self))
        )


class Sampling(NamedTuple):
    """Two stages of sampling a cloud; the second samples from the samples of the first.

    Indices of the first stage number the points of the cloud or, if `used` (U,) is not None, only
    the points listed there. If B = 1, all clouds of a batch share the indices.

    >>> stage = Stage(torch.tensor([[1]]), torch.tensor([[[1, 0]]]))
    >>> Sampling(stage, stage).renumber(torch.tensor([5, 7])).first
    Stage(centers=tensor([[7]]), neighbors=tensor([[[7, 5]]]))
    """

    first: Stage
    second: Stage
    used: Tensor | None = None

    def renumber(self, points: Tensor) -> Sampling:
        """Return the same sampling for a larger cloud, in which this cloud's points have the
        numbers `points` (P,).
        """
        return Sampling(
            Stage(points[self.first.centers], points[self.first.neighbors]), self.second
        )

    def among_all(self) -> Sampling:
        """Return the same sampling with indices among all points, not only the used ones."""
        return self if self.used is None else self.renumber(self.used)

    def followed_by(self, other: Sampling, count: int) -> Sampling:
        """Append the sampling of `count` further clouds, which share `other`."""
        pairs = zip(self.first + self.second, other.first + other.second, strict=True)
        centers, neighbors, *second = (
            torch.cat([a, b.expand(count, *b.shape[1:])]) for a, b in pairs
        )
        return Sampling(Stage(centers, neighbors), Stage(*second))

    def gather(self, points: Tensor) -> tuple[Tensor, Sampling]:
        """Return the points of clouds (B, P, 3) that the stages use, and the sampling with indices
        among those.

        If the neighborhoods have fewer members than the cloud has points, counting repetitions, the
        returned points are the concatenated neighborhoods.
        """
        if self.used is not None:
            return points.index_select(1, self.used), self
        near = self.first.neighbors
        if near[0].numel() >= points.shape[1]:
            return points, self
        place = torch.arange(near[0].numel(), device=near.device).view(1, *near.shape[1:])
        return take(points, near).flatten(1, 2), Sampling(Stage(place[..., 0], place), self.second)

    def to_arrays(self) -> dict[str, Tensor]:
        named = {f"{name}/{key}": getattr(getattr(self, name), key) for name, key in _STAGE_FIELDS}
        return named | ({} if self.used is None else {"used": self.used})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Self:
        stages = {
            name: Stage(arrays[f"{name}/centers"], arrays[f"{name}/neighbors"])
            for name in ("first", "second")
        }
        return cls(**stages, used=arrays.get("used"))


_STAGE_FIELDS = [(name, key) for name in ("first", "second") for key in ("centers", "neighbors")]


def point_order(points: Tensor) -> Tensor:
    """Return indices (B, P) that sort each cloud (B, P, 3) by x, then y, then z.

    Once the points are sorted, ties and rounding errors no longer depend on their original order,
    so neither do the results, to the last bit.
    """
    if wants_plain(points):
        return _plain_order(points)
    x, y, z = _ordered_bits(points).unbind(-1)
    xy = (x << 32) + y
    order = xy.argsort(dim=1)
    # A second sort is needed only if points agree in both x and y.
    if (xy.gather(1, order).diff(dim=1) > 0).all():
        return order
    by_z = z.argsort(dim=1, stable=True)
    return by_z.gather(1, xy.gather(1, by_z).argsort(dim=1, stable=True))


def _plain_order(points: Tensor) -> Tensor:
    """The same order by three stable sorts, the last one by x, in operations that can be exported."""
    order = points[..., 2].argsort(dim=1, stable=True)
    for axis in (1, 0):
        again = points[..., axis].gather(1, order).argsort(dim=1, stable=True)
        order = order.gather(1, again)
    return order


def _ordered_bits(values: Tensor) -> Tensor:
    """Map float32 values to int64 numbers of 32 bits in the same order; 0 and -0 become equal."""
    bits = (values.float() + 0.0).contiguous().view(torch.int32).long()
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Choose `count` points of each cloud: first the point farthest from the centroid, then always
    the one farthest from all chosen so far. Returns indices (B, count).

    points: (B, P, 3) with P >= count. Of equally far points the first is chosen.
    """
    if wants_plain(points):
        return _plain_farthest(points, count)
    axes = _axes(points)
    rows = torch.arange(len(points), device=points.device)
    chosen = torch.empty(len(points), count, dtype=torch.int64, device=points.device)
    chosen[:, 0] = (points - points.mean(1, keepdim=True)).square().sum(-1).argmax(1)
    nearest = torch.full_like(axes[0], torch.inf)
    for number in range(1, count):
        last = chosen[:, number - 1]
        distance = _squared_distance(axes, [axis[rows, last, None] for axis in axes])
        torch.minimum(nearest, distance, out=nearest)
        # `max` takes a third of the time of `argmax`; both return the first of equal values.
        chosen[:, number] = nearest.max(1).indices
    return chosen


def _plain_farthest(points: Tensor, count: int) -> Tensor:
    """The same points without writing into tensors, in operations that can be exported."""
    last = (points - points.mean(1, keepdim=True)).square().sum(-1).argmax(1)
    chosen, nearest = [last], None
    for _ in range(1, count):
        center = points.gather(1, last[:, None, None].expand(-1, 1, 3))
        distance = (points - center).square().sum(-1)
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
        last = nearest.argmax(1)
        chosen.append(last)
    return torch.stack(chosen, 1)


def nearest_points(points: Tensor, centers: Tensor, count: int) -> Tensor:
    """Return the indices (B, S, count) of the points (B, P, 3) nearest to each center (B, S, 3),
    nearest first.
    """
    if wants_plain(points):
        distance = (centers[:, :, None] - points[:, None]).square().sum(-1)
        return distance.topk(count, dim=-1, largest=False).indices
    groups = math.isqrt(points.shape[1] // count)
    padded = nn.functional.pad(
        points, (0, 0, 0, -points.shape[1] % max(1, groups)), value=torch.inf
    )
    centers_per_pass = (
        max(1, DISTANCES_PER_PASS // padded.shape[1])
        if points.device.type == "cpu"
        else max(1, centers.shape[1])
    )
    nearest = []
    for cloud, own in zip(padded, centers, strict=True):
        axes = _axes(cloud)
        for chunk in own.split(centers_per_pass):
            distance = _squared_distance(axes, _axes(chunk[:, None]))
            nearest.append(_smallest(distance, count, groups))
    return torch.cat(nearest).view(*centers.shape[:2], count)


def _axes(points: Tensor) -> list[Tensor]:
    return [points[..., axis].contiguous() for axis in range(3)]


def _squared_distance(axes: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Squared distances of points given by their coordinates on three axes.

    They are computed from differences, because |a|^2 + |b|^2 - 2ab loses the small distances of a
    shape far from the origin.
    """
    distance = (axes[0] - others[0]).square_()
    for axis, other in zip(axes[1:], others[1:], strict=True):
        offset = axis - other
        distance.addcmul_(offset, offset)
    return distance


def _smallest(values: Tensor, count: int, groups: int) -> Tensor:
    """(..., count) indices of the smallest values of each row (..., P), ascending; P is a multiple
    of `groups`.

    Each row is cut into `groups` lines that are laid below each other. Its smallest values lie in
    the `count` columns whose minima are smallest, so only those are searched. With fewer than three
    lines, the whole row is searched.
    """
    if groups < 3:
        return values.topk(count, dim=-1, largest=False).indices
    lines = values.unflatten(-1, (groups, -1))
    columns = lines.amin(-2).topk(count, dim=-1, largest=False, sorted=False).indices
    starts = torch.arange(0, values.shape[-1], lines.shape[-1], device=values.device)
    among = (columns[..., None, :] + starts[:, None]).flatten(-2)
    return among.gather(-1, values.gather(-1, among).topk(count, dim=-1, largest=False).indices)


@torch.no_grad()
def sample_points(points: Tensor, sizes: tuple[int, int], neighbors: int) -> Sampling:
    """Sample clouds (B, P, 3) in two stages of farthest points, each with its nearest neighbors.

    sizes: number of samples of each stage. neighbors: number of neighbors of each sample. Both are
    reduced to the number of points if a cloud has fewer.
    """
    stages = []
    for size in sizes:
        centers = farthest_points(points, min(size, points.shape[1]))
        sampled = take(points, centers)
        stages.append(
            Stage(centers, nearest_points(points, sampled, min(neighbors, points.shape[1])))
        )
        points = sampled
    return Sampling(stages[0], stages[1])


def shared_sampling(points: Tensor, sizes: tuple[int, int], neighbors: int) -> Sampling:
    """Sample one cloud (P, 3) for all clouds registered to it to share; only the points that are
    read count as used.
    """
    order = point_order(points[None])
    first, second, _ = sample_points(points[order], sizes, neighbors)
    read = order[0, torch.cat([first.centers.ravel(), first.neighbors.ravel()])]
    used, position = read.unique(return_inverse=True)
    centers, near = position.split([first.centers.numel(), first.neighbors.numel()])
    return Sampling(
        Stage(centers.view_as(first.centers), near.view_as(first.neighbors)), second, used
    )


def take(rows: Tensor, index: Tensor) -> Tensor:
    """Gather rows (B, P, C) at index (B or 1, ...): (B, ..., C)."""
    batch, points, width = rows.shape
    if len(index) == 1:
        return rows.index_select(1, index.ravel()).view(batch, *index.shape[1:], width)
    start = torch.arange(batch, device=index.device).mul(points).view(-1, *[1] * (index.ndim - 1))
    return (
        rows.reshape(-1, width).index_select(0, (index + start).ravel()).view(*index.shape, width)
    )
