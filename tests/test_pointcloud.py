"""Point cloud transformer: layers against their formulas, exact invariance, the template's own
sampling.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import clouds
from morphable.errors import InputError
from morphable.ops.point_sampling import Stage, point_order, sample_points, shared_sampling
from morphable.ops.pointcloud import (
    NeighborEmbedding,
    OffsetAttention,
    PointLayer,
    PointTransformer,
)

SMALL = ((40, 20), 8)


def transformer() -> PointTransformer:
    """A small transformer with batch statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    made = PointTransformer(*SMALL)
    made.train()(clouds(6, 200, seed=9) / 50)
    return made.eval()


def test_embedding_equals_its_formula() -> None:
    layer = NeighborEmbedding(5).eval()
    for part in (layer.first, layer.second):
        torch.nn.init.normal_(part.norm.weight)
        torch.nn.init.normal_(part.norm.running_mean)
    x = torch.randn(2, 30, 5)
    centers, neighbors = torch.randint(30, (2, 7)), torch.randint(30, (2, 7, 4))
    expected = torch.empty(2, 7, 10)
    for b in range(2):
        for s in range(7):
            center = x[b, centers[b, s]]
            rows = torch.stack([torch.cat([x[b, n] - center, center]) for n in neighbors[b, s]])
            for part in (layer.first, layer.second):
                rows = torch.relu(part.norm(rows @ part.linear.weight.T))
            expected[b, s] = rows.max(0).values
    torch.testing.assert_close(layer(x, Stage(centers, neighbors)), expected)


def test_offset_attention_equals_its_formula() -> None:
    layer = OffsetAttention(8).eval()
    x = torch.randn(1, 6, 8)
    layer.requires_grad_(False)
    key, value = layer.key(x)[0], layer.value(x)[0]
    energy = torch.tensor([[float(torch.dot(a, b)) for b in key] for a in key])
    attention = energy.exp() / energy.exp().sum(1, keepdim=True)
    attention = attention / (1e-9 + attention.sum(0, keepdim=True))
    gathered = torch.stack([sum(attention[i, j] * value[i] for i in range(6)) for j in range(6)])
    expected = x[0] + torch.relu(layer.norm(layer.out(x[0] - gathered)))
    torch.testing.assert_close(layer(x)[0], expected)
    assert torch.allclose(attention.sum(0), torch.ones(6)), (
        "each point gathers with weights that sum to one"
    )


def test_parameter_count_of_the_published_trunk() -> None:
    assert sum(p.numel() for p in PointTransformer().parameters()) == 2_208_704


@torch.no_grad()
def test_the_order_of_points_does_not_matter() -> None:
    """Bit for bit in the indices, even where mirror symmetry makes all distances tie."""
    model, cloud = transformer(), clouds(3, 200)
    cloud = torch.cat([cloud, cloud * torch.tensor([-1.0, 1.0, 1.0])], 1)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(5))
    for one, shuffled in zip(cloud, cloud[:, order], strict=True):
        assert torch.equal(one[point_order(one[None])[0]], shuffled[point_order(shuffled[None])[0]])
    assert torch.equal(model(cloud / 50), model(cloud[:, order] / 50))


@torch.no_grad()
def test_clouds_one_by_one_equal_the_batch() -> None:
    model, cloud = transformer(), clouds(4, 90) / 50
    torch.testing.assert_close(torch.cat([model(one[None]) for one in cloud]), model(cloud))


@torch.no_grad()
def test_shared_sampling_gives_the_same_features_where_indices_agree() -> None:
    model, cloud = transformer(), clouds(1, 500) / 50
    shared = shared_sampling(cloud[0], *SMALL)
    assert shared.used is not None
    assert len(shared.used) < 500
    torch.testing.assert_close(model(cloud, shared), model(cloud), rtol=0, atol=1e-5)
    # A shape that has moved as a whole keeps its distances, so the indices still agree for a batch
    # of them.
    moved = torch.cat([cloud, cloud + 0.25, cloud - 0.5])
    torch.testing.assert_close(model(moved, shared), model(moved), rtol=0, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    model = transformer().train()
    model(clouds(2, 100)).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(1, 63, 3), (1, 100, 2), (100, 3)])
def test_impossible_clouds(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="P >= 64"):
        transformer()(torch.zeros(shape))


@torch.no_grad()
def test_the_smallest_cloud_and_repeated_points() -> None:
    model = transformer()
    assert torch.isfinite(model(clouds(1, 64))).all()
    assert torch.isfinite(model(torch.zeros(1, 64, 3))).all()


@torch.no_grad()
def test_folded_layers_are_linear_normalization_and_activation(rng: np.random.Generator) -> None:
    """Outside training, with statistics as training leaves them; neighborhoods in several passes
    too.
    """
    torch.manual_seed(0)
    layer, embed = PointLayer(6, 5), NeighborEmbedding(6)
    x = torch.from_numpy(rng.standard_normal((3, 90, 6)).astype(np.float32))
    stages = sample_points(torch.from_numpy(rng.standard_normal((3, 90, 3))), (30, 10), 7)
    for norm in (layer.norm, embed.first.norm, embed.second.norm):
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        torch.nn.init.normal_(norm.bias)
    for _ in range(40):
        layer(2 * x + 1)
        embed(2 * x + 1, stages.first)
    layer.eval()
    embed.eval()
    expected = torch.relu(layer.norm((x @ layer.linear.weight.T).flatten(0, 1)).view(3, 90, 5))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)

    cloud = torch.arange(3)[:, None]
    center = x[cloud, stages.first.centers][:, :, None].expand(-1, -1, 7, -1)
    around = x[cloud[:, :, None], stages.first.neighbors]
    pairs = torch.cat([around - center, center], -1)
    for each in (embed.first, embed.second):
        flat = (pairs @ each.linear.weight.T).flatten(0, 2)
        pairs = torch.relu(each.norm(flat)).view(3, 30, 7, 12)
    torch.testing.assert_close(embed(x, stages.first), pairs.amax(2), atol=1e-5, rtol=1e-5)
    for floats in (1, 2 * 30 * 7 * 12):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("morphable.ops.pointcloud.FLOATS_PER_PASS", floats)
            torch.testing.assert_close(embed(x, stages.first), pairs.amax(2), atol=1e-5, rtol=1e-5)
