"""Sampling of point clouds: farthest points and neighbors against brute force, the same whatever
order points have.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from helpers import clouds
from morphable.ops.point_sampling import (
    Sampling,
    farthest_points,
    nearest_points,
    point_order,
    sample_points,
    shared_sampling,
)

SMALL = ((40, 20), 8)


def test_farthest_points_by_hand() -> None:
    line = torch.tensor([0.0, 1.0, 4.0, 5.0, 11.0])
    cloud = torch.stack([line, torch.zeros(5), torch.zeros(5)], -1)[None]
    # The centroid is at 4.2: 11 is farthest, then 0, then 5 (6 from 11) before 4 (4 from 0), then
    # the nearer ones.
    assert farthest_points(cloud, 5).tolist() == [[4, 0, 3, 1, 2]]


def test_farthest_points_are_greedy() -> None:
    for cloud in clouds(3, 150):
        chosen = farthest_points(cloud[None], 30)[0].tolist()
        points = cloud.double().numpy()
        assert chosen[0] == np.linalg.norm(points - points.mean(0), axis=1).argmax()
        for number in range(1, 30):
            distance = np.linalg.norm(points[:, None] - points[chosen[:number]], axis=-1).min(1)
            assert distance[chosen[number]] == pytest.approx(distance.max())


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e3])
def test_no_point_is_skipped_for_lying_near_the_origin(scale: float) -> None:
    """The published kernels pass over points with |p|^2 <= 1e-3, which in meters is most of a hand."""
    cloud = clouds(2, 100, seed=1)
    assert torch.equal(farthest_points(cloud * scale, 100), farthest_points(cloud, 100))
    assert (farthest_points(cloud * scale, 100).sort(1).values == torch.arange(100)).all()


@pytest.mark.parametrize("count", [1, 12, 40, 300])
@pytest.mark.parametrize("offset", [0.0, 1500.0])
def test_neighbors_equal_those_of_a_tree(offset: float, count: int) -> None:
    """Also far from the origin, as a head on a standing body, where |a|^2 + |b|^2 - 2ab is too
    coarse.
    """
    cloud = clouds(3, 301, seed=2) / 10 + offset
    centers = cloud[:, :50]
    found = nearest_points(cloud, centers, count)
    for i in range(3):
        distance, expected = cKDTree(cloud[i].double().numpy()).query(
            centers[i].double().numpy(), range(1, count + 1)
        )
        assert np.array_equal(np.sort(found[i], axis=1), np.sort(expected, axis=1))
        own = (cloud[i].double()[found[i]] - centers[i].double()[:, None]).norm(dim=-1)
        np.testing.assert_allclose(own, distance, atol=1e-4)
    assert torch.equal(found[..., 0], torch.arange(50).expand(3, -1)), "itself comes first"


def test_neighbors_among_equally_far_points() -> None:
    """On a grid, where many distances are equal: as many points as asked for, all different, none
    nearer left out.
    """
    grid = torch.cartesian_prod(*[torch.arange(8.0)] * 3)[None]
    found = nearest_points(grid, grid[:, ::37], 10)
    distance = (grid[0][None] - grid[0, ::37, None]).square().sum(-1)
    assert torch.equal(distance.gather(1, found[0]), distance.sort(dim=1).values[:, :10])
    assert all(len(row.unique()) == 10 for row in found[0])


@pytest.mark.parametrize("scale", [1.0, 1e-40, 1e30])
def test_points_are_sorted_by_x_then_y_then_z(scale: float) -> None:
    """Ties in one and in two coordinates, negative and subnormal ones, and a zero with a sign."""
    cloud = torch.randint(-2, 3, (3, 400, 3), generator=torch.Generator().manual_seed(4)) * scale
    cloud[:, 0] = -0.0
    order = point_order(cloud)
    for points, own in zip(cloud.numpy(), order.numpy(), strict=True):
        assert np.array_equal(np.sort(own), np.arange(400))
        assert np.array_equal(points[own], points[np.lexsort(points.T[::-1])])


def test_what_is_read_of_a_cloud() -> None:
    """A sampling counted among the points that are read says the same as one counted among all of
    them.
    """
    points = clouds(3, 700)
    for name, whole, fewer in (
        ("own", sample_points(points, *SMALL), True),
        ("shared", shared_sampling(points[0], *SMALL), True),
        ("more than there are", sample_points(points, (40, 20), 32), False),
    ):
        read, counted = whole.gather(points)
        assert (read.shape[1] < 700) == fewer, name
        plain = whole.among_all()
        for index, own in zip(plain.first, counted.first, strict=True):
            for cloud in range(3):
                at, there = (i.expand(3, *i.shape[1:])[cloud] for i in (index, own))
                assert torch.equal(points[cloud][at], read[cloud][there]), name
        assert all(torch.equal(a, b) for a, b in zip(counted.second, plain.second, strict=True))


def test_small_clouds_have_smaller_stages() -> None:
    found = sample_points(clouds(2, 70), (512, 256), 32)
    assert found.first.neighbors.shape == (2, 70, 32)
    assert found.second.neighbors.shape == (2, 70, 32)


def test_a_sampling_survives_as_arrays() -> None:
    shared = shared_sampling(clouds(1, 100)[0], *SMALL)
    back = Sampling.from_arrays(shared.to_arrays())
    assert all(
        torch.equal(a, b)
        for a, b in zip(back.first + back.second, shared.first + shared.second, strict=True)
    )
